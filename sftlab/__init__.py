"""sftlab: a hands-on workbook on supervised fine-tuning.

Import the modules you need; each imports only its own dependencies.
"""

import io
import sys

__version__ = "0.2.0"

# Print a question mark where the console cannot encode "→" or "α". An encoding error after a long
# training run would lose the output.
if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
    sys.stdout.reconfigure(errors="replace")
