"""The Makefile's first step: a virtual environment with pinned packages, and words when it cannot be made."""

import subprocess
import sys
from pathlib import Path

from costapp.runtime import install

SCRIPT = Path(install.__file__)


def test_an_old_python_is_refused_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(install, "OLDEST", (99, 0))
    assert install.main([".venv", "requirements.txt", "constraints.txt"]) == 1
    assert "is too old: Costapp needs 99.0 or newer" in capsys.readouterr().err


def test_an_old_python_can_read_the_script_up_to_its_refusal():
    tree = compile(SCRIPT.read_text(), str(SCRIPT), "exec", flags=1024)  # 1024: only the syntax tree
    import ast

    newer = (ast.JoinedStr, ast.NamedExpr, ast.Match, ast.AnnAssign)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]


def test_a_stamped_environment_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("requirements.txt", "constraints.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "venv").mkdir()
    stamp = install.fingerprint(["requirements.txt", "requirements.txt", "constraints.txt"])
    (tmp_path / "venv" / f".installed-{stamp}").touch()
    assert install.main(["venv", "requirements.txt", "constraints.txt"]) == 0
    assert list((tmp_path / "venv").iterdir()) == [tmp_path / "venv" / f".installed-{stamp}"]


def test_a_changed_requirement_asks_for_a_new_installation(tmp_path):
    (tmp_path / "a").write_text("Django==1")
    before = install.fingerprint([str(tmp_path / "a")])
    (tmp_path / "a").write_text("Django==2")
    assert install.fingerprint([str(tmp_path / "a")]) != before


def test_a_package_that_does_not_exist_ends_with_a_sentence(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(str(tmp_path / "no-such-package.whl"))
    (tmp_path / "constraints.txt").touch()
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "venv", requirements, "constraints.txt"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "costapp: Packages could not be installed" in done.stderr
    assert not list((tmp_path / "venv").glob(".installed-*"))
