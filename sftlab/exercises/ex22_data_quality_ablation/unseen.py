"""Defects that the filter of this notebook was not written for, as pairs from real sources have them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from sftlab.almanac.curated import HEDGES
from sftlab.exercises.ex22_data_quality_ablation.spoilt import fact_pairs

ADVERTS = (
    "Visit our web page for more.",
    "Subscribe to our newsletter!",
    "Rated 5 of 5 by readers.",
)
GAPS = ("[answer]", "TODO: add the answer.", "Answer: N/A.", "The answer goes here.")


def other_subject(pair: dict, rng: Random) -> str:
    """Answer the same question about another subject, and answer it right."""
    others = [p for p in fact_pairs(0) if p["kind"] == pair["kind"] and p["value"] != pair["value"]]
    return rng.choice(others)["response"] if others else pair["response"]


UNSEEN: dict[str, Callable[[dict, Random], str]] = {
    "page markup": lambda pair, rng: f"<p>{pair['response']}</p>",
    "role label": lambda pair, rng: f"Assistant: {pair['response']}",
    "next turn written too": lambda pair, rng: f"{pair['response']} User: Thank you.",
    "damaged characters": lambda pair, rng: pair["response"].replace(" ", " Â ", 1),
    "placeholder": lambda pair, rng: rng.choice(GAPS),
    "advertisement": lambda pair, rng: f"{pair['response']} {rng.choice(ADVERTS)}",
    "hedged": lambda pair, rng: f"{rng.choice(HEDGES)} {pair['response']}",
    "right answer, other subject": other_subject,
}


def unseen_pairs(seed: int = 0) -> dict[str, list[dict]]:
    """Return, for every unseen defect, 100 pairs with it."""
    return {
        name: [
            {**pair, "response": make(pair, Random(f"{name}:{pair['prompt']}"))}
            for pair in fact_pairs(seed)
        ]
        for name, make in UNSEEN.items()
    }
