"""``python -m costapp.runtime``: the supervisor without Django in its memory. ``manage.py up`` is the same."""

import sys

from costapp.runtime.up import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
