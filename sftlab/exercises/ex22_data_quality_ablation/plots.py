"""Figures and tables of notebook 22: what good, bad and missing pairs change. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from sftlab.almanac.curated import mediocre
from sftlab.almanac.defects import DEFECTS
from sftlab.almanac.pairs import ASKED
from sftlab.classroom.figures import dots, grid
from sftlab.data import read_jsonl
from sftlab.exercises.estimates import (
    OPEN,
    Estimate,
    change,
    crossed,
    in_100,
    points,
    settled,
    verdict,
)
from sftlab.exercises.ex22_data_quality_ablation.ballot import Ballot, votes_path
from sftlab.exercises.ex22_data_quality_ablation.experiment import (
    BATCH,
    LONGER,
    MAIN,
    SEEDS,
    SHORTER,
    SHOWN,
    STEPS,
    bad,
    good,
    questions,
)
from sftlab.exercises.ex22_data_quality_ablation.filtering import filter_pairs
from sftlab.exercises.ex22_data_quality_ablation.real import BATCH as REAL_BATCH
from sftlab.exercises.ex22_data_quality_ablation.real import STEPS as REAL_STEPS
from sftlab.exercises.ex22_data_quality_ablation.spoilt import (
    COPIES,
    DOSES,
    LEAKED,
    LEFT_OUT,
    LEFT_OUT_SHORTER,
    NONE,
    PLACES,
    leaked,
)
from sftlab.exercises.ex22_data_quality_ablation.unseen import UNSEEN, unseen_pairs
from sftlab.exercises.record import runs
from sftlab.scoring import LABELLED, LETTERS, RUBRIC, agreement
from sftlab.statistics import chosen, mean_interval

GOOD, BAD, RIGHT = MAIN
SHORT = "not settled"  # in tables
Runs = Sequence[dict]


def shares(runs: Runs, line: str = "correct", per_kind: int = 20, **arm) -> np.ndarray:
    """Return the share of answers for which a rubric line holds: seeds × kinds of question."""
    return np.array([run[line] for run in chosen(runs, **arm)]) / per_kind


def effect(
    runs: Runs, first: Mapping, second: Mapping, line: str = "correct", per_kind: int = 20,
    kinds: Sequence[int] | None = None,
) -> Estimate:  # fmt: skip
    """Return second − first: paired by seed and kind, with an interval over both.

    Args:
        kinds: the positions of some kinds, to take these alone.
    """
    before, after = (shares(runs, line, per_kind, **arm) for arm in (first, second))
    found = after - before
    return crossed(found if kinds is None else found[:, kinds])


def places(kinds: Iterable[str]) -> list[int]:
    """Return the positions of some kinds among those of the questions."""
    return [place for place, kind in enumerate(kind_names()) if kind in set(kinds)]


@cache
def kinds_among(mediocre_too: bool = False) -> list[str]:
    """Return the kinds of question that the good or bad pairs of a seed have, or these and the mediocre ones."""
    found = {row["kind"] for seed in range(SEEDS) for row in good(seed, 500) + bad(seed)}
    shared = {row["kind"] for row in mediocre()} if mediocre_too else found
    return [kind for kind in kind_names() if kind in found & shared]


def can_move(runs: Runs) -> list[int]:
    """Return the kinds that 500 good pairs leave neither at the floor nor at the ceiling of exact answers."""
    return np.flatnonzero(np.abs(shares(runs, **arm(GOOD)).mean(0) - 0.5) < 0.48).tolist()


def why_bad(runs: Runs) -> str:
    """Return why 200 bad pairs change what they change."""
    found = effect(runs, arm(GOOD), arm(BAD))
    word = verdict(found, "rises", "falls", "stays open: a change is not settled here")
    reason = " The model imitates its pairs, and 200 of these 700 show faults in place of plain right answers." * (word == "falls")  # fmt: skip
    return f"The share of exact answers {word}.{reason}"


def why_filter(found: Mapping[str, float]) -> str:
    """Return what a filter finds and what passes it, defect by defect."""
    sides = [[n for n in UNSEEN if (found[n] > 0.5) == more] for more in (True, False)]
    passes = [n for n in DEFECTS if found[n] <= 0.5]
    some = [", ".join(names) or "none" for names in (*sides, passes)]
    return (
        f"More than half thrown out: {some[0]}. Half or less: {some[1]}; of the eight known defects: {some[2]}. "
        "A rule sees the form of a pair, whether its author had that defect in mind or not; it does not know whether a well-formed sentence is true."
    )


def quality(found: Sequence[dict], good_pairs: Sequence[dict], bad_pairs: Sequence[dict]) -> str:
    """Return precision and recall of a filter that left these pairs of good and bad ones."""
    good_out, bad_out = (sum(p not in found for p in some) for some in (good_pairs, bad_pairs))
    thrown = good_out + bad_out
    precision = f"{bad_out / thrown:.0%}" if thrown else "undefined"
    return (
        f"thrown out: {thrown} of {len(good_pairs) + len(bad_pairs)} pairs, {bad_out} of them bad: precision {precision}; "
        f"of {len(bad_pairs)} bad pairs: recall {bad_out / len(bad_pairs):.0%}"
    )


def why_right(runs: Runs) -> str:
    """Return what the unchanged score of 200 right pairs more can and can't say."""
    free = can_move(runs)
    found = effect(runs, arm(GOOD), arm(RIGHT), kinds=free)
    fewer = effect(runs, arm("100 good"), arm("100 good + 200 right"))
    words = ("a gain", "a loss")
    return (
        f"After 500 good pairs {len(kind_names()) - len(free)} of {len(kind_names())} kinds are at most 2 points from 0% or 100% "
        f"exact answers, and can hardly change. On the other {len(free)}: {told(found, *words)}. Beside 100 good pairs, "
        f"the same 200 right ones: {told(fewer, *words)}."
    )  # fmt: skip


def worded(found: Estimate) -> str:
    """Return an effect with its direction as text for a table."""
    return f"{points(found)}, {verdict(found, 'rises', 'falls', SHORT)}"


def arm(name: str, steps: int = STEPS) -> dict:
    """Return the settings of a main arm."""
    return {"arm": name, "steps": steps}


def spoilt(defect: str, bad: int = PLACES) -> dict:
    """Return the settings of an arm with one defect."""
    return {"defect": defect, "bad": bad}


CLEAN = spoilt(NONE, 0)


# --- the main arms ------------------------------------------------------------------------------


def comparisons(runs: Runs) -> dict[str, Estimate]:
    """Return the effects on exact answers that the three main arms allow, at equal steps and epochs."""
    found = {
        f"bad instead of right, {steps} steps": effect(runs, arm(RIGHT, steps), arm(BAD, steps))
        for steps in (STEPS, LONGER)
    }
    for steps in (STEPS, LONGER):
        for name, added in (("200 bad", BAD), ("the same 200, right", RIGHT)):
            even = " (equal epochs)" * (steps == LONGER)
            found[f"{name}, {steps} steps{even}, against none"] = effect(
                runs, arm(GOOD), arm(added, steps)
            )
    for name, added in (("200 bad", "bad"), ("the same 200, right", "right")):
        found[f"{name}, {STEPS} steps, beside 100 good"] = effect(
            runs, arm("100 good"), arm(f"100 good + 200 {added}")
        )
    return found


def in_points(
    found: Mapping[str, Estimate], title: str, words: bool = False, of: str = "exact answers",
    **options,
):  # fmt: skip
    """Draw effects in points, each with its interval; those that hold zero are grey diamonds.

    Args:
        words: whether the names say what is settled, too. of: what changes.
    """
    drawn = {
        f"{name}: {verdict(value, 'rises', 'falls', SHORT)}" if words else name: in_100(value)
        for name, value in found.items()
    }
    told = "; ".join(f"{name} {points(value)}" for name, value in found.items())
    return dots(
        drawn, title, f"{title}. Points with 95% intervals over seeds and kinds: {told}.",
        zero=True, fmt="+.1f", xlabel=f"{of}, change in points", **options,
    )  # fmt: skip


def main_figure(runs: Runs):
    """Draw what 200 pairs change, bad or right. “None” are the 500 good ones alone, after 120 steps."""
    return in_points(
        comparisons(runs), "What 200 pairs change, mostly beside 500 good ones", figsize=(9, 4.3)
    )


def amount_table(runs: Runs) -> pd.DataFrame:
    """Return exact answers for 100 and 500 good pairs, after few and many steps, and the differences."""
    few, many = (SHORTER, STEPS)
    rows = {
        name: {f"{steps} steps": f"{shares(runs, **arm(name, steps)).mean():.0%}" for steps in (few, many)}
        for name in ("100 good", GOOD)
    }  # fmt: skip
    rows["400 more pairs, equal steps"] = {
        f"{steps} steps": worded(effect(runs, arm("100 good", steps), arm(GOOD, steps)))
        for steps in (few, many)
    }
    rows["400 more pairs, equal epochs"] = {
        f"{many} steps": worded(effect(runs, arm("100 good", few), arm(GOOD, many)))
    }
    rows[f"{many - few} more steps, the same 100 pairs"] = {
        f"{many} steps": worded(effect(runs, arm("100 good", few), arm("100 good", many)))
    }
    return pd.DataFrame(rows).T.fillna("").rename_axis("exact answers")


def other_arms(runs: Runs) -> dict[str, Estimate]:
    """Return the effects of the further controls on exact answers, all at the same number of steps."""
    few, many, shared = arm("100 good"), arm("1,000 mediocre"), kinds_among(mediocre_too=True)
    return {
        "300 good + 200 bad, against 500 good": effect(runs, arm(GOOD), arm("300 good + 200 bad")),
        "100 good, against 1,000 mediocre": effect(runs, many, few),
        f"the same, on the {len(shared)} kinds in both": effect(runs, many, few, kinds=places(shared)),
        "on these, right content": effect(runs, many, few, "content", kinds=places(shared)),
    }  # fmt: skip


def lines_table(runs: Runs, real: Runs, per_kind: int) -> pd.DataFrame:
    """Return what bad instead of right answers change in every rubric line, on both models."""
    rows = {
        line.replace("_", " "): {
            "almanac": worded(effect(runs, arm(RIGHT), arm(BAD), line)),
            "SmolLM2": worded(effect(real, {"arm": RIGHT}, {"arm": BAD}, line, per_kind)),
        }
        for line in RUBRIC
    }
    return pd.DataFrame(rows).T.rename_axis("bad instead of right")


def real_in_words(real: Runs, per_kind: int) -> str:
    """Return what is settled on the real model, for exact answers and for their content."""
    words = [
        verdict(effect(real, {"arm": RIGHT}, {"arm": BAD}, line, per_kind), "higher", "lower")
        for line in ("correct", "content")
    ]
    seen = [f"{200 / 700 * n:.0f} of {n:,}" for n in (STEPS * BATCH, REAL_STEPS * REAL_BATCH)]
    return (
        f"SmolLM2, bad instead of right: exact answers {words[0]}, right content {words[1]}. The {len(RUBRIC)} lines are not corrected for their number.\n"
        f"Bad pairs among those seen in training, about: almanac {seen[0]}, SmolLM2 {seen[1]}."
    )


def better_or_more(runs: Runs) -> str:
    """Return the answer to the question of the title."""
    found = {
        "200 bad answers replaced by right ones": effect(runs, arm(BAD), arm(RIGHT)),
        "500 good pairs instead of 100": effect(runs, arm("100 good"), arm(GOOD)),
        "200 more right pairs beside 500": effect(runs, arm(GOOD), arm(RIGHT)),
        "200 more bad pairs beside 500": effect(runs, arm(GOOD), arm(BAD)),
    }
    parts = "; ".join(f"{name} {told(value)}" for name, value in found.items())
    return f"Better pairs or more pairs? Exact answers, {STEPS} steps: {parts}."


def agreement_table(labelled: Sequence[dict]) -> pd.DataFrame:
    """Return how often program and label agree, and how many answers the label fails, for each rubric line.

    Whether an answer ends is stored with it, so there is nothing to compare.
    """
    agreed = agreement(labelled, questions())
    failed = {
        line: sum(letter in row["fails"] for row in labelled) for letter, line in LETTERS.items()
    }
    rows = {
        line.replace("_", " "): {"agree": f"{share:.1%}", "failed, by the label": failed[line]}
        for line, share in agreed.items()
        if line != "stops"
    }
    return pd.DataFrame(rows).T.rename_axis(f"{len(labelled)} answers")


# --- one defect at a time -----------------------------------------------------------------------


def defect_effects(runs: Runs, line: str = "correct", bad: int = PLACES) -> dict[str, Estimate]:
    """Return what each defect changes in a rubric line against the same questions answered right."""
    return {d: effect(runs, CLEAN, spoilt(d, bad), line) for d in (*DEFECTS, LEFT_OUT, COPIES)}


def against_missing(runs: Runs, defect: str) -> dict[str, Estimate]:
    """Return what a hundred bad pairs change against none in their place, at equal steps and equal epochs."""
    missing = {"equal steps": LEFT_OUT, "equal epochs": LEFT_OUT_SHORTER}
    return {how: effect(runs, spoilt(m), spoilt(defect)) for how, m in missing.items()}


def ranked(found: Mapping[str, Estimate]) -> list[str]:
    """Return the defects whose loss is settled, the largest first."""
    return sorted(
        (d for d in found if d in DEFECTS and found[d][1][1] < 0), key=lambda d: found[d][0]
    )


def defect_grid(runs: Runs):
    """Draw defects by rubric lines: change in points, in brackets where the interval holds zero."""
    found = {line: defect_effects(runs, line) for line in RUBRIC}
    names = list(found["correct"])
    values = np.array([[100 * found[line][name][0] for line in RUBRIC] for name in names])
    limit = max(1.0, np.abs(values).max())

    def clear(row: int, column: int) -> bool:
        return settled(found[RUBRIC[column]][names[row]])

    texts = []
    for row, line in enumerate(values):
        shown = [f"{value:+.0f}".replace("-0", "0").replace("+0", "0") for value in line]
        texts.append([text if clear(row, k) else f"({text})" for k, text in enumerate(shown)])
    told = "; ".join(f"{name}: exact answers {points(found['correct'][name])}" for name in names)
    return grid(
        values, names, [line.replace("_", " ") for line in RUBRIC],
        f"{PLACES} of 300 pairs with one defect: change in points",
        f"Grid of changes, defects by rubric lines. {told}.",
        texts=texts, bold=clear, vmin=-limit, vmax=limit, cmap="PuOr", label="change (points)",
    )  # fmt: skip


def in_brief(found: Estimate) -> str:
    """Return an effect and its direction without the word for points."""
    return worded(found).replace(" points", "")


def kind_names() -> list[str]:
    """Return the kinds of question in the order of the counts."""
    return list(dict.fromkeys(question["kind"] for question in questions()))


def dose_table(runs: Runs) -> pd.DataFrame:
    """Return the change of exact answers for every defect and dose."""
    rows = {
        defect: {
            f"{bad} of 300": in_brief(effect(runs, CLEAN, spoilt(defect, bad)))
            for bad in DOSES[::-1]
            if chosen(runs, **spoilt(defect, bad))
        }
        for defect in (*DEFECTS, COPIES)
    }
    return pd.DataFrame(rows).T.fillna("").rename_axis("exact answers, points")


def dose_in_words(runs: Runs) -> str:
    """Return for how many defects each dose has a settled loss."""
    parts = []
    for dose in DOSES[::-1]:
        lost = ranked(defect_effects_of(runs, dose))
        parts.append(f"{dose} of 300: {len(lost)} of {len(DEFECTS)}" + f" ({', '.join(lost)})" * (0 < len(lost) < 4))  # fmt: skip
    return f"defects with a settled loss, at {'; '.join(parts)}"


def defect_effects_of(runs: Runs, dose: int) -> dict[str, Estimate]:
    """Return what each defect changes in exact answers at a dose."""
    return {defect: effect(runs, CLEAN, spoilt(defect, dose)) for defect in DEFECTS}


def bracketed(found: Estimate) -> str:
    """Return an effect without the word for points, in brackets where the interval holds zero."""
    text = points(found).replace(" points", "")
    return text if settled(found) else f"[{text}]"


def harm_table(runs: Runs) -> pd.DataFrame:
    """Return what the largest dose changes against missing pairs, and by kind of question.

    What is not settled stands in brackets.
    """
    on_facts, others = places(ASKED), places(set(kind_names()) - set(ASKED))
    rows = {
        defect: {
            **{
                f"against left out, {how}": bracketed(value)
                for how, value in against_missing(runs, defect).items()
            },
            "kinds on facts": bracketed(effect(runs, CLEAN, spoilt(defect), kinds=on_facts)),
            "other kinds": bracketed(effect(runs, CLEAN, spoilt(defect), kinds=others)),
        }
        for defect in (*DEFECTS, COPIES)
    }
    return pd.DataFrame(rows).T.rename_axis(f"{PLACES} of 300, points")


def leak_effects(runs: Runs, bad: int = PLACES) -> dict[str, Estimate]:
    """Return what leaked questions change: in the leaked ones, in all others, in the reported score.

    Leaked pairs are of all kinds and take the place of pairs on facts, which moves the others as well: the
    difference of the two is due to the leak. Every question weighs the same in all four. The interval of
    the difference is over seeds and kinds, the others' over seeds.
    """
    total = len(questions())

    def parts(run: dict) -> list[float]:
        leaked, every = run["may_leak"][:bad].count("1"), sum(run["correct"])
        return [leaked / bad, (every - leaked) / (total - bad), every / total]

    before, after = (
        np.array([parts(run) for run in chosen(runs, **a)]).T
        for a in (CLEAN, spoilt(LEAKED, bad))
    )  # fmt: skip
    names = ("leaked questions", "all other questions", "the reported score")
    found = {
        name: change(old.tolist(), new.tolist())
        for name, old, new in zip(names, before, after, strict=True)
    }
    return found | {"leaked − others": leak_alone(runs, bad)}


def leak_counts(runs: Runs, bad: int = PLACES) -> tuple[np.ndarray, np.ndarray]:
    """Return (seeds, leaked or others, kinds): the exact answers gained by the leak, and the questions."""
    names, asked = kind_names(), questions()
    both = [chosen(runs, **a) for a in (CLEAN, spoilt(LEAKED, bad))]
    gained = np.zeros((len(both[0]), 2, len(names)))
    number = np.zeros_like(gained)
    for sign, some in zip((-1, 1), both, strict=True):
        for n, run in enumerate(some):
            gained[n, 1] += sign * np.array(run["correct"])
            for place, mark in zip(leaked(run["seed"])[:bad], run["may_leak"], strict=False):
                gained[n, :, names.index(asked[place]["kind"])] += [
                    sign * int(mark), -sign * int(mark),
                ]  # fmt: skip
    for n, run in enumerate(both[1]):
        kinds = [asked[place]["kind"] for place in leaked(run["seed"])[:bad]]
        number[n, 0] = [kinds.count(name) for name in names]
    number[:, 1] = len(asked) / len(names) - number[:, 0]
    return gained, number


def leak_alone(runs: Runs, bad: int = PLACES, without: Iterable[str] = ()) -> Estimate:
    """Return what leaked questions gain over the others, by question, over seeds and kinds.

    Args:
        without: kinds to leave out.
    """
    kept = [k for k, name in enumerate(kind_names()) if name not in set(without)]
    gained, number = (some[:, :, kept] for some in leak_counts(runs, bad))
    seeds = gained.sum(2) / number.sum(2)
    gained, number = gained.sum(0), number.sum(0)  # all seeds together
    every = number.sum(1, keepdims=True)
    mean = gained.sum(1, keepdims=True) / every
    kinds = mean + len(kept) * (gained - mean * number) / every  # their mean is that over questions
    sides = [mean_interval(side) for side in (seeds[:, 0] - seeds[:, 1], kinds[0] - kinds[1])]
    middle, reach = (
        float(mean[0, 0] - mean[1, 0]),
        float(np.hypot(*[(b - a) / 2 for a, b in sides])),
    )
    return middle, (middle - reach, middle + reach)


def leak_by_kind(runs: Runs, bad: int = PLACES) -> dict[str, float]:
    """Return for every kind of question: what its leaked questions gain over its others, all seeds together."""
    gained, number = (some.sum(0) for some in leak_counts(runs, bad))
    gains = gained / np.maximum(number, 1)
    return {
        name: float(gains[0, k] - gains[1, k])
        for k, name in enumerate(kind_names())
        if number[0, k]
    }


def leak_table(runs: Runs) -> pd.DataFrame:
    """Return what 30 and 100 leaked questions change."""
    rows = {
        f"{bad} questions leaked": {
            name: worded(value) for name, value in leak_effects(runs, bad).items()
        }
        for bad in DOSES[1:]
    }
    return pd.DataFrame(rows).T


# --- filters ------------------------------------------------------------------------------------


def caught(keep: Callable[[list[dict]], Sequence[dict]], pairs: Sequence[dict]) -> float:
    """Return the share of the pairs that a filter throws out, given them together."""
    return 1 - len(keep(list(pairs))) / len(pairs)


def caught_table(found: Mapping[str, float]) -> pd.DataFrame:
    """Return the share thrown out for each defect, side by side for those that the filter's author knew or not."""
    groups = {
        "known to the author": [name for name in found if name in DEFECTS],
        "not known": [name for name in found if name in UNSEEN],
        "about other pairs, or none": [
            name for name in found if name not in DEFECTS and name not in UNSEEN
        ],
    }
    columns = {
        (group, what): pd.Series(values, dtype=object)
        for group, names in groups.items()
        for what, values in (("pairs", names), ("thrown out", [f"{found[n]:.0%}" for n in names]))
    }
    return pd.DataFrame(columns).fillna("")


def filter_effects(runs: Runs) -> dict[str, Estimate]:
    """Return what throwing pairs out changes in exact answers, by rules and by lot."""
    return {
        "by the filter": effect(runs, arm(BAD), arm("filtered")),
        "as many, at random": effect(runs, arm(BAD), arm("thinned by lot")),
        "filter, against random": effect(runs, arm("thinned by lot"), arm("filtered")),
        "filtered, against 500 good": effect(runs, arm(GOOD), arm("filtered")),
    }


def went_wrong(
    runs: Runs, defect: str, asked: Sequence[dict], count: int = 5, bad: int = PLACES
) -> list[list[str]]:
    """Return answers of seed 0 with the defect in the pairs that differ from those without it."""
    before, after = (chosen(runs, **a, seed=0)[0]["answers"] for a in (CLEAN, spoilt(defect, bad)))
    rows = [
        [q["prompt"], a, b] for q, a, b in zip(asked, before, after, strict=True) if a != b
    ]  # fmt: skip
    return rows[:count]


# --- what was found -----------------------------------------------------------------------------


def told(found: Estimate, more: str = "rises", less: str = "falls") -> str:
    """Return an effect with its direction as text."""
    return f"{points(found)}, {verdict(found, more, less)}"


def claims(runs: Runs, grid_runs: Runs, real: Runs, per_kind: int) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""
    bad = effect(runs, arm(RIGHT), arm(BAD))
    longer = effect(runs, arm(RIGHT, LONGER), arm(BAD, LONGER))
    smol = effect(real, {"arm": RIGHT}, {"arm": BAD}, "correct", per_kind)
    amount, few = (effect(runs, arm("100 good", n), arm(GOOD, n)) for n in (STEPS, SHORTER))
    steps = effect(runs, arm("100 good", SHORTER), arm("100 good"))
    order = ranked(defect_effects(grid_runs))
    worst = spoilt(order[0]) if order else CLEAN
    largest = effect(grid_runs, CLEAN, worst)
    following = (
        f"{order[0]}, against {order[1]}: {told(effect(grid_runs, spoilt(order[1]), worst))}"
        if len(order) > 1
        else "one loss alone is settled"
    )
    leak, by_kind = leak_effects(grid_runs), leak_by_kind(grid_runs)
    most = max(by_kind, key=lambda kind: by_kind[kind])
    asked = [questions()[place]["kind"] for seed in range(SEEDS) for place in leaked(seed)]
    by_rules, by_lot = (
        effect(runs, arm("thinned by lot"), arm("filtered")),
        effect(runs, arm(BAD), arm("thinned by lot")),
    )
    new = float(np.mean([caught(filter_pairs, pairs) for pairs in unseen_pairs().values()]))
    fall, seen = {"more": "rise", "less": "fall"}, kinds_among()
    hundred = arm("100 good")
    rows = [
        (
            f"200 of 700 answers spoilt, the questions unchanged: exact answers {verdict(bad, **fall)}",
            points(bad),
            f"the same 200 questions with right answers, against none: {told(effect(runs, arm(GOOD), arm(RIGHT)))}; "
            f"beside 100 good pairs, against none: right {told(effect(runs, hundred, arm('100 good + 200 right')))}, "
            f"bad {told(effect(runs, hundred, arm('100 good + 200 bad')))}",
            f"the {len(seen)} kinds that occur among the pairs: {told(effect(runs, arm(RIGHT), arm(BAD), kinds=places(seen)))}; "
            f"{LONGER} steps: {told(longer)}; SmolLM2, {REAL_STEPS * REAL_BATCH} pairs once, {len(chosen(real, arm=BAD))} seeds: {told(smol)}",
        ),
        (
            f"500 good pairs instead of 100, {STEPS} steps: exact answers {verdict(amount, **fall)}",
            points(amount),
            f"{SHORTER} steps: {told(few)}; the same 100 pairs, {STEPS} steps instead of {SHORTER}: {told(steps)}",
            "a base that knows the facts; the best number of steps for 100 pairs was not sought",
        ),
        (
            f"Settled losses for {len(order)} of {len(DEFECTS)} defects; largest estimate: {order[0] if order else OPEN}",
            points(largest) if order else "",
            "; ".join(
                f"against the 100 pairs left out, {how}: {told(value)}"
                for how, value in against_missing(grid_runs, order[0]).items()
            )
            if order
            else "",
            f"100 of 300 pairs, all on facts; {following}",
        ),
        (
            f"100 leaked questions: their score, compared with all other questions, {verdict(leak['leaked − others'], 'rises', 'falls')}",
            points(leak["leaked − others"]),
            f"leaked {points(leak['leaked questions'])}, others {points(leak['all other questions'])}",
            f"leaked word for word, in place of 100 facts; most in the kind {most}: {100 * by_kind[most]:+.0f} points on {asked.count(most)} questions; without this kind {told(leak_alone(grid_runs, without=[most]))}",
        ),
        (
            f"A filter by rules, on the {len(DEFECTS)} defects that it was written for, against throwing out as many pairs at random: exact answers {verdict(by_rules, **fall)}",
            points(by_rules),
            f"at random, against throwing out none: {told(by_lot)}",
            f"of {len(UNSEEN)} defects that its author had not seen, it finds {new:.0%} of the pairs",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])


def shown_questions(count: int = SHOWN) -> list[dict]:
    """Return the questions whose answers a record holds as text."""
    asked = questions()
    return asked[:: len(asked) // count]


__all__ = [
    "LABELLED", "UNSEEN", "Ballot", "agreement_table", "amount_table", "better_or_more", "caught", "caught_table", "claims", "comparisons",
    "defect_grid", "dose_in_words", "dose_table", "filter_effects", "harm_table", "in_100", "in_points", "leak_table", "lines_table", "main_figure",
    "np", "other_arms", "pd", "points", "quality", "read_jsonl", "real_in_words", "runs", "stats", "unseen_pairs", "verdict", "votes_path", "why_bad",
    "why_filter", "why_right",
]  # fmt: skip
