"""``python -m jnnk.cli`` is ``jnnk``."""

import sys

from jnnk.cli import main

if __name__ == "__main__":
    sys.exit(main())
