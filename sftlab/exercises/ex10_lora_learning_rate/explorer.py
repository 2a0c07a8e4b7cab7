"""The explorer of notebook 10: choose a method and a learning rate, train 30 steps, see the losses."""

from __future__ import annotations

import copy
from itertools import islice

import ipywidgets as widgets
import torch

from sftlab.almanac.pairs import pairs
from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.classroom.figures import curves
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.short_runs import endless_batches
from sftlab.exercises.trade_off import FULL, LORA, PAIRS, examples, prepare, questions
from sftlab.train import train_step

STEPS, BATCH, HELD_OUT = 30, 4, 20  # small, so that a run takes a second or two
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


class ShortRuns:
    """Trainings of 30 steps from the same base, each kept once it was run."""

    def __init__(self, base, tokenizer, seed: int = 0):
        self.base, self.seed, self.pad_id = base, seed, tokenizer.pad_token_id
        self.rows = examples(tokenizer, pairs(PAIRS, seed, skills=()))
        self.held_out = examples(tokenizer, questions()[1][:HELD_OUT])
        self.before = response_nll(base, self.held_out, self.pad_id)
        self._kept: dict[tuple[str, float], tuple[list[float], float]] = {}

    def run(self, method: str, rate: float) -> tuple[list[float], float]:
        """Return the losses of the steps, and the held-out loss after them."""
        if (method, rate) not in self._kept:
            model = prepare(copy.deepcopy(self.base).requires_grad_(True), method, self.seed)
            trained = [p for p in model.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.0)
            order = islice(endless_batches(self.rows, BATCH, self.seed, self.pad_id), STEPS)
            losses = [train_step(model, batch, optimizer) for batch in order]
            after = response_nll(model.eval(), self.held_out, self.pad_id)
            self._kept[method, rate] = losses, after
        return self._kept[method, rate]


def one_run(method: str, rate: float, losses: list[float], before: float, after: float, alt: str):
    """Draw the loss of one short run, and the held-out loss before and after."""
    lines = {
        "on the batch": dict(enumerate(losses, 1)),
        "held out": {0: before, len(losses): after},
    }
    title = f"{method}, learning rate {rate:g}: held-out loss from {before:.2f} to {after:.2f}"
    return curves(lines, title, alt, yscale="log", ylim=(0.005, 40), xlabel="training step",
                  ylabel="loss (nats per token)", figsize=(8, 3))  # fmt: skip


def choose_a_rate(base, tokenizer, seed: int = 0) -> None:
    """Choose a method and a learning rate; the base is trained 30 steps with them, at once."""
    runs = ShortRuns(base, tokenizer, seed)

    def draw(method: str, rate: float):
        losses, after = runs.run(method, rate)
        return one_run(method, rate, losses, runs.before, after, words(method, rate))

    def words(method: str, rate: float) -> str:
        losses, after = runs.run(method, rate)
        return (
            f"{method} at learning rate {rate:g}: in {STEPS} steps the loss goes from {losses[0]:.1f} to "
            f"{losses[-1]:.2g}, the held-out loss from {runs.before:.2f} to {after:.2f}."
        )

    controls = {
        "method": widgets.ToggleButtons(
            options=[(m, m) for m in (FULL, LORA)], value=LORA, description="train", style=DESCRIBED
        ),
        "rate": widgets.SelectionSlider(
            options=[(f"{r:g}", r) for r in RATES], value=3e-4, description="learning rate", style=DESCRIBED, layout=WIDE
        ),
    }  # fmt: skip
    explorer(controls, draw, words)
