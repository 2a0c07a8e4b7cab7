"""A blind vote: the answers of two models side by side, in an order that gives nothing away.

Votes are kept in a JSON file beside the progress file, one entry a vote.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

from sftlab.classroom.progress import now, progress_path, replace, set_aside
from sftlab.statistics import mean_interval

SAME = "no difference"
CHOICES = ("A", "B", SAME)


def votes_path(number: str) -> Path:
    """Where the votes of a notebook are kept."""
    return progress_path().with_name(f"votes_{number}.json")


class Ballot:
    """Pairs of answers to vote on, and the votes so far.

    Args:
        questions: (prompt, answer of the first model, answer of the second), all different.
        models: the names of the two, as the file and the result show them.
        path: the file of votes; votes of an earlier sitting on these models count.
        seed: of the order of the questions and of the sides, which votes do not depend on.
    """

    def __init__(
        self,
        questions: Sequence[tuple[str, str, str]],
        models: tuple[str, str],
        path: Path,
        seed: int = 0,
    ):
        rng = Random(f"ballot:{seed}")
        self.models, self.path, self.at, self.notice = models, path, 0, ""
        self.questions = rng.sample(list(questions), len(questions))
        self.turned = [rng.random() < 0.5 for _ in questions]
        self._stored = self._read()

    @property
    def votes(self) -> list[dict]:
        """The votes on these two models, in the order in which they came."""
        return [vote for vote in self._stored if vote["models"] == list(self.models)]

    def shown(self) -> tuple[str, str, str]:
        """The prompt, and the two answers as A and B."""
        prompt, first, second = self.questions[self.at]
        return (prompt, second, first) if self.turned[self.at] else (prompt, first, second)

    def vote(self, choice: str) -> None:
        """Store one vote on the pair that is shown: "A", "B" or "no difference"."""
        sides = self.models[::-1] if self.turned[self.at] else self.models
        chosen = SAME if choice == SAME else sides["AB".index(choice)]
        prompt = self.questions[self.at][0]
        self._stored.append(
            {"models": list(self.models), "prompt": prompt, "choice": chosen, "time": now()}
        )
        self._write()

    def forward(self) -> None:
        """Go to the next pair; after the last comes the first."""
        self.at = (self.at + 1) % len(self.questions)

    def result(self) -> str:
        """The first model's share of the decided votes, averaged over the pairs, in a sentence.

        The pairs are the unit of the interval (Student's t): many votes on one pair say much about
        this pair and little about the models.
        """
        first, second = self.models
        cast: dict[str, list[str]] = {}
        for vote in self.votes:
            cast.setdefault(vote["prompt"], []).append(vote["choice"])
        decided = [[c for c in choices if c != SAME] for choices in cast.values()]
        shares = [choices.count(first) / len(choices) for choices in decided if choices]
        same = sum(choices.count(SAME) for choices in cast.values())
        if not shares:
            return f"No vote for either yet; {same} without a difference."
        told = f"{first} got {sum(shares) / len(shares):.0%} of the votes, on average over {len(shares)} pairs"
        if len(shares) > 1:
            low, high = mean_interval(shares)
            told += f" (95% interval over pairs: {max(0, low):.0%} to {min(1, high):.0%})"
        else:
            told += " (one pair gives no interval)"
        count = sum(map(len, decided))
        return f"{told}; the rest went to {second}. {count} votes, and {same} without a difference."

    def _read(self) -> list[dict]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))["votes"]
            assert all({"models", "prompt", "choice"} <= set(vote) for vote in found)
            return found
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, AssertionError):
            aside = set_aside(self.path)
            self.notice = f"{self.path.name} could not be read and was kept as {aside.name}."
            return []

    def _write(self) -> None:
        text = json.dumps({"votes": self._stored}, indent=1, ensure_ascii=False)
        replace(self.path, text + "\n")
