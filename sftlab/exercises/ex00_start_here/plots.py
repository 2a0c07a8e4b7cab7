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


def claims(share: float, shares: Shares) -> pd.DataFrame:
    """Return what was found, in words that follow the numbers."""
    first, second = next(iter(shares.values()))
    values = [by_file[first] for by_file in shares.values()]
    more = [by_file[second] > by_file[first] for by_file in shares.values()]
    kind = "more" if all(more) else "fewer" if not any(more) else "sometimes more"
    lines = [
        [
            f"{'Less' if share < 0.5 else 'More'} than half of the tokens are trained",
            f"{share:.1%} of all tokens of the file",
            f"the same file in {len(shares)} templates: {min(values):.0%} to {max(values):.0%}",
            f"another file, {second}: {kind} of its tokens",
        ]
    ]
    return pd.DataFrame(lines, columns=["claim", "measured", "control", "where it stops holding"])
