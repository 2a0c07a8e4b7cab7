"""sftlab: a hands-on workbook on supervised fine-tuning.

Import its modules one by one: they load what they need.
"""

import io
import sys

__version__ = "0.2.0"

# A console that cannot write "→" or "α" gets a question mark: not an error at a training's end.
if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
    sys.stdout.reconfigure(errors="replace")
