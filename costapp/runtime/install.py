"""Makes the virtual environment and installs pinned packages, with progress on screen. Standard library only.

Called by the Makefile with any Python; written so that an old one can read it far enough to say that it is too old.
A stamp with the hash of the requirement files makes every later call a no-op.
"""

import hashlib
import os
import subprocess
import sys

OLDEST = (3, 11)


def main(arguments):
    # type: (list[str]) -> int
    venv, requirements, constraints = arguments
    if sys.version_info < OLDEST:
        return refuse(
            "Python %s is too old: Costapp needs %d.%d or newer; name one with `make PYTHON=python3.12 ...`."
            % ((sys.version.split()[0],) + OLDEST)
        )
    stamp = os.path.join(venv, ".installed-" + fingerprint([requirements, "requirements.txt", constraints]))
    if os.path.exists(stamp):
        return 0
    say("Installing the packages of %s into %s. The first time takes a minute or two." % (requirements, venv))
    python = os.path.join(venv, "bin", "python")
    if not works(python) and subprocess.call([sys.executable, "-m", "venv", "--clear", venv]):
        return refuse("Cannot make a virtual environment in %s: install python3-venv, or free some disk space." % venv)
    code = pip(python, ["-r", requirements, "-c", constraints])
    if code:
        return refuse("Packages could not be installed (pip ended with %d; its words are above)." % code)
    with open(stamp, "w"):
        pass
    say("Packages are installed.")
    return 0


def works(python):
    # type: (str) -> bool
    try:
        return subprocess.call([python, "-m", "pip", "--version"], stdout=subprocess.DEVNULL) == 0
    except OSError:
        return False


def pip(python, arguments):
    # type: (str, list[str]) -> int
    """Show what is fetched, one line per package; everything when it fails."""
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        "--no-compile",
    ]
    process = subprocess.Popen(command + arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        told = describe(line)
        if told:
            say("  " + told)
    if process.wait():
        sys.stderr.writelines(lines[-15:])
    return process.returncode


def describe(line):
    # type: (str) -> str
    words = line.split()
    if line.startswith("Collecting"):
        return words[1]
    if line.startswith("Installing collected packages"):
        return "unpacking %d packages ..." % (len(words) - 3)
    return ""


def fingerprint(paths):
    # type: (list[str]) -> str
    digest = hashlib.sha256(sys.version.encode())
    for path in paths:
        with open(path, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()[:16]


def say(text):
    # type: (str) -> None
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def refuse(text):
    # type: (str) -> int
    sys.stderr.write("costapp: %s\n" % text)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
