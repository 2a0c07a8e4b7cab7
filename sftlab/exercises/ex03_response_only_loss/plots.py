"""Figures and tables of notebook 03, from recorded runs. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import bars, curves, dots
from sftlab.exercises.ex03_response_only_loss.experiment import (
    ANSWERED,
    ARMS,
    CHECKPOINTS,
    LIMIT,
    PARTS,
)
from sftlab.generate import answer
from sftlab.statistics import chosen, mean_interval

FIRST = "response only"
Estimate = tuple[float, tuple[float, float]]


def best(runs: Sequence[dict], setting: str, arm: str, step: int) -> list[dict]:
    """Return one run per seed: that of the learning rate with the lowest validation loss at a step."""
    at = CHECKPOINTS.index(step)
    return _tuned(chosen(runs, setting=setting, arm=arm), lambda run: run["validation"][at])


def _tuned(runs: Sequence[dict], loss: Callable[[dict], float]) -> list[dict]:
    """Return one run per seed, that of the lowest loss."""
    seeds = dict.fromkeys(run["seed"] for run in runs)
    return [min((run for run in runs if run["seed"] == seed), key=loss) for seed in seeds]


def values(
    runs: Sequence[dict], setting: str, arm: str, step: int, name: str = "test"
) -> list[float]:
    """Return a measurement of every seed at a step: "test" (nats per token) or "exact" (a share)."""
    steps = CHECKPOINTS if name == "test" else ANSWERED
    return [run[name][steps.index(step)] for run in best(runs, setting, arm, step)]


def change(
    runs: Sequence[dict], arm: str, step: int = 24, name: str = "test", setting: str = "ChatML"
) -> Estimate:
    """Return what an arm changes against response only: mean of the paired seeds, 95% t interval."""
    arms = (values(runs, setting, a, step, name) for a in (FIRST, arm))
    differences = [other - first for first, other in zip(*arms, strict=True)]
    return float(np.mean(differences)), mean_interval(differences)


def settled(estimate: Estimate) -> bool:
    """Whether the interval leaves out zero."""
    low, high = estimate[1]
    return low > 0 or high < 0


def as_text(estimate: Estimate, points: bool = False) -> str:
    """Return an estimate with its interval, in points of a hundred or in nats."""
    mean, (low, high) = estimate
    if points:
        return f"{100 * mean:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{mean:+.3f} nats ({low:+.3f} to {high:+.3f})"


def arms_table(runs: Sequence[dict], setting: str = "ChatML", step: int = 24) -> pd.DataFrame:
    """Return one row per arm: held-out loss, exact answers, and the changes against response only."""
    lines = []
    for arm in ARMS:
        line = {
            "arm": arm,
            "held-out loss (nats per token)": f"{np.mean(values(runs, setting, arm, step)):.3f}",
            "exactly right": f"{np.mean(values(runs, setting, arm, step, 'exact')):.1%}",
        }
        if arm != FIRST:
            line["change of the loss"] = as_text(change(runs, arm, step, "test", setting))
            line["change of exact answers"] = as_text(
                change(runs, arm, step, "exact", setting), True
            )
        lines.append(line)
    return pd.DataFrame(lines).fillna("–").set_index("arm")


def one_measure(found: dict[str, float], title: str, fmt: str = ".3f"):
    """A bar for each part or arm: its loss per token."""
    words = ", ".join(f"{name} {value:{fmt}}" for name, value in found.items())
    return bars(found, title, f"{title}: {words} nats per token.", fmt=fmt, xlabel="loss per token (nats)")  # fmt: skip


def why(runs: Sequence[dict], arm: str) -> str:
    """What an arm changes in the loss, which is finer than exact answers."""
    return f"Of the held-out responses, the loss changed by {as_text(change(runs, arm))}."


def written_answers(model, tokenizer, some: Sequence[dict]) -> pd.DataFrame:
    """Return what a model answers to some questions, beside the expected answers."""
    replies = answer(model, tokenizer, [q["prompt"] for q in some], max_new_tokens=LIMIT)
    lines = [[q["prompt"], g.text, q["answer"]] for q, g in zip(some, replies, strict=True)]
    return pd.DataFrame(lines, columns=["question", "written", "expected"])


def over_steps(runs: Sequence[dict], settings: Sequence[str] = ("ChatML", "Q and A")):
    """Held-out loss of every arm over the training steps, one panel per template."""
    found = {
        setting: {
            arm: {step: values(runs, setting, arm, step) for step in CHECKPOINTS[1:]}
            for arm in ARMS
        }
        for setting in settings
    }
    words = "; ".join(
        f"{setting}, 24 steps: "
        + ", ".join(f"{arm} {np.mean(points[24]):.3f}" for arm, points in arms.items())
        for setting, arms in found.items()
    )
    return curves(
        found, "Held-out loss of each arm over the training steps",
        f"Line charts of the held-out loss on responses. {words} nats per token.",
        panels=True, xscale="log", yscale="log", sharey=True, figsize=(9.2, 3.6),
        xlabel="training step", ylabel="loss of the response\n(nats per token)",
    )  # fmt: skip


def changes(runs: Sequence[dict], setting: str, step: int) -> dict[str, Estimate]:
    """What each arm changes against response only at one step."""
    return {arm: change(runs, arm, step, "test", setting) for arm in ARMS if arm != FIRST}


def changes_in_words(found: dict[str, Estimate], setting: str, step: int) -> tuple[str, str]:
    """A title that counts the arms that differ, and the same with all numbers."""
    clear = sum(map(settled, found.values()))
    title = f"{setting}, {step} steps: {clear} of {len(found)} arms differ from response only"
    words = ", ".join(f"{arm} {as_text(estimate)}" for arm, estimate in found.items())
    return title, f"{title}. Change of the held-out loss: {words}."


def draw_changes(runs: Sequence[dict], setting: str, step: int):
    """The explorer's picture."""
    found = changes(runs, setting, step)
    return dots(found, *changes_in_words(found, setting, step), zero=True, fmt="+.3f",
                xlabel="change of the held-out loss (nats per token)", figsize=(7.6, 2.5))  # fmt: skip


def shares(runs: Sequence[dict], setting: str = "ChatML") -> pd.DataFrame:
    """Return, by part, the mean loss and the share of the gradient before and after "everything"."""
    chosen = best(runs, setting, "everything", CHECKPOINTS[-1])
    lines = []
    for part in PARTS:
        losses, gradients = (
            np.mean([run[f"{what} of {part}"] for run in chosen], axis=0)
            for what in ("loss", "gradient")
        )
        lines.append(
            {
                "part": part,
                "loss before (nats per token)": f"{losses[0]:.2f}",
                "loss after": f"{losses[1]:.2f}",
                "share of the gradient before": f"{gradients[0]:.0%}",
                "after": f"{gradients[1]:.0%}",
            }
        )
    return pd.DataFrame(lines).set_index("part")


def before(runs: Sequence[dict]) -> dict[str, float]:
    """Return the mean loss of each part before training, in nats per token."""
    return {part: float(np.mean([run[f"loss of {part}"] for run in runs])) for part in PARTS}


def real_losses(runs: Sequence[dict], arm: str) -> list[float]:
    """Return the held-out loss of an arm on SmolLM2, of every seed, at its own learning rate."""
    tuned = _tuned(chosen(runs, arm=arm), lambda run: run["validation"])
    return [run["test"] for run in tuned]


def real_change(runs: Sequence[dict], arm: str) -> Estimate:
    """Return what an arm changes on SmolLM2 against response only, paired by seed."""
    differences = np.subtract(real_losses(runs, arm), real_losses(runs, FIRST))
    return float(differences.mean()), mean_interval(differences)


def smollm2(runs: Sequence[dict]) -> pd.DataFrame:
    """Return one row per arm of the runs on SmolLM2: held-out loss, and the paired change."""
    lines = [
        {
            "arm": arm,
            "held-out loss (nats per token)": f"{np.mean(real_losses(runs, arm)):.3f}",
            "change": as_text(real_change(runs, arm)) if arm != FIRST else "–",
        }
        for arm in ARMS
    ]
    return pd.DataFrame(lines).set_index("arm")


def verdict(estimate: Estimate, points: bool = False) -> str:
    """Return what an estimated change of the loss (or of a share) means, in two words."""
    if not settled(estimate):
        return "not settled here"
    return "better" if (estimate[0] > 0) == points else "worse"


def claims(runs: Sequence[dict], real: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""
    exact = {arm: change(runs, arm, 24, "exact") for arm in ARMS if arm != FIRST}
    loss = {arm: change(runs, arm) for arm in ARMS if arm != FIRST}
    read = change(runs, "+ template", setting="Q and A")
    late = change(runs, "everything", 96)
    long = change(runs, "+ question", setting="ChatML, long prompt")
    known = real_change(real, "+ template")
    lines = [
        (
            f"Training on every token for 24 steps: {verdict(exact['everything'], True)}",
            f"exact answers {as_text(exact['everything'], True)}",
            "each arm has its own learning rate, chosen on other questions",
            f"after 96 steps the loss differs by {as_text(late)}: {verdict(late)}",
        ),
        (
            f"The question's own words in the loss: {verdict(loss['+ question'])}",
            as_text(loss["+ question"]),
            "the arm without the template's tokens",
            f"after long notes: {as_text(long)}: {verdict(long)}",
        ),
        (
            f"The template's tokens in the loss: {verdict(loss['+ template'])}",
            as_text(loss["+ template"]),
            f"a template that the base has read: {as_text(read)}, {verdict(read)}",
            f"SmolLM2, trained on ChatML: {as_text(known)}, {verdict(known)}",
        ),
    ]
    return pd.DataFrame(lines, columns=["claim", "measured", "control", "where it stops holding"])
