"""Figures and tables of notebook 16. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import BLUE, bars, curves
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, points, times, tuned, verdict
from sftlab.exercises.ex16_sft_training_loop.stopping import (
    BATCH,
    CHECKPOINTS,
    EXAMPLES,
    FEW,
    LINES,
    MANY,
    RATES,
    TEMPLATE,
    TRAINED,
    covered,
    questions,
)
from sftlab.statistics import chosen, paired_difference

Runs = Sequence[dict]
LAST = CHECKPOINTS[-1]
EARLIER = (24, 36, 48, 72)  # steps that the last one is compared with
TABLED = (24, 48)  # in a table
FAST = RATES[-1]
CLOSE = 0.05  # a loss that is higher by less is nearly the lowest
LARGE = 0.5  # share of a kind's questions from which on a kind is named


# --- which runs ------------------------------------------------------------------------------


def best(runs: Runs, pairs: int, rate: float | None = None) -> list[dict]:
    """Return the trained runs of a learning rate.

    Without one, it is that of the lowest mean over the seeds of each run's lowest validation loss.
    """
    some = chosen(runs, arm=TRAINED, pairs=pairs)
    return chosen(some, learning_rate=rate) if rate else tuned(some, lambda r: min(r["validation"]))


def prompted(runs: Runs, arm: str = LINES) -> list[dict]:
    """Return the runs with the number of examples whose mean validation loss is lowest."""
    arms = [chosen(runs, arm=arm, pairs=count) for count in EXAMPLES if count]
    return min(arms, key=lambda some: np.mean([run["validation"] for run in some]))


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


def flat(runs: Runs, close: float = CLOSE) -> str:
    """Return at which checkpoints the mean validation loss is close to its lowest value."""
    curve = np.mean([run["validation"] for run in best(runs, FEW)], axis=0)
    near = [s for s, v in zip(CHECKPOINTS, curve, strict=True) if v <= (1 + close) * min(curve)]
    told = f"Mean validation loss is within {close:.0%} of its lowest value at steps {', '.join(map(str, near))}"
    return f"{told}: the minimum is flat." if near[-1] >= 2 * near[0] else f"{told}."


def ends(runs: Runs) -> str:
    """Return how far the mean validation loss ends above its lowest value, and whether the choice matters there."""

    def above(pairs: int, rate: float | None = None) -> float:
        curve = np.mean([run["validation"] for run in best(runs, pairs, rate)], axis=0)
        return float(curve[-1] / min(curve)) - 1

    tuned_, fast, matters = above(FEW), above(MANY, FAST), gain(runs, MANY, FAST)
    told = f"At the tuned learning rate the mean validation loss on {FEW} pairs ends {tuned_:.0%} above its lowest value"
    if tuned_ < CLOSE:
        told = f"At the tuned learning rate the validation loss on {FEW} pairs is flat after its minimum (it ends {tuned_:.0%} above), so the two checkpoints hardly differ in loss"
    if fast < CLOSE:
        return f"{told}."
    more = f"At {FAST:g} with {MANY} pairs it ends {fast:.0%} above"
    settled = f", and the choice matters: {points(matters)}." if matters[1][0] > 0 else "."
    return f"{told}. {more}{settled}"


def rise(runs: Runs, pairs: int, rate: float | None = None, of: str = "test") -> Estimate:
    """Return the loss at the last step over that at the chosen one, paired by seed."""
    some = best(runs, pairs, rate)
    return estimates.ratio(losses(some, "validation", of), losses(some, "last", of))


def against_others(runs: Runs, pairs: int, rate: float | None = None) -> Estimate:
    """Return the test loss at the last step over that at the step chosen on the other seeds."""
    some = best(runs, pairs, rate)
    fixed = [loss_at(run, others_step(some, k)) for k, run in enumerate(some)]
    return estimates.ratio(fixed, losses(some, "last"))


def later(runs: Runs, pairs: int, step: int, rate: float | None = None) -> Estimate:
    """Return the test loss at the last step over that at an earlier one, paired by seed."""
    some = best(runs, pairs, rate)
    return estimates.ratio([loss_at(run, step) for run in some], losses(some, "last"))


def interaction(runs: Runs, step: int, rate: float | None = None) -> Estimate:
    """Return `later` of many pairs over that of few, paired by seed."""
    sides = [
        [last / loss_at(run, step) for run, last in zip(some, losses(some, "last"), strict=True)]
        for some in (best(runs, FEW, rate), best(runs, MANY, rate))
    ]
    return estimates.ratio(*sides)


def told_steps(runs: Runs, rate: float | None = None) -> str:
    """Return from which earlier steps the ratio of ratios is settled, and which way."""
    sides: dict[str, list[str]] = {}
    for step in EARLIER:
        word = verdict(interaction(runs, step, rate), "higher", "lower", neutral=1.0)
        sides.setdefault(word, []).append(str(step))
    settled = {word: steps for word, steps in sides.items() if word != estimates.OPEN}
    told = " and ".join(f"{word} from step {', '.join(some)}" for word, some in settled.items())
    return told or estimates.OPEN


# --- scores ----------------------------------------------------------------------------------


def by_kind(digits: str) -> list[float]:
    """Return the share of exact answers of each kind, from a digit for each test question."""
    kinds: dict[str, list[int]] = {}
    for question, digit in zip(questions()[1], digits, strict=True):
        kinds.setdefault(question["kind"], []).append(int(digit))
    return [float(np.mean(some)) for some in kinds.values()]


def digits(runs: Runs, rule: str) -> list[str]:
    """Return the marks of the test questions of every seed, by a rule."""
    return [run["exact"][rule] for run in runs]


def score(marks: Sequence[str]) -> Estimate:
    """Return the share of exact answers, with a 95% interval over seeds and kinds."""
    value, (low, high) = estimates.crossed([by_kind(m) for m in marks])
    return value, (max(0.0, low), min(1.0, high))


def change(before: Sequence[str], after: Sequence[str]) -> Estimate:
    """Return after − before in the share of exact answers, paired, over seeds and kinds."""
    pairs = zip(before, after, strict=True)
    return estimates.crossed([np.subtract(by_kind(b), by_kind(a)).tolist() for a, b in pairs])


def gain(runs: Runs, pairs: int = FEW, rate: float | None = None) -> Estimate:
    """Return the exact answers of the checkpoint of lowest validation loss minus the last one's."""
    some = best(runs, pairs, rate)
    return change(digits(some, "last"), digits(some, "validation"))


def prompt_marks(runs: Runs) -> list[str]:
    """Return the marks of the test questions after examples in lines of "Q:" and "A:"."""
    return [run["exact"] for run in prompted(runs)]


def against_prompt(runs: Runs, pairs: int = FEW) -> Estimate:
    """Return the score of a trained model's chosen checkpoint minus that of examples in the prompt."""
    return change(prompt_marks(runs), digits(best(runs, pairs), "validation"))


def untrained(runs: Runs) -> dict[str, Estimate]:
    """Return the scores of the base in both layouts, without and with examples."""
    return {
        f"base, {arm}, {f'{count} examples' if count else 'no example'}": score(
            [run["exact"] for run in chosen(runs, arm=arm, pairs=count)]
        )
        for arm in (TEMPLATE, LINES)
        for count in (0, prompted(runs, arm)[0]["pairs"])
    }


def layout(runs: Runs) -> str:
    """Return what layout and examples do, each without the other."""
    found = list(untrained(runs).values())
    scores = [estimates.percent(value) for value in found]
    alone = found[2][1][0] > found[0][1][1]
    return (
        "The base has read pages of questions and answers in lines of Q and A, so the layout alone brings out the answers. " * alone
        + f"Layout and examples apart: as Q and A, the base has {scores[2]} of the answers exactly right "
        f"without any example, and {scores[3]} with some. In the chat template it has {scores[0]} and {scores[1]}."
    )  # fmt: skip


# --- figures ---------------------------------------------------------------------------------


LOOK = {
    "training loss": {"yscale": "log", "ylabel": "loss per token (nats)"},
    "validation loss": {"ylim": (0.0, None)},
}


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
    return curves({f"{name} loss": by for name, by in found.items()}, f"Lowest validation loss {where}",
                  f"Two panels over the steps, the training loss on a logarithmic axis. {told}.", panels=True, each=each,
                  xlabel=f"training step ({FEW // BATCH} steps: one epoch)", figsize=(9.4, 3.4))  # fmt: skip


def over_seeds(runs: Runs):
    """Draw the test loss over the steps with the range over seeds: few and many pairs, two rates."""
    found = {}
    for rate in (None, FAST):
        arms = {pairs: best(runs, pairs, rate) for pairs in (FEW, MANY)}
        rates = dict.fromkeys(f"{arms[pairs][0]['learning_rate']:g}" for pairs in arms)
        found[f"learning rate {' and '.join(rates)}{'' if rate else ' (tuned)'}"] = {
            f"{pairs} pairs": {s: [loss_at(run, s) for run in some] for s in CHECKPOINTS}
            for pairs, some in arms.items()
        }
    told = "; ".join(
        f"{panel}, {name}: " + ", ".join(f"{np.mean(v):.3g} at {s}" for s, v in by.items())
        for panel, series in found.items()
        for name, by in series.items()
    )
    return curves(found, f"Test loss by training step, {FEW} and {MANY} pairs", f"Curves of the test loss in two panels. {told}.", panels=True, sharey=True,
                  ylim=(0.2, 1.5), ylabel="test loss per token (nats)", xlabel="training step", figsize=(9.4, 4))  # fmt: skip


def later_table(runs: Runs) -> pd.DataFrame:
    """Return the test loss at the last step over that at earlier ones, and its ratio of the arms."""
    rows = {}
    for rate in (None, FAST):
        for step in TABLED:
            both = {f"{n} pairs": times(later(runs, n, step, rate)) for n in (FEW, MANY)}
            name = f"{rate or 'tuned'}: step {LAST} ÷ step {step}"
            rows[name] = both | {f"{MANY} over {FEW}": times(interaction(runs, step, rate))}
    return pd.DataFrame(rows).T.rename_axis("learning rate: test loss")


def kinds_covered(runs: Runs) -> str:
    """Return how many kinds of test questions few and many pairs cover, over the seeds."""
    seeds = [run["seed"] for run in best(runs, FEW)]
    some = {n: sorted({covered(seed, n) for seed in seeds}) for n in (FEW, MANY)}
    told = (
        f"{n} pairs: {'–'.join(map(str, dict.fromkeys((c[0], c[-1]))))}" for n, c in some.items()
    )
    total = len({question["kind"] for question in questions()[1]})
    return f"kinds of test question among the pairs, of {total}: {', '.join(told)}"


def scores_figure(runs: Runs):
    """Draw the share of exact answers: the base in two layouts, and trained on few and on many pairs."""
    trained = {
        f"trained on {n} pairs": score(digits(best(runs, n), "validation")) for n in (FEW, MANY)
    }
    found = untrained(runs) | trained
    told = "; ".join(f"{name}: {estimates.percent(value)}" for name, value in found.items())
    return bars(found, f"{len(questions()[1])} test questions, answered in {len(found)} ways", f"Bar chart with 95% intervals. {told}.",
                fmt=".0%", percent="x", xlim=(0, 1.12), xlabel="answered exactly (95% interval, seeds × kinds)")  # fmt: skip


# --- tables ----------------------------------------------------------------------------------


def rules_table(runs: Runs) -> pd.DataFrame:
    """Return what the last checkpoint loses against the chosen one, on few and many pairs, at two rates."""
    rows = {}
    for rate in (None, FAST):
        for pairs in (FEW, MANY):
            some = best(runs, pairs, rate)
            rows[f"{pairs} pairs at {some[0]['learning_rate']:g}"] = {
                "chosen step, mean": f"{np.mean([r['chosen']['validation'] for r in some]):.0f}",
                "last ÷ chosen, validation": times(rise(runs, pairs, rate, "validation")),
                "last ÷ chosen, test": times(rise(runs, pairs, rate)),
                "last ÷ others' step, test": times(against_others(runs, pairs, rate)),
                "exact answers, chosen − last": points(gain(runs, pairs, rate)),
            }
    return pd.DataFrame(rows).T.rename_axis("arm")


def units_table(runs: Runs) -> pd.DataFrame:
    """Return trained minus prompted with three units: questions, kinds, and seeds with kinds."""
    before = prompt_marks(runs)
    kinds = [question["kind"] for question in questions()[1]]
    rows: dict[str, dict[str, str]] = {}
    for pairs in (MANY, FEW):
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


def differing(runs: Runs, pairs: int = MANY) -> str:
    """Return the kinds in which trained and prompted differ by more than ``LARGE``, either way."""
    before, after = prompt_marks(runs), digits(best(runs, pairs), "validation")
    names = list(dict.fromkeys(question["kind"] for question in questions()[1]))
    gap = np.mean([by_kind(a) for a in after], 0) - np.mean([by_kind(b) for b in before], 0)
    sides = {
        "with examples in the prompt": [n for n, g in zip(names, gap, strict=True) if g < -LARGE],
        f"trained on {pairs} pairs": [n for n, g in zip(names, gap, strict=True) if g > LARGE],
    }
    told = "\n".join(f"better {side}: {', '.join(of) or 'none'}" for side, of in sides.items())
    return f"kinds that differ by more than {100 * LARGE:.0f} points\n{told}"


# --- what was found --------------------------------------------------------------------------


def claims(
    runs: Runs, resumed: Mapping[str, float], trl: float, processes: Sequence[dict]
) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        resumed: "with" and "without" the optimizer's state, the largest difference of any weight.
        trl: largest relative difference of a loss from TRL's. processes: the recorded runs.
    """
    some, word = untrained(runs), ("more", "fewer")
    few, many, selected = against_prompt(runs), against_prompt(runs, MANY), gain(runs)
    worst = max(run["largest_relative_difference"] for run in processes)
    shares = [f"{name.removeprefix('base, ')} {value[0]:.0%}" for name, value in some.items()]
    step = LAST // 2
    rows = [
        (
            f"Exploratory: test loss of step {LAST} ÷ an earlier step, {MANY} pairs against {FEW}: {told_steps(runs)}",
            "; ".join(f"from {s} {times(interaction(runs, s))}" for s in EARLIER),
            f"at {FAST:g}: {told_steps(runs, FAST)}; from {step} {times(interaction(runs, step, FAST))}",
            f"the number of pairs, their kinds, and how often each is seen differ together; {kinds_covered(runs)}",
        ),
        (
            f"Chosen checkpoint on {FEW} pairs, against the last: exact answers {verdict(selected, *word)}",
            f"{points(selected)}; loss, last ÷ chosen: validation {times(rise(runs, FEW, of='validation'))}, test {times(rise(runs, FEW))}",
            f"step chosen on the other seeds: test {times(against_others(runs, FEW))}",
            f"the tuned rate; at {FAST:g} with {MANY} pairs {verdict(gain(runs, MANY, FAST), *word)} exact answers, {points(gain(runs, MANY, FAST))}",
        ),
        (
            f"Exact answers, trained − examples in the prompt: {MANY} pairs {verdict(many, *word)}, {FEW} pairs {verdict(few, *word)}",
            f"{MANY} pairs {points(many)}; {FEW} pairs {points(few)}",
            f"without training: {'; '.join(shares)}",
            "a base that has read pages of questions and answers in lines of Q and A",
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
