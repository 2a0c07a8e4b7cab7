"""The explorer of notebook 10: choose a method and a rate, train 30 steps, see where the loss goes."""

from __future__ import annotations

import copy

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.data import conversation, tokenize_conversations
from sftlab.exercises.ex10_lora_learning_rate.experiment import (
    METHODS,
    RATES,
    questions,
    training_rows,
)
from sftlab.exercises.ex10_lora_learning_rate.plots import LABELS, one_run, rate_name
from sftlab.exercises.recipes import response_nll
from sftlab.lora import inject_lora
from sftlab.train import TrainConfig, sft_train

STEPS, BATCH, HELD_OUT = 30, 4, 20  # small, so that a run takes a second or two


class ShortRuns:
    """Trainings of 30 steps from the same base, each kept once it was run."""

    def __init__(self, base, tokenizer, seed: int = 0):
        self.base, self.seed, self.pad_id = base, seed, tokenizer.pad_token_id
        self.rows = training_rows(tokenizer, seed)
        asked = [conversation(question) for question in questions(HELD_OUT)]
        self.held_out = tokenize_conversations(tokenizer, asked).examples
        self.before = response_nll(base, self.held_out, self.pad_id)
        self._kept: dict[tuple[str, float], tuple[list[float], float]] = {}

    def run(self, method: str, rate: float) -> tuple[list[float], float]:
        """The losses of the steps, and the held-out loss after them."""
        if (method, rate) not in self._kept:
            model = copy.deepcopy(self.base).requires_grad_(True)
            if method == "lora":
                inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=self.seed)
            config = TrainConfig(
                learning_rate=rate,
                num_train_epochs=9,
                max_steps=STEPS,
                batch_size=BATCH,
                seed=self.seed,
            )
            losses = sft_train(model, self.rows, config, self.pad_id, progress=False).losses
            self._kept[method, rate] = losses, response_nll(model, self.held_out, self.pad_id)
        return self._kept[method, rate]


def choose_a_rate(base, tokenizer, seed: int = 0) -> None:
    """Choose a method and a rate; the base is trained 30 steps with them, at once."""
    runs = ShortRuns(base, tokenizer, seed)

    def draw(method: str, rate: float):
        losses, after = runs.run(method, rate)
        return one_run(method, rate, losses, runs.before, after, words(method, rate))

    def words(method: str, rate: float) -> str:
        losses, after = runs.run(method, rate)
        return (
            f"{LABELS[method]} at rate {rate_name(rate)}: in {STEPS} steps the loss goes from {losses[0]:.1f} to "
            f"{losses[-1]:.2g}, the held-out loss from {runs.before:.2f} to {after:.2f}."
        )

    rates = sorted({rate for method in METHODS for rate in RATES[method]})
    controls = {
        "method": widgets.ToggleButtons(
            options=[(LABELS[m], m) for m in METHODS], value="lora", description="train", style=DESCRIBED
        ),
        "rate": widgets.SelectionSlider(
            options=[(rate_name(r), r) for r in rates], value=3e-3, description="learning rate", style=DESCRIBED, layout=WIDE
        ),
    }  # fmt: skip
    explorer(controls, draw, words)
