"""PEFT for the notebooks: ``from sftlab.classroom.peft_compat import peft``.

It is the library itself, imported without two remarks that would stand among the results:
bitsandbytes' on an optional package, and transformers' on a name that PEFT still uses.
"""

from __future__ import annotations

import logging
import warnings

logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")

import peft  # noqa: E402

__all__ = ["peft"]
