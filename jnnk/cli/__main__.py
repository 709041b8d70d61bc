"""``python -m jnnk.cli`` is ``jnnk``."""

import sys

from jnnk.cli import main

sys.exit(main())
