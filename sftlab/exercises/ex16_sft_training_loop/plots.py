"""Figures and tables of notebook 16. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import BLUE, bars, curves
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, in_100, points, times, tuned, verdict  # noqa: F401  for the notebook
from sftlab.exercises.ex16_sft_training_loop import longer as longer_runs
from sftlab.exercises.ex16_sft_training_loop.read_before import MARKS
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
    drawn,
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
    return run[of][longer_runs.CHECKPOINTS.index(step)]  # they begin with those of the shorter runs


def losses(some: Runs, rule: str, of: str = "test") -> list[float]:
    """Return the loss of every seed at the checkpoint that a rule chooses."""
    return [loss_at(run, run["chosen"][rule], of) for run in some]


def others_step(some: Runs, k: int) -> int:
    """Return the checkpoint with the lowest mean validation loss over all runs but the k-th."""
    rest = [run["validation"] for i, run in enumerate(some) if i != k]
    return longer_runs.CHECKPOINTS[int(np.argmin(np.mean(rest, axis=0)))]


def turn(runs: Runs, pairs: int = FEW) -> Estimate:
    """Return the step with the lowest validation loss: mean over the seeds, 95% t interval."""
    value, (low, high) = estimates.mean([run["chosen"]["validation"] for run in best(runs, pairs)])
    return value, (max(low, 0.0), min(high, float(CHECKPOINTS[-1])))


def flat(runs: Runs, close: float = CLOSE) -> str:
    """Return where each draw's validation loss is lowest, and where their mean is close to its lowest."""
    some = best(runs, FEW)
    curve = np.mean([run["validation"] for run in some], axis=0)
    near = [s for s, v in zip(CHECKPOINTS, curve, strict=True) if v <= (1 + close) * min(curve)]
    own = ", ".join(str(run["chosen"]["validation"]) for run in some)
    told = (
        f"Measured is the mean of the draws' own steps: {own}; its interval is for new draws. The mean curve of the {len(some)} is lowest "
        f"at step {CHECKPOINTS[int(np.argmin(curve))]}, and within {close:.0%} of that at steps {', '.join(map(str, near))}"
    )
    return f"{told}: the minimum is flat." if near[-1] >= 2 * near[0] else f"{told}."


def at_the_end(some: Runs) -> int:
    """Return in how many runs the last step has the lowest validation loss."""
    return sum(run["chosen"]["validation"] == run["chosen"]["last"] for run in some)


def rise(some: Runs, of: str = "test") -> Estimate:
    """Return the loss at the last step over that at the chosen one, paired by seed."""
    return estimates.ratio(losses(some, "validation", of), losses(some, "last", of))


def against_others(some: Runs) -> Estimate:
    """Return the test loss at the last step over that at the step chosen on the other seeds."""
    fixed = [loss_at(run, others_step(some, k)) for k, run in enumerate(some)]
    return estimates.ratio(fixed, losses(some, "last"))


def ends(runs: Runs) -> str:
    """Return how the last step's loss compares with the chosen one's, and whether the choice matters."""
    few, fast = best(runs, FEW), best(runs, MANY, FAST)
    word = verdict(rise(few), "higher", "lower", neutral=1.0)
    matters = gain(fast)
    told = (
        f"Loss, last step ÷ chosen step, {FEW} pairs: {times(rise(few, 'validation'))} on the validation questions, "
        f"which chose the step; {times(rise(few))} on the test questions, {word}."
    )
    if not estimates.settled(matters):
        return told
    return f"{told} At {FAST:g} with {MANY} pairs it is {times(rise(fast))} there, and the choice matters: {points(matters)}."


def other_judge(runs: Runs) -> str:
    """Return where exact answers choose otherwise than the validation loss does."""
    few, many, slow = best(runs, FEW), best(runs, MANY), best(runs, MANY, RATES[0])
    right = [[run["exact"][rule].count("1") for run in few] for rule in ("validation", "last")]
    more = sum(last > chosen_ for chosen_, last in zip(*right, strict=True))
    loss = [float(np.mean(losses(some, "validation"))) for some in (slow, many)]
    share = [score(digits(some, "validation")) for some in (slow, many)]
    gained = change(digits(many, "validation"), digits(slow, "validation"))
    return (
        f"Exact answers are another judge: on {FEW} pairs the last step has more of them than the chosen one in {more} of "
        f"{len(few)} seeds. With {MANY} pairs, {RATES[0]:g} ends at a test loss of {loss[0]:.3f}, {many[0]['learning_rate']:g} at "
        f"{loss[1]:.3f}; exact answers {share[0][0]:.0%} and {share[1][0]:.0%}, {points(gained)}{', ' + estimates.OPEN if not estimates.settled(gained) else ''}."
    )


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


def digits(some: Runs, rule: str) -> list[str]:
    """Return the marks of the test questions of every seed, by a rule."""
    return [run["exact"][rule] for run in some]


def score(marks: Sequence[str]) -> Estimate:
    """Return the share of exact answers, with a 95% interval over seeds and kinds."""
    value, (low, high) = estimates.crossed([by_kind(m) for m in marks])
    return value, (max(0.0, low), min(1.0, high))


def change(before: Sequence[str], after: Sequence[str]) -> Estimate:
    """Return after − before in the share of exact answers, paired, over seeds and kinds."""
    pairs = zip(before, after, strict=True)
    return estimates.crossed([np.subtract(by_kind(b), by_kind(a)).tolist() for a, b in pairs])


def gain(some: Runs) -> Estimate:
    """Return the exact answers of the checkpoint of lowest validation loss minus the last one's."""
    return change(digits(some, "last"), digits(some, "validation"))


def prompt_marks(runs: Runs) -> list[str]:
    """Return the marks of the test questions after examples in lines of "Q:" and "A:"."""
    return [run["exact"] for run in prompted(runs)]


def against_prompt(runs: Runs, some: Runs) -> Estimate:
    """Return the score of trained runs' chosen checkpoints minus that of examples in the prompt."""
    return change(prompt_marks(runs), digits(some, "validation"))


def read_mask(reads: Runs, marks: Sequence[str] = tuple(MARKS)) -> list[bool]:
    """Return which test questions stand in pretraining with their right answers, on lines with any of the marks."""
    times = [run["times"][mark] for run in reads for mark in marks]
    return [n > 0 for n in np.sum(times, axis=0)]


def among_pairs(some: Runs) -> list[bool]:
    """Return which test questions are of a kind that a pair of some seed's run is of."""
    kinds = {row["kind"] for run in some for row in drawn(run["seed"])[: run["pairs"]]}
    return [question["kind"] in kinds for question in questions()[1]]


def on_some(marks: Sequence[str], of: Sequence[bool]) -> np.ndarray:
    """Return the marks of some questions, (seeds, questions)."""
    return np.array([[int(d) for d, one in zip(m, of, strict=True) if one] for m in marks])


def by_question(found: np.ndarray, of: Sequence[bool]) -> np.ndarray:
    """Return (seeds, kinds) whose mean is that over the questions, so that kinds stay the unit of its interval.

    Parts of the questions hold unequal numbers of a kind. A mean over kinds would weight them anew in
    each part, and two parts could both be below the whole.
    """
    asked = [q["kind"] for q, one in zip(questions()[1], of, strict=True) if one]
    kinds = np.array([[kind == name for kind in asked] for name in dict.fromkeys(asked)])
    mean = found.mean(axis=1, keepdims=True)
    return mean + (found - mean) @ kinds.T * len(kinds) / len(asked)


def against_prompt_on(runs: Runs, some: Runs, of: Sequence[bool]) -> Estimate:
    """Return `against_prompt` on some of the test questions, each of which weighs the same."""
    sides = (digits(some, "validation"), prompt_marks(runs))
    gap = np.subtract(*(on_some(marks, of) for marks in sides))
    return estimates.crossed(by_question(gap, of))


def read_or_not(runs: Runs, reads: Runs, pairs: int = MANY) -> list[str]:
    """Return trained minus prompted on the questions that the base has read with their answers, and on the others."""
    read, some = read_mask(reads), best(runs, pairs)
    told = []
    for name, of in (("read", read), ("not read", [not one for one in read])):
        shares = [on_some(m, of).mean() for m in (digits(some, "validation"), prompt_marks(runs))]
        gap = against_prompt_on(runs, some, of)
        told.append(
            f"{name} with their answers in pretraining ({sum(of)} of {len(of)} questions, of equal weight): trained {shares[0]:.0%}, prompted {shares[1]:.0%}, "
            f"{points(gap)}, {verdict(gap, 'more', 'fewer')}"
        )
    return told


def subjects_shared() -> str:
    """Return how many subjects of the test questions occur in more than one kind."""
    kinds: dict[str, set[str]] = {}
    for question in questions()[1]:
        kinds.setdefault(question["subject"], set()).add(question["kind"])
    return f"subjects that occur in more than one kind: {sum(len(k) > 1 for k in kinds.values())} of {len(kinds)}"


def overfitting(runs: Runs) -> str:
    """Return in which arms the test loss is settled to be higher at the last step than at the chosen one."""
    sides: dict[str, list[str]] = {}
    for some in (best(runs, pairs, rate) for rate in (None, FAST) for pairs in (FEW, MANY)):
        ratio = rise(some)
        word = verdict(ratio, "higher", "lower", neutral=1.0)
        last = at_the_end(some) == len(some)
        told = named(some) if last else f"{named(some)} {times(ratio)}"
        sides.setdefault("the chosen step is the last" if last else word, []).append(told)
    lines = [f"{word}: {', '.join(arms)}" for word, arms in sides.items()]
    return "\n".join(["Overfitting? Test loss, last step ÷ chosen step", *lines])


def when_to_stop(runs: Runs) -> str:
    """Return the answer to the question of the title."""
    told = []
    for some in (best(runs, FEW), best(runs, MANY), best(runs, MANY, FAST)):
        steps = [run["chosen"]["validation"] for run in some]
        same = at_the_end(some) == len(some)
        where = f"the seeds' own lowest steps average {np.mean(steps):.0f} ({min(steps)} to {max(steps)})"
        gained = gain(some)
        exact = (
            f"exact answers, chosen − last, {points(gained)}, {verdict(gained, 'more', 'fewer')}"
        )
        told.append(f"{named(some)}: {'lowest at the last step' if same else f'{where}, {exact}'}")
    return f"When should training stop? By the validation loss – {'; '.join(told)}."


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
    given = prompted(runs)[0]["pairs"]
    loss = [
        np.mean([r["validation"] for r in chosen(runs, arm=LINES, pairs=n)]) for n in (0, given)
    ]
    return (
        "The base has read pages of questions and answers in lines of Q and A, so the layout alone brings out the answers. " * alone
        + f"Layout and examples apart: as Q and A, the base has {scores[2]} of the answers exactly right "
        f"without any example, and {scores[3]} with {given} (validation loss {loss[0]:.3f} and {loss[1]:.3f}). In the chat template it has {scores[0]} and {scores[1]}."
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
                fmt=".0%", percent="x", xlim=(0, 1.12), xlabel="answered exactly (95% interval\nover seeds and kinds; no example: kinds alone)")  # fmt: skip


# --- tables ----------------------------------------------------------------------------------


def rules_table(runs: Runs, longer: Runs) -> pd.DataFrame:
    """Return what the last checkpoint loses against the chosen one, by pairs, learning rate and steps."""
    arms = [best(runs, pairs, rate) for rate in (None, FAST) for pairs in (FEW, MANY)]
    arms += [best(longer, MANY, rate) for rate in dict.fromkeys(r["learning_rate"] for r in longer)]
    rows = {}
    for some in arms:
        compared = {
            "last ÷ chosen, validation": times(rise(some, "validation")),
            "last ÷ chosen, test": times(rise(some)),
            "last ÷ others' step, test": times(against_others(some)),
            "exact answers, chosen − last": points(gain(some)),
        }
        if at_the_end(some) == len(some):
            compared = dict.fromkeys(compared, "the same checkpoint")
        mean_step = f"{np.mean([run['chosen']['validation'] for run in some]):.0f}"
        rows[named(some)] = {"chosen step, mean": mean_step, **compared}
    return pd.DataFrame(rows).T.rename_axis("arm")


def named(some: Runs) -> str:
    """Return the pairs, learning rate and steps of runs as text."""
    run = some[0]
    return f"{run['pairs']} pairs at {run['learning_rate']:g}, {run['chosen']['last']} steps"


def units_table(runs: Runs, longer: Runs) -> pd.DataFrame:
    """Return trained minus prompted with three units: questions, kinds, and seeds with kinds."""
    before = prompt_marks(runs)
    kinds = [question["kind"] for question in questions()[1]]
    rows: dict[str, dict[str, str]] = {}
    for some in (best(runs, MANY), best(runs, FEW), best(longer, MANY)):
        after = digits(some, "validation")
        marks = [np.mean([[int(d) for d in m] for m in side], axis=0) for side in (before, after)]
        found = {
            f"{len(kinds)} questions": paired_difference(*marks),
            f"{len(set(kinds))} kinds": estimates.over_kinds(kinds, (marks[1] - marks[0]).tolist()),
            f"{len(before)} seeds and {len(set(kinds))} kinds": change(before, after),
        }
        for unit, value in found.items():
            told = f"{points(value)}, {verdict(value, 'higher', 'lower')}"
            rows.setdefault(unit, {})[f"{named(some)} − prompted"] = told
    return pd.DataFrame(rows).T.rename_axis("unit")


def differing(runs: Runs, pairs: int = MANY) -> str:
    """Return the kinds in which trained and prompted differ by more than ``LARGE``, and their part in all."""
    before, some = prompt_marks(runs), best(runs, pairs)
    names = list(dict.fromkeys(question["kind"] for question in questions()[1]))
    after = [by_kind(marks) for marks in digits(some, "validation")]
    gap = np.mean(after, 0) - np.mean([by_kind(marks) for marks in before], 0)
    trained = {row["kind"] for run in some for row in drawn(run["seed"])[:pairs]}
    far = {n: g for n, g in zip(names, gap, strict=True) if abs(g) > LARGE}
    marked = {n: n if n in trained else f"{n} (in no pair)" for n in far}
    sides = {
        "prompted as Q and A": [marked[n] for n, g in far.items() if g < 0],
        f"trained on {pairs} pairs": [marked[n] for n, g in far.items() if g > 0],
    }
    told = "\n".join(f"better {side}: {', '.join(of) or 'none'}" for side, of in sides.items())
    part, whole = (100 * sum(some) / len(names) for some in (far.values(), gap))
    return f"kinds that differ by more than {100 * LARGE:.0f} points: {part:+.1f} of the {whole:+.1f} points\n{told}"


# --- what was found --------------------------------------------------------------------------


def claims(
    runs: Runs, longer: Runs, reads: Runs, resumed: Mapping[str, float], trl: Sequence[float], processes: Runs,
) -> pd.DataFrame:  # fmt: skip
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        reads: the recorded runs about what the base has read.
        resumed: "with" and "without" the optimizer's state, the largest difference of any weight.
        trl: relative differences of the losses from TRL's. processes: the recorded runs.
    """
    some, word = untrained(runs), ("more", "fewer")
    small, large, long = best(runs, FEW), best(runs, MANY), best(longer, MANY)
    few, many = (against_prompt(runs, arm) for arm in (small, large))
    selected, fast = gain(small), gain(best(runs, MANY, FAST))
    worst = max(run["largest_relative_difference"] for run in processes)
    shares = [f"{name.removeprefix('base, ')} {value[0]:.0%}" for name, value in some.items()]
    step = LAST // 2
    inside = against_prompt_on(runs, large, among_pairs(large))
    rows = [
        (
            f"Exploratory: test loss of step {LAST} ÷ an earlier step, {MANY} pairs against {FEW}: {told_steps(runs)}",
            "; ".join(f"from {s} {times(interaction(runs, s))}" for s in EARLIER),
            f"at {FAST:g}: {told_steps(runs, FAST)}; from {step} {times(interaction(runs, step, FAST))}",
            f"the number of pairs, their kinds, and how often each is seen differ together; {kinds_covered(runs)}",
        ),
        (
            f"Chosen checkpoint on {FEW} pairs, against the last: exact answers {verdict(selected, *word)}",
            f"{points(selected)}; loss, last ÷ chosen: validation {times(rise(small, 'validation'))}, test {times(rise(small))}",
            f"step chosen on the other seeds: test {times(against_others(small))}",
            f"the tuned rate; at {FAST:g} with {MANY} pairs {verdict(fast, *word)} exact answers, {points(fast)}",
        ),
        (
            f"Exact answers, trained − prompted as Q and A: {MANY} pairs {verdict(many, *word)}, {FEW} pairs {verdict(few, *word)}",
            f"{MANY} pairs {points(many)}; {FEW} pairs {points(few)}",
            f"{MANY} pairs: {'; '.join(read_or_not(runs, reads))}",
            f"without training: {'; '.join(shares)}; without the kinds that are in no pair: {points(inside)}, {verdict(inside, *word)}; "
            f"{MANY} pairs end at the lowest validation loss in {at_the_end(large)} of {len(large)} seeds; {named(long)}: {points(against_prompt(runs, long))}",
        ),
        (
            f"A run that was killed and resumed from disk {'equals' if resumed['with'] == 0 else 'differs from'} one that never stopped",
            f"largest difference of a weight: {resumed['with']:g}",
            f"without the optimizer's state: {resumed['without']:.1g}",
            "one kill, after step 3, compared at step 6; one machine, one thread, no dropout: with dropout the random state belongs in the file",
        ),
        (
            f"TRL's trainer and several processes: {'the same losses' if max(worst, *trl) < 1e-4 else 'other losses'}",
            f"TRL, {len(trl)} steps: {max(trl):.0e} at most; another run, {' and '.join(str(run['processes']) for run in processes)} processes: {worst:.0e}",
            "the same batches, in the same order",
            "float32 on CPUs; rounding adds up over the steps; with dropout, processes draw other numbers",
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
