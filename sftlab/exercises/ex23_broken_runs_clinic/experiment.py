"""The clinic's eleven runs: the effect of each fault on the loss curve, figures and answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.data import read_jsonl
from sftlab.exercises.ex23_broken_runs_clinic.clinic import FAULTS, HEALTHY, Run, served, trained
from sftlab.exercises.ex23_broken_runs_clinic.evidence import figures
from sftlab.generate import Generation
from sftlab.scoring import score_answer

RECORD = "clinic"  # data/results/clinic.json

SEEDS = 4


def settings() -> list[dict]:
    """Return every fault, and none, with four seeds each."""
    return [{"fault": fault, "seed": seed} for seed in range(SEEDS) for fault in FAULTS]


def questions(count: int = 200) -> list[dict]:
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
    return trained(HEALTHY, seed)


def run(fault: str, seed: int, count: int = 200) -> dict:
    """Train, serve, ask and measure all figures."""
    after = FAULTS[fault] in ("", "serving")
    found = served(_sound(seed), fault, seed) if after else trained(fault, seed)
    asked = questions(count)
    replies = found.ask([q["prompt"] for q in asked])
    return {
        **measure(asked, replies),
        "losses": found.losses,
        "figures": figures(found),
    }
