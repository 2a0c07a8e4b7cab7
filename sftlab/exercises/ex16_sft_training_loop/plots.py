"""Figures and tables of notebook 16. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import BLUE, bars, curves
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, compared, points, times, tuned, verdict
from sftlab.exercises.ex16_sft_training_loop.stopping import (
    BASE,
    BATCH,
    CHECKPOINTS,
    EXAMPLES,
    FEW,
    MANY,
    RATES,
    RULES,
    SHOTS,
    TRAINED,
    questions,
)
from sftlab.statistics import chosen, paired_difference

Runs = Sequence[dict]
RULE = dict(
    zip(RULES, ("lowest validation loss", "lowest training loss", "last step"), strict=True)
)
FIXED = "one step for all, chosen on the other seeds"

WHY = {
    "a": "The first epochs teach how an answer looks, which held-out questions need too. After that the loss on the pairs is close "
    "to zero, so they have little more to teach. At a higher learning rate the loss on other questions also rises.",
    "b": "The loss counts how sure the model is of each token. Greedy decoding only asks which token comes first, and growing "
    "more sure rarely changes that.",
    "c": "A likely reason: the base knows pages of questions with answers, and examples in the prompt show it that layout. Training "
    "has to teach a new layout, the chat template, from few pairs.",
}  # fmt: skip


# --- which runs ------------------------------------------------------------------------------


def best(runs: Runs, pairs: int) -> list[dict]:
    """Return the trained runs of the learning rate with the lowest validation loss at its best step."""
    return tuned(chosen(runs, arm=TRAINED, pairs=pairs), lambda run: min(run["validation"]))


def prompted(runs: Runs) -> list[dict]:
    """Return the runs with the number of examples in the prompt that is best on validation questions."""
    arms = [chosen(runs, arm=SHOTS, pairs=count) for count in EXAMPLES]
    return max(arms, key=lambda arm: sum(run["exact"]["validation"].count("1") for run in arm))


def loss_at(run: dict, step: int, of: str = "test") -> float:
    """Return a run's loss at a checkpoint."""
    return run[of][CHECKPOINTS.index(step)]


def losses(runs: Runs, rule: str, of: str = "test") -> list[float]:
    """Return the loss of every seed at the checkpoint that a rule chooses."""
    return [loss_at(run, run["chosen"][rule], of) for run in runs]


def others_step(runs: Runs, k: int) -> int:
    """Return the checkpoint with the lowest mean validation loss over all runs but the k-th."""
    rest = [run["validation"] for i, run in enumerate(runs) if i != k]
    return CHECKPOINTS[int(np.argmin(np.mean(rest, axis=0)))]


def turn(runs: Runs, pairs: int = FEW) -> Estimate:
    """Return the step with the lowest validation loss: mean over the seeds, 95% t interval."""
    value, (low, high) = estimates.mean([run["chosen"]["validation"] for run in best(runs, pairs)])
    return value, (max(low, 0.0), min(high, float(CHECKPOINTS[-1])))


def rise(runs: Runs, pairs: int, rate: float | None = None) -> Estimate:
    """Return the test loss at the last step over that at the chosen one, paired by seed.

    Args:
        rate: the learning rate; None for the best one.
    """
    every = chosen(runs, arm=TRAINED, pairs=pairs)
    some = chosen(every, learning_rate=rate) if rate else best(runs, pairs)
    return estimates.ratio(losses(some, "validation"), losses(some, "last"))


def later(runs: Runs, pairs: int, rate: float | None = None) -> Estimate:
    """Return the test loss at the last step over that at half of the steps, paired by seed."""
    some = chosen(runs, arm=TRAINED, pairs=pairs, learning_rate=rate) if rate else best(runs, pairs)
    ends = (
        [loss_at(run, step) for run in some] for step in (CHECKPOINTS[-1] // 2, CHECKPOINTS[-1])
    )
    return estimates.ratio(*ends)


# --- scores ----------------------------------------------------------------------------------


def by_kind(digits: str) -> list[float]:
    """Return the share of exact answers of each kind, from a digit for each test question."""
    kinds: dict[str, list[int]] = {}
    for question, digit in zip(questions()[1], digits, strict=True):
        kinds.setdefault(question["kind"], []).append(int(digit))
    return [float(np.mean(some)) for some in kinds.values()]


def digits(runs: Runs, rule: str) -> list[str]:
    """Return the marks of the test questions of every seed, by a rule or by the set "test"."""
    return [run["exact"][rule] for run in runs]


def score(marks: Sequence[str]) -> Estimate:
    """Return the share of exact answers, with a 95% interval over seeds and kinds."""
    value, (low, high) = estimates.crossed([by_kind(m) for m in marks])
    return value, (max(0.0, low), min(1.0, high))


def change(before: Sequence[str], after: Sequence[str]) -> Estimate:
    """Return after − before in the share of exact answers, paired, over seeds and kinds."""
    pairs = zip(before, after, strict=True)
    return estimates.crossed([np.subtract(by_kind(b), by_kind(a)).tolist() for a, b in pairs])


def stopped(runs: Runs, rule: str = "last") -> Estimate:
    """Return what the checkpoint of lowest validation loss scores more than another rule's."""
    some = best(runs, FEW)
    return change(digits(some, rule), digits(some, "validation"))


def against_prompt(runs: Runs, pairs: int = FEW) -> Estimate:
    """Return the score of a trained model's chosen checkpoint minus that of examples in the prompt."""
    return change(digits(prompted(runs), "test"), digits(best(runs, pairs), "validation"))


# --- figures ---------------------------------------------------------------------------------


LOOK = {
    "training loss": {"yscale": "log", "ylabel": "loss per token (nats)"},
    "validation loss": {"ylim": (0.2, 1.0)},
}  # in the first steps, the validation loss is above its axis: its turn would not be seen


def both_losses(found: Mapping[str, Mapping[int, float]]):
    """Draw the losses of the live run, by name and step, with a mark at the lowest validation loss."""
    validation = found["validation"]
    step, last = min(validation, key=lambda s: validation[s]), max(validation)
    where = "at the last step" if step == last else f"at step {step} of {last}"
    told = "; ".join(
        f"{name}: " + ", ".join(f"{value:.3g} at {s}" for s, value in by.items())
        for name, by in found.items()
    )
    each = {name: look | {"axvline": {step: f"step {step}"}} for name, look in LOOK.items()}
    each["validation loss"]["ylim"] = (0.8 * validation[step], 2 * validation[step])
    return curves({f"{name} loss": by for name, by in found.items()}, f"Lowest validation loss {where}",
                  f"Two panels over the steps, the training loss on a logarithmic axis. {told}.", panels=True, each=each,
                  xlabel=f"training step ({FEW // BATCH} steps: one epoch)", figsize=(9.4, 3.4))  # fmt: skip


def over_seeds(runs: Runs):
    """Draw both losses over the steps with the range over seeds: few and many pairs, two rates each."""
    arms = {}
    for rate in (None, RATES[-1]):
        for pairs in (FEW, MANY):
            every = chosen(runs, arm=TRAINED, pairs=pairs)
            some = chosen(every, learning_rate=rate) if rate else best(runs, pairs)
            arms[f"{pairs} pairs at {some[0]['learning_rate']:g}"] = some
    found = {
        f"{of} loss": {
            name: {s: [loss_at(run, s, of) for run in some] for s in CHECKPOINTS}
            for name, some in arms.items()
        }
        for of in ("training", "validation")
    }
    told = "; ".join(
        f"{panel}, {name}: " + ", ".join(f"{np.mean(v):.3g} at {s}" for s, v in by.items())
        for panel, series in found.items()
        for name, by in series.items()
    )
    words = ", ".join(f"{pairs} pairs {compared(later(runs, pairs))}" for pairs in (FEW, MANY))
    return curves(found, f"Test loss, last step against half of the steps: {words}", f"Curves in two panels. {told}.",
                  panels=True, each=LOOK, xlabel="training step", figsize=(9.4, 4))  # fmt: skip


def scores_figure(runs: Runs):
    """Draw the share of exact answers: base, base with examples, and trained on few and on many pairs."""
    shots = prompted(runs)
    arms = {
        "base, chat template": digits(chosen(runs, arm=BASE), "test"),
        f"base, {shots[0]['pairs']} examples in the prompt": digits(shots, "test"),
        f"trained on {FEW} pairs": digits(best(runs, FEW), "validation"),
        f"trained on {MANY} pairs": digits(best(runs, MANY), "validation"),
    }
    found = {name: score(marks) for name, marks in arms.items()}
    told = "; ".join(f"{name}: {estimates.percent(value)}" for name, value in found.items())
    word = verdict(against_prompt(runs), "more", "fewer")
    return bars(found, f"{FEW} pairs, against examples in the prompt: exact answers {word}", f"Bar chart with 95% intervals. {told}.",
                fmt=".0%", percent="x", xlim=(0, 1.12), xlabel="test questions answered exactly (seeds × kinds)")  # fmt: skip


# --- tables ----------------------------------------------------------------------------------


def rules_table(runs: Runs) -> pd.DataFrame:
    """Return what each rule chooses on few pairs, and what the chosen checkpoint is worth."""
    some = best(runs, FEW)
    rows = {
        name: {
            "step, mean": f"{np.mean([run['chosen'][rule] for run in some]):.0f}",
            "test loss": f"{np.mean(losses(some, rule)):.3f}",
            "test loss ÷ that of the first rule": times(
                estimates.ratio(losses(some, "validation"), losses(some, rule))
            ),
            "answered exactly": estimates.percent(score(digits(some, rule))),
        }
        for rule, name in RULE.items()
    }
    steps = [others_step(some, k) for k in range(len(some))]
    fixed = [loss_at(run, step) for run, step in zip(some, steps, strict=True)]
    rows[FIXED] = {
        "step, mean": f"{np.mean(steps):.0f}",
        "test loss": f"{np.mean(fixed):.3f}",
        "test loss ÷ that of the first rule": times(
            estimates.ratio(losses(some, "validation"), fixed)
        ),
        "answered exactly": "–",
    }
    return pd.DataFrame(rows).T.rename_axis("rule")


def units_table(runs: Runs) -> pd.DataFrame:
    """Return trained minus prompted with three units: questions, kinds, and seeds with kinds."""
    before = digits(prompted(runs), "test")
    kinds = [question["kind"] for question in questions()[1]]
    rows: dict[str, dict[str, str]] = {}
    for pairs in (FEW, MANY):
        after = digits(best(runs, pairs), "validation")
        marks = [np.mean([[int(d) for d in m] for m in some], axis=0) for some in (before, after)]
        found = {
            f"{len(kinds)} questions": paired_difference(*marks),
            f"{len(set(kinds))} kinds": estimates.over_kinds(kinds, (marks[1] - marks[0]).tolist()),
            f"{len(before)} seeds × {len(set(kinds))} kinds": change(before, after),
        }
        for unit, value in found.items():
            told = f"{points(value)}, {verdict(value, 'higher', 'lower')}"
            rows.setdefault(unit, {})[f"trained on {pairs} pairs − prompted"] = told
    return pd.DataFrame(rows).T.rename_axis("unit")


def differing(runs: Runs, pairs: int = FEW) -> str:
    """Return the kinds in which trained and prompted differ by more than half, either way."""
    before, after = digits(prompted(runs), "test"), digits(best(runs, pairs), "validation")
    names = list(dict.fromkeys(question["kind"] for question in questions()[1]))
    gap = np.mean([by_kind(a) for a in after], 0) - np.mean([by_kind(b) for b in before], 0)
    sides = {
        "examples in the prompt": [n for n, g in zip(names, gap, strict=True) if g < -0.5],
        "training": [n for n, g in zip(names, gap, strict=True) if g > 0.5],
    }
    return "\n".join(f"better with {side}: {', '.join(of) or 'none'}" for side, of in sides.items())


# --- what was found --------------------------------------------------------------------------


def claims(
    runs: Runs, resumed: Mapping[str, float], trl: float, processes: Sequence[dict]
) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        resumed: "with" and "without" the optimizer's state, the largest difference of any weight.
        trl: largest relative difference of a loss from TRL's. processes: the recorded runs.
    """
    few = rise(runs, FEW)
    more, gain, other = against_prompt(runs), stopped(runs), against_prompt(runs, MANY)
    some = best(runs, FEW)
    worst = max(run["largest_relative_difference"] for run in processes)
    fast, few_fast = RATES[-1], rise(runs, FEW, RATES[-1])
    rows = [
        (
            f"Twice as many steps, test loss: {FEW} pairs {compared(later(runs, FEW))}, {MANY} pairs {compared(later(runs, MANY))}",
            f"{FEW} pairs {times(later(runs, FEW))}, {MANY} pairs {times(later(runs, MANY))}",
            f"only the pairs' number differs; lowest validation loss at step {turn(runs)[0]:.0f} and {turn(runs, MANY)[0]:.0f} of {CHECKPOINTS[-1]}",
            f"learning rate {some[0]['learning_rate']:g}; at {fast:g} {times(later(runs, FEW, fast))} and {times(later(runs, MANY, fast))}",
        ),
        (
            f"Chosen checkpoint on {FEW} pairs: exact answers {verdict(gain, 'more', 'fewer')}, last step's test loss {compared(few)}",
            f"{points(gain)}; last step's loss ÷ chosen one's {times(few)}",
            f"chosen on the training loss instead: {points(stopped(runs, 'training'))}",
            f"at {fast:g} the last step's loss is {compared(few_fast)}, {times(few_fast)}; there with {MANY} pairs {times(rise(runs, MANY, fast))}",
        ),
        (
            f"Trained on {FEW} pairs, against examples in the prompt: exact answers {verdict(more, 'more', 'fewer')}",
            points(more),
            f"trained on {MANY} pairs: {points(other)}, {verdict(other, 'more', 'fewer')}",
            "a base that has read pages of questions and answers; the prompt is longer with examples",
        ),
        (
            f"A run resumed from disk {'equals' if resumed['with'] == 0 else 'differs from'} one that never stopped",
            f"largest difference of a weight: {resumed['with']:g}",
            f"without the optimizer's state: {resumed['without']:.1g}",
            "one machine, one thread, no dropout; with dropout the random state belongs in the file",
        ),
        (
            f"TRL's trainer and several processes: {'the same losses' if max(worst, trl) < 1e-4 else 'other losses'}",
            f"TRL: {trl:.0e} at most; {' and '.join(str(run['processes']) for run in processes)} processes: {worst:.0e}",
            "the same batches, in the same order",
            "float32 on CPUs; with dropout, processes draw other numbers",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])


# --- the explorer ----------------------------------------------------------------------------


def curve(losses: Sequence[float], steps: int, width: int = 420, height: int = 90) -> str:
    """The loss so far as a small SVG: quick enough to be drawn at every step."""
    top = max(losses, default=1.0)
    points = " ".join(
        f"{4 + (width - 8) * n / max(steps - 1, 1):.1f},{height - 4 - (height - 12) * loss / top:.1f}"
        for n, loss in enumerate(losses)
    )
    label = f"loss curve, {len(losses)} of {steps} steps"
    return (
        f'<svg role="img" aria-label="{label}" width="{width}" height="{height}" '
        'style="background:rgba(128,128,128,.08)">'
        f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="2"/></svg>'
    )
