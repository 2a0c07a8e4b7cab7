"""Figures and tables of notebook 03, from recorded runs. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import bars, curves, dots
from sftlab.exercises import estimates
from sftlab.exercises.estimates import OPEN, Estimate, points, times, tuned
from sftlab.exercises.ex03_response_only_loss.experiment import (
    ANSWERED,
    ARMS,
    CHECKPOINTS,
    LEARNED,
    LIMIT,
    LONG,
    PARTS,
)
from sftlab.generate import answer
from sftlab.statistics import chosen

FIRST = "response only"
STEPS = CHECKPOINTS[1:]
CLOSE = (0.8, 1.25)  # the middle option of the predictions


def best(runs: Sequence[dict], setting: str, arm: str, step: int) -> list[dict]:
    """Return the runs of one learning rate, a run per seed: that with the lowest mean validation loss."""
    at = CHECKPOINTS.index(step)
    return tuned(chosen(runs, setting=setting, arm=arm), lambda run: run["validation"][at])


def values(
    runs: Sequence[dict], setting: str, arm: str, step: int, name: str = "test"
) -> list[float]:
    """Return a measurement of every seed at a step: "test" (nats per token) or "exact" (a share)."""
    steps = CHECKPOINTS if name == "test" else ANSWERED
    return [run[name][steps.index(step)] for run in best(runs, setting, arm, step)]


def ratio(runs: Sequence[dict], arm: str, step: int = 24, setting: str = "ChatML") -> Estimate:
    """Return an arm's held-out loss divided by that of response only, paired by seed."""
    return estimates.ratio(*(values(runs, setting, a, step) for a in (FIRST, arm)))


def exact_change(runs: Sequence[dict], arm: str, step: int = 24, setting: str = "ChatML") -> Estimate:  # fmt: skip
    """Return the change of the share of exact answers against response only, paired by seed."""
    return estimates.change(*(values(runs, setting, a, step, "exact") for a in (FIRST, arm)))


def verdict(found: Estimate) -> str:
    """Return what a ratio of losses means; a tight interval around 1 says that it is within a margin."""
    low, high = found[1]
    words = estimates.verdict(found, "worse", "better", neutral=1.0)
    within = low > CLOSE[0] and high < CLOSE[1]
    return f"within {CLOSE[0]} to {CLOSE[1]}" if within and words == OPEN else words


def arms_table(runs: Sequence[dict], setting: str = "ChatML", step: int = 24) -> pd.DataFrame:
    """Return one row per arm: its learning rate, held-out loss and exact answers, and both changes."""
    lines = []
    for arm in ARMS:
        if not (found := chosen(runs, setting=setting, arm=arm)):
            continue
        line = {
            "arm": arm,
            "learning rate": f"{best(found, setting, arm, step)[0]['learning_rate']:g}",
            "held-out loss": f"{np.mean(values(runs, setting, arm, step)):.3f}",
            "exact": f"{np.mean(values(runs, setting, arm, step, 'exact')):.1%}",
        }
        if arm != FIRST:
            line["loss, ratio"] = times(ratio(runs, arm, step, setting))
            line["exact, change"] = points(exact_change(runs, arm, step, setting))
        lines.append(line)
    return pd.DataFrame(lines).fillna("–").set_index("arm")


def one_measure(found: dict, title: str, fmt: str = ".3f"):
    """A bar for each part or arm: its loss per token. Two levels give two bars side by side."""
    nested = found if isinstance(next(iter(found.values())), dict) else {"": found}
    words = "; ".join(
        f"{name}: ".removeprefix(": ") + ", ".join(f"{key} {v:{fmt}}" for key, v in values.items())
        for name, values in nested.items()
    )
    return bars(found, title, f"{title}: {words} nats per token.", fmt=fmt, xlabel="loss per token (nats)")  # fmt: skip


def relative_gradient(runs: Sequence[dict], part: str, setting: str = "ChatML") -> float:
    """Return the length of a part's gradient before training, divided by that of the response."""
    found = best(runs, setting, "everything", CHECKPOINTS[-1])
    added, response = (
        np.mean([run[f"gradient of {name}"][0] for run in found]) for name in (part, "response")
    )
    return float(added / response)


def why(runs: Sequence[dict], arm: str) -> str:
    """How long the gradient of an arm's added part is, before training, beside the response's."""
    part = arm.removeprefix("+ ")
    return (
        f"Before training, the gradient of the {part} is {relative_gradient(runs, part):.1f} times as long as that "
        "of the response. Whether that predicts the cost is shown setting by setting further below."
    )


def why_template(losses: Mapping[str, Sequence[float]], special: float) -> str:
    """What makes up the template's loss: ``special`` nats of it fall on special tokens."""
    return (
        f"Special tokens carry {special / sum(losses['template']):.0%} of it. The rest is ordinary tokens, "
        "where the base doesn't expect them."
    )


def gradients_and_costs(runs: Sequence[dict], step: int = 24) -> pd.DataFrame:
    """Return, by setting and part, the relative gradient before training and the ratio of the losses."""
    lines = {
        f"{setting}, {part}": {
            "gradient ÷ response's": f"{relative_gradient(runs, part, setting):.2f}",
            f"loss after {step} steps": f"{times(ratio(runs, f'+ {part}', step, setting))}, "
            f"{verdict(ratio(runs, f'+ {part}', step, setting))}",
        }
        for setting in ("ChatML", "Q and A", LONG)
        for part in ("question", "template")
    }
    return pd.DataFrame(lines).T


def written_answers(
    models: Mapping, arms: Sequence[str], tokenizer, asked: Sequence[dict], rows: int = 5
) -> pd.DataFrame:
    """Return what the models of some arms write where they differ: the first few questions."""
    prompts = [q["prompt"] for q in asked]
    texts = {
        arm: [g.text for g in answer(models[arm], tokenizer, prompts, max_new_tokens=LIMIT)]
        for arm in arms
    }
    found = pd.DataFrame({**texts, "expected": [q["answer"] for q in asked]}, index=prompts)
    return found[found[list(arms)].nunique(axis=1) > 1].head(rows)


def over_steps(runs: Sequence[dict], settings: Sequence[str] = ("ChatML", LEARNED, "Q and A")):
    """Held-out loss without and with the template over the training steps, one panel per setting."""
    found = {
        setting: {
            arm: {step: values(runs, setting, arm, step) for step in STEPS}
            for arm in (FIRST, "+ template")
        }
        for setting in settings
    }
    words = "; ".join(
        f"{setting}, 24 steps: "
        + ", ".join(f"{arm} {np.mean(points[24]):.3f}" for arm, points in arms.items())
        for setting, arms in found.items()
    )
    return curves(
        found, "Held-out loss over the training steps (band: range of the seeds)",
        f"Line charts of the held-out loss on responses. {words} nats per token.",
        panels=True, xscale="log", yscale="log", sharey=True, figsize=(10.5, 3.6),
        xticks=STEPS, xticklabels=STEPS, xlabel="training step", ylabel="loss of the response\n(nats per token)",
    )  # fmt: skip


def ratios(runs: Sequence[dict], setting: str, step: int) -> dict[str, Estimate]:
    """The loss of each arm of a setting, divided by that of response only."""
    arms = [arm for arm in ARMS if arm != FIRST and chosen(runs, setting=setting, arm=arm)]
    return {arm: ratio(runs, arm, step, setting) for arm in arms}


def ratios_in_words(found: dict[str, Estimate], setting: str, step: int) -> tuple[str, str]:
    """A title that counts the arms that differ, and the same with all numbers."""
    clear = sum(verdict(estimate) in ("worse", "better") for estimate in found.values())
    title = f"{setting}, {step} steps: {clear} of {len(found)} differ from response only"
    words = ", ".join(f"{arm} {times(estimate)}" for arm, estimate in found.items())
    return title, f"{title}. Held-out loss, divided by that of response only: {words}."


def draw_ratios(runs: Sequence[dict], setting: str, step: int):
    """The explorer's picture."""
    found = ratios(runs, setting, step)
    return dots(found, *ratios_in_words(found, setting, step), fmt=".2f", axvline={1: "response only"},
                xlabel="held-out loss, divided by that of response only", figsize=(7.6, 2.5))  # fmt: skip


def shares(runs: Sequence[dict], setting: str = "ChatML") -> pd.DataFrame:
    """Return, by part, the mean loss and the share of the gradient before and after "everything"."""
    found = best(runs, setting, "everything", CHECKPOINTS[-1])
    lines = []
    for part in PARTS:
        losses, gradients = (
            np.mean([run[f"{what} of {part}"] for run in found], axis=0)
            for what in ("loss", "gradient")
        )
        lines.append(
            {
                "part": part,
                "loss before": f"{losses[0]:.2f}",
                "loss after": f"{losses[1]:.2f}",
                "share of the gradient before": f"{gradients[0]:.0%}",
                "share after": f"{gradients[1]:.0%}",
            }
        )
    return pd.DataFrame(lines).set_index("part")


def real_losses(runs: Sequence[dict], arm: str) -> list[float]:
    """Return the held-out loss of an arm on SmolLM2, of every seed, at its own learning rate."""
    return [run["test"] for run in tuned(chosen(runs, arm=arm), lambda run: run["validation"])]


def real_ratio(runs: Sequence[dict], arm: str) -> Estimate:
    """Return an arm's held-out loss on SmolLM2, divided by that of response only."""
    return estimates.ratio(*(real_losses(runs, a) for a in (FIRST, arm)))


def smollm2(runs: Sequence[dict], recorded: Sequence[dict], steps: int) -> pd.DataFrame:
    """Return the ratio of each arm on SmolLM2 and on the embedded model after as many steps."""
    lines = {
        arm: {
            "SmolLM2": times(real_ratio(runs, arm)),
            "embedded model": times(ratio(recorded, arm, steps)),
        }
        for arm in ARMS
        if arm != FIRST
    }
    return pd.DataFrame(lines).T


def claims(runs: Sequence[dict], real: Sequence[dict], steps: int) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""

    def said(found: Estimate) -> str:
        return f"{times(found)}, {verdict(found)}"

    template, question = "+ template", "+ question"
    every = exact_change(runs, "everything")
    exact_words = estimates.verdict(every, "better", "worse")
    rows = [
        (
            f"The template in the loss, 24 steps: {verdict(ratio(runs, template))}",
            times(ratio(runs, template)),
            f"the template learned first: {said(ratio(runs, template, setting=LEARNED))}",
            f"in a template that the base has read: {said(ratio(runs, template, setting='Q and A'))}",
        ),
        (
            f"The question in the loss, 24 steps: {verdict(ratio(runs, question))}",
            times(ratio(runs, question)),
            f"12 steps: {said(ratio(runs, question, 12))}; 96: {said(ratio(runs, question, 96))}",
            f"long prompts: {said(ratio(runs, question, setting=LONG))}; "
            f"Q and A: {said(ratio(runs, question, setting='Q and A'))}",
        ),
        (
            f"Every token in the loss, 24 steps: {exact_words}",
            f"exact answers {points(every)}",
            f"the question alone: {points(exact_change(runs, question))}; the template alone: {points(exact_change(runs, template))}",
            f"96 steps: {said(ratio(runs, 'everything', 96))}, exact {points(exact_change(runs, 'everything', 96))}",
        ),
        (
            f"SmolLM2, every token, {steps} steps: {verdict(real_ratio(real, 'everything'))}",
            times(real_ratio(real, "everything")),
            f"embedded model, {steps} steps: {said(ratio(runs, 'everything', steps))}",
            "three seeds, 4-bit reconstruction, no exact answers measured",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
