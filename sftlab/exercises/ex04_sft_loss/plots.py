"""Figures and tables of notebook 04. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import dots
from sftlab.classroom.figures import tokens as per_token
from sftlab.classroom.views import visible
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, compared, percent, times, tuned, verdict
from sftlab.exercises.ex04_sft_loss.experiment import CHECKPOINTS, MEANS, MIXED, RATES, TOKEN_MEAN
from sftlab.statistics import chosen

SETS = ("short", "long")
SHARES = ("two largest terms", "end-of-turn token")  # of an answer's loss
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "Most tokens of an answer follow from those before. A few don't, and the logarithm makes them expensive. The base has never read an end-of-turn token.",
    "b": "A token of the micro-batch with fewer tokens weighs more: here, every token of a short answer.",
    "c": "Adam divides each gradient by its own recent size, so a constant factor cancels. In SGD it multiplies the step.",
}  # fmt: skip


def loss_terms(tokens: Sequence[str], probabilities: Sequence[float]):
    """Each token's term −log p, and the mean that is the loss."""
    terms = np.abs(np.log(probabilities))  # -log p, with 0 for p = 1 and not -0
    mean = terms.mean()
    told = ", ".join(f"{visible(t)} {x:.2f}" for t, x in zip(tokens, terms, strict=True))
    return per_token(
        tokens, terms,
        f"Loss {mean:.2f} nats per token: perplexity {np.exp(mean):.3g}",
        f"Bar chart of minus log p for each token: {told}. The mean, which is the loss, is {mean:.2f}.",
        fmt=lambda term: f"{term:.2f}\np={np.exp(-term):.2g}", axhline={mean: f"mean {mean:.2f}\n= the loss"}, ylabel="−log p  (nats)", ylim=(0, max(terms.max() * 1.35, 0.5)),
    )  # fmt: skip


def ratio(runs: Sequence[dict], arm: str, on: str, step: int) -> Estimate:
    """Return an arm's held-out loss divided by that of the token mean, paired by seed.

    Each arm has the learning rate with the lowest validation loss at that step, the mean of the
    short and the long answers'.
    """
    at = CHECKPOINTS.index(step)

    def losses(name: str) -> list[float]:
        validation = [f"validation, {part}" for part in SETS]
        found = tuned(chosen(runs, arm=name), lambda run: np.mean([run[v][at] for v in validation]))
        return [run[on][at] for run in found]

    return estimates.ratio(losses(TOKEN_MEAN), losses(arm))


def ratios(runs: Sequence[dict], step: int):
    """Draw the held-out losses after some steps, divided by those of the token mean."""
    found = {
        arm: {f"{on} answers": ratio(runs, arm, on, step) for on in SETS} for arm in (MEANS, MIXED)
    }
    told = "; ".join(f"{on}, {arm}: {times(value)}" for arm, by in found.items() for on, value in by.items())  # fmt: skip
    return dots(found, f"Held-out loss after {step} steps, divided by that of the token mean",
                f"Estimates with intervals. {told}.", fmt=".2f", axvline={1: "token mean"},
                xlabel="ratio of the losses", figsize=(8.0, 2.6))  # fmt: skip


def ratios_table(runs: Sequence[dict], on: str = "short") -> pd.DataFrame:
    """Return the ratios after each number of steps: at one learning rate, and best against best."""

    def cell(arm: str, step: int, rate: float) -> str:
        at = CHECKPOINTS.index(step)
        sides = (chosen(runs, arm=a, learning_rate=rate) for a in (TOKEN_MEAN, arm))
        return times(estimates.ratio(*([run[on][at] for run in side] for side in sides)))

    return pd.DataFrame(
        {
            f"{arm}, {step} steps": {
                **{f"learning rate {rate:g}": cell(arm, step, rate) for rate in RATES},
                "each its best": times(ratio(runs, arm, on, step)),
            }
            for arm in (MEANS, MIXED)
            for step in CHECKPOINTS[1:]
        }
    )


def claims(
    runs: Sequence[dict], share: Mapping[str, Estimate], equal: float, gradients: pd.DataFrame,
    steps: Mapping[str, Estimate],
) -> pd.DataFrame:  # fmt: skip
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        share: "base" and "chat" -> the end-of-turn token's share of an answer's loss.
        equal: its share of the tokens.
        gradients: distances of the gradients by split; columns as in the notebook.
        steps: optimizer -> length of the first step with the sum divided by that with the mean, and
            "SGD, per token", divided by the number of tokens as well.
    """

    def said(arm: str, on: str, step: int) -> str:
        found = ratio(runs, arm, on, step)
        return f"{times(found)}, {compared(found)}"

    more = verdict(share["base"], "more", "less", neutral=equal)
    token, means = (gradients[column].max() for column in ("token mean", "mean of means"))
    held = "does not change" if token < 1e-9 else "changes"
    rows = [
        (
            f"The base's loss lies on the end-of-turn token {more} than on others",
            f"{percent(share['base'])} of an answer's loss",
            f"its share of the tokens: {equal:.0%}; the chat model: {percent(share['chat'])}",
            "a base that never read the token",
        ),
        (
            f"Splitting a batch {held} the gradient of the token mean",
            "less than 1e-12 of its norm" if token < 1e-12 else f"up to {token:.0e} of its norm",
            f"mean of means: up to {means:.0%}",
            "one batch, float64",
        ),
        (
            f"Mean of means by length, 12 steps: loss of short answers {compared(ratio(runs, MEANS, 'short', 12))}",
            times(ratio(runs, MEANS, "short", 12)),
            f"mixed split: {said(MIXED, 'short', 12)}",
            f"long answers: {said(MEANS, 'long', 12)}; 24 steps: short {said(MEANS, 'short', 24)}, long {said(MEANS, 'long', 24)}",
        ),
        (
            f"AdamW, a sum for the mean: first step {compared(steps['AdamW'], 0.01)}",
            times(steps["AdamW"]),
            f"SGD: {times(steps['SGD'])}; per token {times(steps['SGD, per token'])}",
            "three batches; later steps and clipping weren't measured",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
