"""Figure and claims of notebook 00."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from sftlab.classroom.figures import bars
from sftlab.data import INSTRUCTIONS, load_conversations
from sftlab.generate import answer, generate
from sftlab.masking import mask_all_but_assistant
from sftlab.models import load
from sftlab.templates import FAMILIES, with_template

# What the notebook needs comes with one import.
__all__ = ["FAMILIES", "INSTRUCTIONS", "answer", "claims", "generate", "load", "load_conversations",
           "mask_all_but_assistant", "share_bars", "with_template"]  # fmt: skip

Shares = Mapping[str, Mapping[str, float]]  # template -> file -> share of the tokens


def share_bars(shares: Shares):
    """Draw the share of trained tokens by template and file."""
    title = "Share of tokens that are trained"
    words = "; ".join(
        f"{template}: " + ", ".join(f"{name} {share:.0%}" for name, share in by_file.items())
        for template, by_file in shares.items()
    )
    by_name = {
        name: {template: shares[template][name] for template in shares}
        for name in next(iter(shares.values()))
    }
    return bars(by_name, title, f"{title}. {words}.", fmt=".0%", percent="x", figsize=(7.6, 3.4))


def claims(share: float, shares: Shares, single: tuple[float, float]) -> pd.DataFrame:
    """Return what was found; ``single`` has the smallest and the largest share of a conversation."""
    ranges = [
        f"{name}: {min(found):.0%} to {max(found):.0%}"
        for name in next(iter(shares.values()))
        for found in [[by_file[name] for by_file in shares.values()]]
    ]
    line = {
        "claim": f"{'Less' if share < 0.5 else 'More'} than half of the tokens are trained",
        "measured": f"{share:.1%} of all tokens of the file",
        "control": f"{len(shares)} templates and a second file; {', '.join(ranges)}",
        "where it stops holding": f"single conversations: {single[0]:.0%} to {single[1]:.0%}",
    }
    return pd.DataFrame([line])
