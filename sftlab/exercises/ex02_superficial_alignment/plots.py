"""Figures and tables of notebook 02, computed from the recorded runs."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from sftlab.classroom.figures import curves, dots, stacked
from sftlab.classroom.views import FONT, View, table, visible
from sftlab.exercises.estimates import Estimate, change, mean, percent, points
from sftlab.exercises.estimates import verdict as direction
from sftlab.exercises.ex02_superficial_alignment import real_model, token_roles
from sftlab.exercises.ex02_superficial_alignment.experiment import (
    ARMS,
    EQUAL_EPOCHS,
    FEW_STEPS,
    FRESH_SEEDS,
    REFUSALS,
    SEEDS,
    SIZES,
    STEPS,
    questions,
)
from sftlab.exercises.ex02_superficial_alignment.rank_shift import CLASSES, shift_class
from sftlab.exercises.ex02_superficial_alignment.unknown_facts import MOMENTS, readable
from sftlab.models import load
from sftlab.statistics import chosen

ALL_KINDS = ("facts", "skills", "never trained")  # the evaluation set apart from unknown names
NAMES = {
    "facts": "known facts",
    "skills": "skills",
    "never trained": "kinds in no pair",
    "single": "read in one fixed sentence",
    "absent": "in no document",
}
SAME_KINDS = ("capital", "maker", "number")  # the kinds that all three strata of facts have
# name -> the marks that count; see ``experiment.marks``
MEASURES = {"in the format": "a", "refused": "r", "in the format, any end": "ard", "right": "1"}
PANELS = {"in the format": "in the format", "right content": "right"}  # title -> measure
LOOKS = {
    CLASSES[0]: "background:rgba(128,128,128,.14);border-bottom:2px solid transparent;",
    CLASSES[1]: "background:rgba(230,159,0,.28);border-bottom:2px dashed #E69F00;",
    CLASSES[2]: "background:rgba(213,94,0,.30);border-bottom:2px solid #D55E00;font-weight:bold;",
}


# --- numbers ---------------------------------------------------------------------------------

# The mechanism behind the outcome of each prediction.
WHY = {
    "02.a": "One sentence from a capital letter to a period, then the end-of-turn token: this is the format of most pairs, so eight of them show it several times.",
    "02.b": "The refusal is an eighth of all that this model was trained on. In the larger sets it is one in twenty, so these runs don't separate the share of refusals from the number of pairs.",
}


def share(
    run: Mapping, measure: str, groups: Sequence[str] = ALL_KINDS, kinds: Sequence[str] = ()
) -> float:
    """Return the share of some questions on which a measure of ``MEASURES`` holds.

    ``groups``: of which groups; ``kinds``: and of these kinds only, if there are any.
    """
    marks = run["content" if measure == "right" else "format"]
    asked = questions() if len(marks) == len(questions()) else real_model.exam()
    some = [
        mark for mark, q in zip(marks, asked, strict=True)
        if q["group"] in groups and (not kinds or q["kind"] in kinds)
    ]  # fmt: skip
    return sum(mark in MEASURES[measure] for mark in some) / len(some)


def shares(
    runs: Sequence[dict], measure: str, groups: Sequence[str] = ALL_KINDS,
    seeds: Iterable[int] = range(SEEDS), kinds: Sequence[str] = (), **settings,
) -> list[float]:  # fmt: skip
    """Return one share per seed."""
    return [share(run, measure, groups, kinds) for run in cell(runs, seeds, **settings)]


def cell(runs: Sequence[dict], seeds: Iterable[int] = range(SEEDS), **settings) -> list[dict]:
    """Return the runs with these settings and seeds, sorted by seed."""
    return [run for run in chosen(runs, **settings) if run["seed"] in seeds]


def at(arm: str, pairs: int, steps: int = STEPS) -> dict:
    """Return the settings of one cell of the recorded runs; the base alone for 0 pairs."""
    return {"arm": arm, "pairs": pairs, "steps": steps} if pairs else {"arm": "answers", "pairs": 0}


def steps_recorded(pairs: int) -> list[int]:
    """Return the numbers of steps that were recorded with this many right answers."""
    few = [steps for arm, n, steps in FEW_STEPS if (arm, n) == ("answers", pairs)]
    return sorted({*few, EQUAL_EPOCHS[pairs], STEPS})


def best_steps(runs: Sequence[dict], pairs: int) -> int:
    """Return the number of steps with the most right content on questions of all kinds."""
    found = {
        s: np.mean(shares(runs, "right", **at("answers", pairs, s))) for s in steps_recorded(pairs)
    }
    return max(found, key=lambda steps: float(found[steps]))


def stratum_gap(runs: Sequence[dict], measure: str, pairs: int, other: str = "absent") -> Estimate:
    """Return by how much a measure is higher on known facts than on others of the same kinds."""
    both = [
        shares(runs, measure, (group,), kinds=SAME_KINDS, **at("answers", pairs))
        for group in (other, "facts")
    ]
    return change(*both)


def unshifted_role(run: Mapping, roles: str) -> float:
    """Return the share of a run's tokens with some of the ``token_roles.ROLES`` that have rank 1."""
    ranks = [
        rank
        for told, ranked in zip(run["roles"], run["ranks"], strict=True)
        for role, rank in zip(told, ranked, strict=True)
        if role in roles
    ]
    return sum(rank == 1 for rank in ranks) / len(ranks)


def role_change(runs: Sequence[dict], arm: str, roles: str) -> Estimate:
    """Return what an arm changes in the share of unshifted tokens of some roles, against answers."""
    arms = [
        [unshifted_role(run, roles) for run in chosen(runs, arm=name)] for name in ("answers", arm)
    ]
    return change(*arms)


def marked(runs: Sequence[dict], arm: str, line: str) -> list[float]:
    """Return one share per seed of ``right`` or ``true`` replies of an arm of ``token_roles``."""
    return [run[line].count("1") / len(run[line]) for run in chosen(runs, arm=arm)]


def refusal_change(runs: Sequence[dict], measure: str) -> Estimate:
    """Return what one refusal among eight pairs changes on known facts, over the fresh seeds."""
    arms = [shares(runs, measure, ("facts",), FRESH_SEEDS, **at(arm, 8)) for arm in ARMS[:2]]
    return change(*arms)


def unshifted(ranks: Sequence[Sequence[int]], end_of_turn: bool = True) -> float:
    """Return the share of tokens with rank 1, with or without each reply's end-of-turn token."""
    tokens = [r for reply in ranks for r in (reply if end_of_turn else reply[:-1])]
    return sum(rank == 1 for rank in tokens) / len(tokens)


def clustered(ranks: Sequence[Sequence[int]], name: str, end_of_turn: bool = True) -> Estimate:
    """Return the share of tokens in a class of ``CLASSES``, with a 95% bootstrap over replies.

    Tokens of one reply are not independent, so whole replies are resampled.
    """
    replies = [reply if end_of_turn else reply[:-1] for reply in ranks]
    counts = np.array([sum(shift_class(r) == name for r in reply) for reply in replies])
    lengths = np.array([len(reply) for reply in replies])
    found = stats.bootstrap(
        (counts, lengths), lambda c, n, axis: c.sum(axis) / n.sum(axis), paired=True,
        n_resamples=2000, method="percentile", vectorized=True, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(counts.sum() / lengths.sum()), (float(found.low), float(found.high))


# --- words that follow the numbers -----------------------------------------------------------


def small(found: Estimate, bound: float = 0.05) -> str:
    """Return that a difference is small if its whole interval is within ± ``bound``, otherwise ""."""
    low, high = found[1]
    return f"changes by less than {100 * bound:g} points" if -bound < low <= high < bound else ""


# --- figures ---------------------------------------------------------------------------------


def _alt(found: Mapping[str, Mapping[str, Mapping]], xs: Sequence) -> str:
    return "; ".join(
        f"{panel}, {name}: " + ", ".join(f"{x}: {v[0]:.0%}" for x, v in zip(xs, line.values(), strict=False))
        for panel, lines in found.items() for name, line in lines.items()
    )  # fmt: skip


def dose(runs: Sequence[dict]):
    """Plot format and content over the number of pairs, for the three arms, at equal steps."""
    found = {
        panel: {arm: {k: mean(shares(runs, measure, **at(arm, n))) for k, n in enumerate(SIZES)} for arm in ARMS}
        for panel, measure in PANELS.items()
    }  # fmt: skip
    return curves(
        found, f"Replies over the number of training pairs, {STEPS} steps each",
        f"Two panels over the number of pairs, 520 questions of all kinds. {_alt(found, SIZES)}.",
        panels=True, sharey=True, percent="y", ylim=(-0.04, 1.06), xticks=range(len(SIZES)), xticklabels=SIZES,
        xlabel="training pairs", ylabel="share of the questions", figsize=(9.2, 3.6),
    )  # fmt: skip


def by_group(runs: Sequence[dict]):
    """Plot format and content over the number of pairs, for the groups of questions."""
    found = {
        panel: {name: {k: mean(shares(runs, measure, (group,), **at("answers", n))) for k, n in enumerate(SIZES)}
                for group, name in NAMES.items()}
        for panel, measure in PANELS.items()
    }  # fmt: skip
    return curves(
        found, "The arm without refusals, by group of questions",
        f"Two panels over the number of pairs. {_alt(found, SIZES)}.",
        panels=True, sharey=True, percent="y", ylim=(-0.04, 1.06), xticks=range(len(SIZES)), xticklabels=SIZES,
        xlabel="training pairs", ylabel="share of the questions", figsize=(9.2, 3.8),
    )  # fmt: skip


def over_steps(runs: Sequence[dict]):
    """Plot what is there after how many steps, on known facts, with 8 and with 128 pairs."""
    lines = {"right content": "right", "sentence, any end": "in the format, any end",
             "in the format, ended": "in the format"}  # fmt: skip
    found = {
        f"{pairs} pairs": {
            name: {s: mean(shares(runs, measure, ("facts",), **at("answers", pairs, s))) for s in steps_recorded(pairs)}
            for name, measure in lines.items()
        }
        for pairs in (8, 128)
    }  # fmt: skip
    told = "; ".join(
        f"{panel}, {name}: " + ", ".join(f"{s} steps {v[0]:.0%}" for s, v in line.items())
        for panel, some in found.items() for name, line in some.items()
    )  # fmt: skip
    steps = steps_recorded(128)
    return curves(
        found, "Known facts: format and content over the training steps",
        f"Two panels over training steps. {told}.", panels=True, sharey=True, percent="y", ylim=(-0.04, 1.06),
        xscale="log", xticks=steps, xticklabels=steps, xlabel="training steps", ylabel="share of the questions",
        figsize=(9.2, 3.6),
    )  # fmt: skip


def by_place(ranks: Sequence[Sequence[int]], title: str):
    """Plot the classes of tokens by their place in the reply. ``ranks``: one list per reply."""
    places = {
        "all tokens": [r for reply in ranks for r in reply],
        "without end-of-turn": [r for reply in ranks for r in reply[:-1]],
        "first token": [reply[0] for reply in ranks],
        "later tokens": [r for reply in ranks for r in reply[1:-1]],
        "end-of-turn token": [reply[-1] for reply in ranks],
    }
    found = {
        f"{name} ({len(some)})": {c: sum(shift_class(r) == c for r in some) / max(1, len(some)) for c in CLASSES}
        for name, some in places.items()
    }  # fmt: skip
    told = "; ".join(f"{name}: " + ", ".join(f"{c} {v:.0%}" for c, v in parts.items()) for name, parts in found.items())  # fmt: skip
    return stacked(found, title, f"Stacked bars, classes of tokens by place. {told}.", inside=".0%", percent="x",
                   xlabel="share of the tokens")  # fmt: skip


def by_role(runs: Sequence[dict]):
    """Plot, for the three arms of ``token_roles``, right content beside the shares of unshifted tokens."""
    names = {
        "SsVvo": "unshifted: all tokens",
        "S": "… subject, first token",
        "V": "… value, first token",
    }
    found = {"right content": {arm: marked(runs, arm, "right") for arm in token_roles.ARMS}}
    for roles, name in names.items():
        found[name] = {
            arm: [unshifted_role(run, roles) for run in chosen(runs, arm=arm)]
            for arm in token_roles.ARMS
        }
    told = "; ".join(
        f"{panel}: " + ", ".join(f"{row} {np.mean(v):.0%}" for row, v in rows.items())
        for panel, rows in found.items()
    )
    return dots(
        found,
        f"{token_roles.PAIRS} pairs in three arms; one dot per seed, without end-of-turn tokens",
        f"Four panels of dots, one per seed. Means: {told}.",
        panels=True,
        fmt=".0%",
        percent="x",
        xlim=(-0.04, 1.25),
        xticks=[0, 0.5, 1],
        xlabel="share",
        figsize=(10.4, 2.6),
    )


def memorised(runs: Sequence[dict]):
    """Plot right content over the steps of two trainings: on 29 known facts, on 29 never read.

    A line shows the ceiling: the share of the 29 absent answers all of whose tokens the base has read.
    """
    can = readable(*load("almanac"))
    ceiling = sum(can) / len(can)
    arms = {"known": "29 known facts among the pairs", "absent": "29 facts in no document"}
    exams = {"trained": "the 29 facts themselves", "held out": "known facts of no pair"}
    found: dict[str, dict[str, dict]] = {}
    for exam, panel in exams.items():
        for arm, name in arms.items():
            each = np.array([run[f"{exam}, content"] for run in chosen(runs, arm=arm)]).T
            line = {k: mean(list(v)) for k, v in zip(MOMENTS, each, strict=True)}
            found.setdefault(panel, {})[name] = line
    return curves(
        found, "SFT on facts: right content over the training steps",
        f"Two panels over training steps. {_alt(found, MOMENTS)}. A line at {ceiling:.0%}: the absent facts whose "
        "answers consist of tokens that the base has read.",
        panels=True, sharey=True, percent="y", ylim=(-0.04, 1.06), xscale="log", xticks=MOMENTS,
        each={exams["trained"]: {"axhline": {ceiling: ""}}}, xlabel="training steps", ylabel="right content",
        figsize=(9.2, 3.6),
    )  # fmt: skip


# --- tables ----------------------------------------------------------------------------------


def live_table(scores: Mapping[str, Sequence[Mapping[str, bool]]]) -> pd.DataFrame:
    """Return the share of replies on which each measure holds. ``scores``: arm -> one per reply."""
    means = {arm: pd.DataFrame(some).mean() for arm, some in scores.items()}
    return pd.DataFrame(means).map("{:.0%}".format).T


def rank_table(ranks: Mapping[str, Mapping[str, Sequence[int]]]) -> pd.DataFrame:
    """Return the shares of unshifted and shifted tokens with intervals over replies, by arm.

    ``ranks``: arm -> question -> ranks of the reply's tokens, the end-of-turn token last.
    """
    rows = [
        {"arm": arm, "end-of-turn tokens": "with" if end else "without", **{
            name: percent(clustered(list(found.values()), name, end)) for name in (CLASSES[0], CLASSES[2])
        }}
        for arm, found in ranks.items() for end in (True, False)
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("arm")


def gemma_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return format, endings and content of the recorded runs of notebook 13 on Gemma 3 270M."""
    names = {"format": "in the format", "stops": "ended", "content": "right content"}
    rows = {
        run["count"]: {
            name: f"{run[line].count('1') / len(run[line]):.0%}" for line, name in names.items()
        }
        for run in runs
    }
    return pd.DataFrame(rows).T.rename_axis("pairs")


def refusal_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return what one refusal in twenty pairs (at least one) changes, by the number of pairs.

    8 pairs have two lines: the seeds of the other lines, and ten fresh ones.
    """
    rows = []
    for n, seeds in [(8, range(SEEDS)), (8, FRESH_SEEDS), *((n, range(SEEDS)) for n in SIZES[2:])]:
        known, names = (
            [shares(runs, "refused", (group,), seeds, **at(arm, n)) for arm in ARMS[:2]]
            for group in ("facts", "unknown")
        )
        right = [shares(runs, "right", ("facts",), seeds, **at(arm, n)) for arm in ARMS[:2]]
        rows.append({
            "pairs": n, "seeds": f"{seeds[0]} to {seeds[-1]}", "refusals among them": max(1, round(REFUSALS * n)),
            "known facts refused": percent(mean(known[1])), "unknown names refused": percent(mean(names[1])),
            "known facts right, change": points(change(*right)),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("pairs")


def epochs_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return format and content at equal steps and at equal epochs, on questions of all kinds."""
    rows = []
    for n, few in EQUAL_EPOCHS.items():
        for steps in (few, STEPS):
            some = at("answers", n, steps)
            rows.append({
                "pairs": n, "steps": steps, "in the format": percent(mean(shares(runs, "in the format", **some))),
                "right content": percent(mean(shares(runs, "right", **some))),
            })  # fmt: skip
    return pd.DataFrame(rows).set_index("pairs")


def absent_table(runs: Sequence[dict], can: Sequence[bool] = ()) -> pd.DataFrame:
    """Return what becomes of absent facts whose answers the base can and can't have read.

    Also what training on absent facts changes for known facts of no pair, and for rewordings.
    ``can``: which answers can be read; by default those of the embedded base.
    """
    can = can or readable(*load("almanac"))
    last = [run["marks"] for run in chosen(runs, arm="absent")]
    rows = {}
    for name, wanted in (("all tokens read in pretraining", True), ("a token never read", False)):
        each = [
            np.mean([mark == "1" for mark, c in zip(marks, can, strict=True) if c == wanted])
            for marks in last
        ]
        rows[f"right after {MOMENTS[-1]} steps: {name} ({sum(c == wanted for c in can)} facts)"] = (
            percent(mean(each))
        )
    for exam, name in (
        ("held out", "known facts of no pair"),
        ("reworded", "the 29, in other words"),
    ):
        arms = [
            [r[f"{exam}, content"][-1] for r in chosen(runs, arm=arm)]
            for arm in ("known", "absent")
        ]
        rows[f"{name}: absent − known"] = points(change(*arms))
    return pd.DataFrame({"measured (95% over seeds)": rows})


def real_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the dose curve of SmolLM2-135M-Instruct, three seeds."""
    cells = [("answers", n) for n in real_model.SIZES] + [("shuffled", real_model.SIZES[-1])]
    rows = []
    for arm, n in cells:
        some: dict = {"arm": arm, "pairs": n}
        ranks = [unshifted(r["ranks"], False) for r in chosen(runs, **some) if r.get("ranks")]
        rows.append({
            "arm": arm, "pairs": n, "in the format": percent(mean(shares(runs, "in the format", **some))),
            "right content": percent(mean(shares(runs, "right", **some))),
            "unshifted (without end-of-turn)": percent(mean(ranks)) if ranks else "–",
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("arm")


def strata_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return format and content by what the base has read of a fact, for the same three kinds."""
    rows = [
        {"pairs": n, "facts": NAMES[group], **{
            name: percent(mean(shares(runs, measure, (group,), kinds=SAME_KINDS, **at("answers", n))))
            for name, measure in {"in the format": "in the format", "right content": "right"}.items()
        }}
        for n in (8, 500) for group in ("facts", "single", "absent")
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("pairs")


def true_elsewhere(runs: Sequence[dict]) -> str:
    """Return in a sentence what the replies say after training on shuffled answers."""
    right, true = (mean(marked(runs, "shuffled", line)) for line in ("right", "true"))
    return (
        f"After 128 shuffled pairs, {right[0]:.0%} of the replies have the right content, and {true[0]:.0%} are true "
        "sentences about the subject that they name. The model names a wrong subject more often than a wrong value."
        if true[0] > 0.5 > right[0]
        else f"After 128 shuffled pairs, {right[0]:.0%} of the replies are right, and {true[0]:.0%} are true sentences."
    )


def found(runs: Sequence[dict], real: Sequence[dict], tokens: Sequence[dict]) -> pd.DataFrame:
    """Return the claims, their numbers, their controls and where they stop; words follow the numbers.

    ``runs``: of ``experiment``; ``real``: of ``real_model``; ``tokens``: of ``token_roles``.
    """

    def get(measure: str, n: int, arm: str = "answers", groups=ALL_KINDS, steps: int = STEPS):
        return shares(runs, measure, groups, **at(arm, n, steps))

    known = ("facts",)
    gap, looks = (stratum_gap(runs, m, 8) for m in ("right", "in the format"))
    single = mean(shares(runs, "right", ("single",), **at("answers", 8)))
    best = best_steps(runs, 8)
    form, facts = (change(get(m, 8, steps=best), get(m, 500)) for m in ("in the format", "right"))
    skills = change(
        get("right", 8, groups=("skills",), steps=best), get("right", 500, groups=("skills",))
    )
    plain = change(get("right", 8, groups=known, steps=best), get("right", 500, groups=known))
    later = [
        change(*(shares(real, measure, arm="answers", pairs=n) for n in (8, 128)))
        for measure in ("in the format", "right")
    ]
    shuffling = [chosen(real, arm=arm, pairs=128) for arm in ("answers", "shuffled")]
    smol_ruined = change(*([share(run, "right") for run in some] for some in shuffling))
    smol_tokens = change(*([unshifted(run["ranks"], False) for run in some] for some in shuffling))
    early = get("right", 128, groups=known, steps=8)
    first = change(get("in the format", 128, groups=known, steps=8), early)
    any_end = change(get("in the format, any end", 128, groups=known, steps=8), early)
    late = change(get("in the format", 128, groups=known), get("right", 128, groups=known))
    refused, lost = (refusal_change(runs, measure) for measure in ("refused", "right"))
    late_refused = change(
        get("refused", 500, groups=known), get("refused", 500, "with refusals", known)
    )
    all_tokens, value = (
        role_change(tokens, "shuffled", "SsVvo"),
        role_change(tokens, "wrong values", "V"),
    )
    ruined = change(marked(tokens, "answers", "right"), marked(tokens, "shuffled", "right"))
    soon = change(*(get("right", 128, arm, known, steps=16) for arm in ("answers", "shuffled")))
    rows = [
        (
            "Tuned on 8 pairs, the model answers known facts "
            + direction(gap, "more often than", "less often than", "more or less often than (not settled)")
            + " facts in no document",
            f"right content: known − absent {points(gap)}",
            f"the same models and kinds of question; in the format: {points(looks)}",
            f"facts read in one fixed sentence only: {percent(single)} right",
        ),
        (
            f"From 8 to 500 pairs, format {direction(form, 'improves', 'gets worse', 'change not settled')} and "
            f"content {direction(facts, 'improves', 'gets worse', 'change not settled')}",
            f"format {points(form)}, content {points(facts)}; content of skills {points(skills)}",
            f"8 pairs at their best number of steps ({best}{', the most that was tried' if best == max(steps_recorded(8)) else ''})",
            f"without the skills: facts, content {points(plain)}; SmolLM2, 8 to 128 pairs: format {points(later[0])}, content {points(later[1])}",
        ),
        (
            "After 8 steps on 128 pairs, right content is "
            + direction(first, "ahead of the format", "behind the format", "not settled against the format")
            + "; if any end counts, it is "
            + direction(any_end, "ahead of the format", "behind the format", "not settled against the format"),
            f"content − format on known facts {points(first)}; with any end {points(any_end)}",
            "the same replies, scored with and without the end-of-turn token",
            f"after {STEPS} steps: content − format {points(late)}",
        ),
        (
            "One refusal among 8 pairs: refusals of known facts " + direction(refused, "rise", "fall", "not settled here"),
            f"refused {points(refused)}, right content {points(lost)}, {len(FRESH_SEEDS)} fresh seeds",
            "the same pairs, one answer in place of the refusal (12.5%)",
            f"5% refusals among 500 pairs: refused {points(late_refused)}",
        ),
        (
            f"Shuffled answers: right content {small(ruined) or direction(ruined, 'rises', 'falls')}, the share of "
            f"unshifted tokens {small(all_tokens) or direction(all_tokens, 'rises', 'falls')}; with wrong values, the "
            f"share of unshifted values {small(value) or direction(value, 'rises', 'falls')}",
            f"content {points(ruined)}, after 16 steps already {points(soon)}; all tokens {points(all_tokens)}; first token "
            f"of the value {points(value)}",
            "three arms with the same prompts and formats",
            f"SmolLM2, shuffled: content {points(smol_ruined)}, all tokens {points(smol_tokens)}",
        ),
    ]  # fmt: skip
    names = ["claim", "measured (95% over seeds)", "control", "where it stops"]
    return pd.DataFrame(rows, columns=names).set_index("claim")


def findings(runs: Sequence[dict], real: Sequence[dict], tokens: Sequence[dict]) -> View:
    """Return the table of ``found`` in full: pandas would cut its sentences off."""
    whole = found(runs, real, tokens).reset_index()
    return table(whole.to_numpy().tolist(), list(whole.columns))


# --- views of the explorer -------------------------------------------------------------------


def n_table(runs: Sequence[dict], arm: str, pairs: int) -> View:
    """Return every group at one n in one arm: format, content and refusals, over the seeds."""
    some = at(arm, pairs)
    rows = [
        [name, *(f"{np.mean(shares(runs, m, (group,), **some)):.0%}" for m in ("in the format", "right", "refused"))]
        for group, name in {**NAMES, "unknown": "unknown names"}.items()
    ]  # fmt: skip
    heads = ["questions", "answered in the format", "right content", "refused"]
    return table(
        rows, heads, f"{arm}, n = {pairs}, means over {len(cell(runs, **some))} seeds (the base alone is one run)"
    )  # fmt: skip


def rank_view(words: Sequence[str], ranks: Sequence[int], note: str, marked: int = -1) -> View:
    """Return the tuned model's tokens, the shifted ones colored; pointing at one shows its rank."""
    spans = []
    for place, (word, rank) in enumerate(zip(words, ranks, strict=True)):
        frame = "outline:2px solid currentColor;" if place == marked else ""
        spans.append(
            f'<span title="rank {rank} under the base" style="{LOOKS[shift_class(rank)]}{frame}padding:1px 3px;margin:1px;'
            f'border-radius:3px;display:inline-block;{FONT}">{html.escape(visible(word))}</span>'
        )
    text = " ".join(f"{visible(w)}({r})" for w, r in zip(words, ranks, strict=True))
    legend = " · ".join(
        f'<span style="{LOOKS[name]}padding:1px 6px">{name}</span> {told}'
        for name, told in zip(CLASSES, ("rank 1", "rank 2 or 3", "beyond"), strict=True)
    )
    return View(
        f'<p style="margin:.3em 0"><b>{html.escape(note)}</b></p><div style="line-height:2">{"".join(spans)}</div>'
        f'<div style="margin:.4em 0">{legend}</div>',
        f"{note} (rank under the base in brackets)\n{text}",
    )
