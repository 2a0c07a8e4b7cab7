"""All kinds of run: what every probe measures, what the log says, and how held-out questions are answered.

The tolerances of two probes are chosen on sound runs of further seeds. It takes about twenty minutes on
one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.data import read_jsonl
from sftlab.exercises.ex23_broken_runs_clinic.clinic import (
    HEALTHY,
    KINDS,
    Kind,
    Run,
    served_as,
    trained_as,
)
from sftlab.exercises.ex23_broken_runs_clinic.evidence import values
from sftlab.generate import Generation
from sftlab.scoring import score_answer

RECORD = "clinic"  # data/results/clinic.json

SEEDS, CHOSEN_ON = range(5), range(5, 10)  # seeds of all kinds; of sound runs for tolerances
QUESTIONS = 100


def settings() -> list[dict]:
    """Return every kind with every seed, and the sound runs on which tolerances are chosen."""
    more = [{"kind": HEALTHY, "seed": seed} for seed in CHOSEN_ON]
    return [{"kind": kind, "seed": seed} for seed in SEEDS for kind in KINDS] + more


def questions(count: int = QUESTIONS) -> list[dict]:
    """Return held-out questions, the same for every run."""
    return Random(0).sample(read_jsonl(INSTRUCTIONS / "heldout.jsonl"), count)


def measure(asked: Sequence[dict], replies: Sequence[Generation]) -> dict[str, float]:
    """Return shares of the replies: exactly right, right in content, ended by the model itself."""
    scores = [score_answer(q, g.text, g.stopped) for q, g in zip(asked, replies, strict=True)]
    return {
        "exact": sum(s.correct for s in scores) / len(scores),
        "content": sum(s.content for s in scores) / len(scores),
        "stops": sum(s.stops for s in scores) / len(scores),
    }


@lru_cache(maxsize=1)
def _sound(seed: int) -> Run:
    return trained_as(Kind(), seed)


def run(kind: str, seed: int) -> dict:
    """Train, serve, ask and measure everything."""
    chosen = KINDS[kind]
    trained = _sound(seed) if chosen.trained == Kind().trained else trained_as(chosen, seed)
    found = served_as(chosen, trained)
    asked = questions()
    replies = found.ask([q["prompt"] for q in asked])
    return measure(asked, replies) | {"losses": found.losses, "values": values(found)}
