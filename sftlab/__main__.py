"""Run ``python -m sftlab`` as the command ``sftlab``."""

import sys

from sftlab.cli import main

sys.exit(main())
