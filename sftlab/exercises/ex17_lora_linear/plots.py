"""Figures and tables of notebook 17. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import curves, dots, grid
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, percent, times, tuned, verdict
from sftlab.exercises.ex17_lora_linear.experiment import CUTS, LONG, RATES, RATES_B, STEPS, R
from sftlab.exercises.ex17_lora_linear.zoo import FACTORS, USED
from sftlab.statistics import chosen

Verdicts = Mapping[str, Mapping[str, Mapping[str, bool]]]  # kind -> class -> test -> accepted

SHOWN = 8  # directions of a trained ΔW that are recorded
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "At α = r the right factor is 1, and so is every formula that is 1 there. The test cannot tell them apart.",
    "b": "One call in eval mode shows what the layer computes now. It does not show how A and B started, what will be trained, which gradients reach their target, or what the next call does.",
    "c": "B's gradient is a sum over tokens, each a product of two vectors; where they agree, they add up in few directions. And each matrix gets its gradient through the other, so a direction that has grown in one may grow faster in the other.",
}  # fmt: skip


# --- tests of layers -------------------------------------------------------------------------


def refused(found: Verdicts, test: str, kind: str) -> int:
    """Return how many classes of a kind a test refuses."""
    return sum(not each[test] for each in found[kind].values())


def verdicts(found: Verdicts):
    """Draw which class each test accepts: a row for each class, a column for each test."""
    prefix = {"right": "right: ", "factor": "factor ", "others": ""}
    named = {
        prefix[kind] + name: each for kind, some in found.items() for name, each in some.items()
    }
    tests = list(next(iter(named.values())))
    values = [[float(each[test]) for test in tests] for each in named.values()]
    words = [["accepts" if value else "refuses" for value in row] for row in values]
    told = "; ".join(
        f"{test}: {', '.join(name for name, each in named.items() if each[test] and name[:6] != 'right:') or 'none'}"
        for test in tests
    )
    return grid(values, list(named), tests, "Which class each test accepts", f"A table of classes and tests. Wrong classes accepted by {told}.",
                texts=words, bold=lambda i, j: values[i][j] == 1, figsize=(8, 0.27 * len(named) + 0.8))  # fmt: skip


def counts(found: Verdicts) -> pd.DataFrame:
    """Return, by test, how many right classes are accepted and how many wrong ones refused.

    Of the last test, the student's, also which wrong ones it misses that its check does not know.
    """
    tests = list(next(iter(found["right"].values())))
    unseen = {
        name: each
        for kind in ("factor", "others")
        for name, each in found[kind].items()
        if name not in USED
    }
    rows = {}
    for test in tests:
        right = len(found["right"]) - refused(found, test, "right")
        missed = [name for name, each in unseen.items() if each[test]]
        rows[test] = {
            "right classes accepted": f"{right} of {len(found['right'])}",
            "wrong factors refused": f"{refused(found, test, 'factor')} of {len(found['factor'])}",
            "other mistakes refused": f"{refused(found, test, 'others')} of {len(found['others'])}",
            "unknown to the check of 17b": f"{len(unseen) - len(missed)} of {len(unseen)}"
            + (f"; missed: {', '.join(missed)}" if missed and test == tests[-1] else ""),
        }
    return pd.DataFrame(rows).T.rename_axis("test")


def coincide(alpha: float, r: int) -> list[str]:
    """Return the wrong factors that are right at this alpha and rank."""
    return [name for name, factor in FACTORS.items() if np.isclose(factor(alpha, r), alpha / r)]


def factors(alpha: float, r: int, alt: str):
    """The explorer's picture: the right factor as a line, and the wrong ones as dots."""
    found = {name: factor(alpha, r) for name, factor in FACTORS.items()}
    same = len(coincide(alpha, r))
    return dots({name: value or 0.01 for name, value in found.items()},
                f"α = {alpha:g}, r = {r}: {same} wrong factor{'s' * (same != 1)} of {len(FACTORS)} pass", alt,
                xscale="log", xlim=(0.008, 600), axvline={alpha / r: "α/r"}, xlabel="factor (0 is drawn at 0.01)")  # fmt: skip


# --- directions ------------------------------------------------------------------------------


def best(runs: Sequence[dict], r: int, only: str | None = None) -> list[dict]:
    """Return the runs of a rank at the learning rate with the lowest validation loss."""
    found = [run for run in chosen(runs, r=r) if "steps" not in run and run.get("only") == only]
    return tuned(found, lambda run: run["validation"])


def firsts(
    runs: Sequence[dict], r: int, which: str = "shares", only: str | None = None
) -> list[float]:
    """Return the share of the energy in the first direction by seed, trained or "shuffled"."""
    return [last(run, which)[0] for run in best(runs, r, only)]


def first(runs: Sequence[dict], r: int, which: str = "shares", only: str | None = None) -> Estimate:
    """Return the mean of ``firsts``."""
    return estimates.mean(firsts(runs, r, which, only))


def last(run: dict, which: str = "shares") -> list[float]:
    """Return a run's shares after its last step, or those of the "shuffled" matrices."""
    return run["shuffled"] if which == "shuffled" else run["shares"][max(run["shares"], key=int)]


def directions(runs: Sequence[dict]):
    """Draw the share of each direction, trained and shuffled, in one panel for each rank."""
    labels = {"shares": "trained", "shuffled": "same entries in random order"}
    names = {r: f"rank {r}" + f", first {SHOWN}" * (r > SHOWN) for r in RATES}
    found = {
        names[r]: {
            label: {
                k + 1: [last(run, which)[k] for run in best(runs, r)]
                for k in range(min(r, len(last(best(runs, r)[0]))))
            }
            for which, label in labels.items()
        }
        for r in RATES
    }
    told = "; ".join(
        f"{panel}, {label}: {np.mean(by[1]):.0%} in the first"
        for panel, series in found.items()
        for label, by in series.items()
    )
    return curves(found, "Share of ‖ΔW‖² in each singular direction", f"Falling curves. {told}.", panels=True, percent="y",
                  sharey=True, ylim=(0, None), xlabel="direction", figsize=(9, 3.4), ylabel="share of the energy",
                  each={name: {"xticks": range(1, min(r, SHOWN) + 1)} for r, name in names.items()})  # fmt: skip


def only_b(runs: Sequence[dict]) -> Estimate:
    """Return the change of the first direction's share if both matrices are trained, not B alone."""
    return estimates.change(firsts(runs, R, only="B"), firsts(runs, R))


def why_few(runs: Sequence[dict]) -> str:
    """Return the mechanism of 17.c, the share by step, and what the arm with B alone says about it."""
    share = f"Where only B is trained, the share is {percent(first(runs, R, only='B'))}"
    matters = (
        "A's movement matters. This arm cannot tell growth through the other matrix from A's own "
        "gradient, which may have few directions for the same reason as B's"
    )
    open_ = f": whether A's movement matters is {estimates.OPEN}"
    steps = {int(step) for run in best(runs, R) for step in run["shares"]}
    grows = ", ".join(f"{np.mean([r['shares'][str(s)][0] for r in best(runs, R)]):.0%} at step {s}" for s in sorted(steps))  # fmt: skip
    adam = f"Adam rescales every entry, so this explains the gradient and not the whole step. The share is {grows}."
    return f"{WHY['c']} {adam} {share}{verdict(only_b(runs), f', lower: {matters}', f', higher: {matters}', open_)}."


def longer(runs: Sequence[dict], r: int) -> list[dict]:
    """Return a rank's runs with more steps, at the learning rate with the lowest validation loss."""
    found = [run for run in chosen(runs, r=r) if run.get("steps") == LONG]
    return tuned(found, lambda run: run["validation"])


def loss(runs: Sequence[dict], r: int, how: str = "test", k: int = 0) -> list[float]:
    """Return the held-out loss of every seed, whole or with a part of each ΔW."""
    return [run[how][str(k)] if k else run[how] for run in best(runs, r)]


def energy(runs: Sequence[dict], r: int, k: int) -> Estimate:
    """Return the share of the energy in the first k directions."""
    return estimates.mean([sum(last(run)[:k]) for run in best(runs, r)])


def of_whole(runs: Sequence[dict], r: int, k: int, how: str = "top") -> Estimate:
    """Return the loss of rank r with a part of each ΔW, divided by that of all, paired by seed."""
    return estimates.ratio(loss(runs, r), loss(runs, r, how, k))


def trained_at(runs: Sequence[dict], k: int) -> dict[str, list[dict]]:
    """Return the runs of rank k by what it is trained for, and how its learning rate is chosen."""
    short = [run for run in chosen(runs, r=k) if not {"steps", "only"} & run.keys()]
    return {
        f"rank {k}, {STEPS} steps": best(runs, k),
        f"rank {k}, {STEPS} steps, learning rate chosen on the test": tuned(
            short, lambda run: run["test"]
        ),
        f"rank {k}, {LONG} steps": longer(runs, k),
    }


def cuts_table(runs: Sequence[dict], r: int = 32) -> pd.DataFrame:
    """Return what k of the directions of rank r hold and do; ratios divide by the loss of all."""
    rows = {}
    for k in CUTS:
        ratios = {how: times(of_whole(runs, r, k, how)) for how in ("top", "rest", "part", "short")}
        rows[k] = {
            "energy": percent(energy(runs, r, k)),
            "loss, the first k": ratios["top"],
            "all but these": ratios["rest"],
            "first k rows of A, columns of B": ratios["part"],
            "all, scaled down": ratios["short"],
        }
    return pd.DataFrame(rows).T.rename_axis("k")


def at_same_loss(runs: Sequence[dict]) -> str:
    """Return the first direction's share with both matrices trained, and with B alone, at about one loss."""

    def arm(rate: float, only: str | None = None) -> list[dict]:
        some = chosen(runs, r=R, learning_rate=rate)
        return [run for run in some if "steps" not in run and run.get("only") == only]

    def score(some: Sequence[dict]) -> float:
        return float(np.mean([run["test"] for run in some]))

    def share(some: Sequence[dict]) -> list[float]:
        return [last(run)[0] for run in some]

    def told(some: Sequence[dict]) -> str:
        return (
            f"{np.mean(share(some)):.0%} at {some[0]['learning_rate']:g} (loss {score(some):.3f})"
        )

    alone = best(runs, R, "B")
    both = min(map(arm, RATES[R]), key=lambda some: abs(np.log(score(some) / score(alone))))
    arms = [arm(rate, "B") for rate in RATES_B]
    close = [some for some in arms if abs(np.log(score(some) / score(both))) < 0.1] or [alone]
    most = max(close, key=lambda some: np.mean(share(some)))
    word = verdict(estimates.change(share(most), share(both)), "less", "more")
    return f"both {told(both)}, only B {', '.join(map(told, close))}, {word}"


def at_the_edge(runs: Sequence[dict]) -> str:
    """Return the arms whose best learning rate is the lowest or the highest that was tried."""
    arms = {f"rank {r}": best(runs, r)[0] for r in RATES}
    arms[f"rank 2, {LONG} steps"] = longer(runs, 2)[0]
    ends = [
        arm
        for arm, run in arms.items()
        if run["learning_rate"] in (RATES[run["r"]][0], RATES[run["r"]][-1])
    ]
    return "; ".join(ends) or "none"


# --- what was found --------------------------------------------------------------------------


def claims(
    runs: Sequence[dict], full: Estimate, found: Verdicts, apart: Mapping[str, float], wrong: float
) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the counts and intervals.

    Args:
        full: the first direction's share of the energy in the first eight of a full update.
        found: the verdicts of four tests, the first three by output, the last the student's.
        apart: setting -> largest relative difference from PEFT. wrong: the same of a wrong factor.
    """
    equal, other, third, whole = next(iter(found["right"].values()))
    factors, others, right = (len(found[kind]) for kind in ("factor", "others", "right"))

    def seen(test: str, kind: str) -> str:
        return f"{refused(found, test, kind)} of {len(found[kind])}"

    def accepted(test: str) -> str:
        return f"{right - refused(found, test, 'right')} of {right}"

    def said(ratio: Estimate) -> str:
        return f"{times(ratio)}, {verdict(ratio, 'higher', 'lower', neutral=1.0)}"

    fewer = refused(found, equal, "factor") < refused(found, other, "factor")
    missed = others - refused(found, third, "others")
    largest = max(apart.values())
    one, mixed = first(runs, R), first(runs, R, "shuffled")
    more = estimates.change(*(firsts(runs, R, which) for which in ("shuffled", "shares")))
    alone = only_b(runs)
    top, rest, part, short = (
        of_whole(runs, 32, 2, how) for how in ("top", "rest", "part", "short")
    )
    two = estimates.ratio(loss(runs, 32, "rest", 2), loss(runs, 32, "top", 2))
    as_trained = "; ".join(
        f"÷ {name}: {said(estimates.ratio([run['test'] for run in some], loss(runs, 32, 'top', 2)))}"
        for name, some in trained_at(runs, 2).items()
    )
    rows = [
        (
            f"With α = r a test refuses {'fewer' if fewer else 'no fewer'} wrong factors than with α ≠ r",
            f"{equal}: {seen(equal, 'factor')}; {other}: {seen(other, 'factor')}",
            f"right classes accepted by either: {accepted(equal)}, {accepted(other)}",
            f"α ≠ r alone is {'enough' if refused(found, other, 'factor') == factors else 'not enough'}: at {other} these pass: "
            + (", ".join(n for n, each in found["factor"].items() if each[other]) or "none")
            + f"; {third}: {seen(third, 'factor')}",
        ),
        (
            f"An output test misses {missed} of {others} mistakes outside the factor",
            f"{third}: {seen(third, 'others')} refused",
            f"{whole}: {seen(whole, 'others')}; right classes accepted: {accepted(whole)}",
            "mistakes that we thought of; none that shows in training mode alone, or needs 16 bits, a GPU or many layers",
        ),
        (
            f"The class {'equals' if largest < 1e-5 else 'differs from'} PEFT's layer in {len(apart)} settings",
            f"largest difference {'less than 1e-6' if largest < 1e-6 else format(largest, '.0e')} of the correction",
            f"factor α: {wrong:.1f}",
            "float32 on a CPU; outputs of one layer",
        ),
        (
            f"The first direction of ΔW at rank {R}: {verdict(more, 'more', 'less')} energy than in shuffled matrices",
            percent(one),
            f"shuffled: {percent(mixed)}; only B trained: {percent(first(runs, R, only='B'))}, {verdict(alone, 'less', 'more')}; at about the same loss: {at_same_loss(runs)}",
            f"rank 32: {percent(first(runs, 32))}; full fine-tuning, among its first 8 (07): {percent(full)}",
        ),
        (
            f"Rank 32: the loss with the 2 largest directions, compared with all but these, is {verdict(two, 'higher', 'lower', neutral=1.0)}",
            times(two),
            f"÷ the loss of the whole ΔW: these 2 {said(top)}; all but these 2 {said(rest)}; the first 2 rows of A, columns of B {said(part)}; all, scaled down {said(short)}",
            f"{STEPS} steps, facts that the base model had learned; rank 32 cut to 2 {as_trained} (rank 32 was not trained for {LONG}); learning rate the lowest or highest tried: {at_the_edge(runs)}",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])


def full_update(runs: Sequence[dict]) -> Estimate:
    """Return the first direction's share of the first eight of a full update, from notebook 07's runs."""
    whole = tuned(chosen(runs, method="full fine-tuning"), lambda run: run["validation"])
    return estimates.mean([run["top"]["1"]["energy"] / run["top"]["8"]["energy"] for run in whole])
