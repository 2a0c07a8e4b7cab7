"""``python -m sftlab`` is the command ``sftlab``."""

import sys

from sftlab.cli import main

sys.exit(main())
