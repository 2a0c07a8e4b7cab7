"""Import PEFT in the notebooks: ``from sftlab.classroom.peft_compat import peft``.

This is the library itself, imported without two warnings that would appear among the results: one
from bitsandbytes about an optional package, one from transformers about a deprecated name that PEFT
uses.
"""

from __future__ import annotations

import logging
import warnings

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")

import peft  # noqa: E402

__all__ = ["peft"]
