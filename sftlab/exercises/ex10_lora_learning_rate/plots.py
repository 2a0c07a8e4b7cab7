"""Figures and tables of notebook 10: learning rates of full fine-tuning and LoRA. Their words follow the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product

import numpy as np
import pandas as pd
import torch
from scipy.stats import gmean

from sftlab.classroom.figures import curves
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, times, verdict
from sftlab.exercises.sweeps import Sweep, over_grids
from sftlab.exercises.trade_off import FULL, LORA, STRONG
from sftlab.statistics import best_rate, chosen, rate_ratio

LOST = 0.05  # nats on base documents at which equal forgetting is compared
DOCUMENTS = ("test_documents", "validation_documents")
RATE, MOVED, EQUAL = "learning rate", "‖ΔW‖/‖W‖", "learning rate, W equally far"
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "c": "α multiplies every step of W. If the first steps decided, the ratio would be 0.25. If A moved much further than its start, ΔW would grow with α times the learning rate squared: 0.5. At 0.0032, near LoRA's best, A has moved by about half its length after the 12 steps above: neither little nor much. So the ratio alone does not say which of the two acts.",
}  # fmt: skip


def sweeps(runs: Sequence[dict], method: str, name: str = "validation") -> list[Sweep]:
    """Return learning rate -> a measurement after the last step, one dictionary per seed."""
    found: dict[int, Sweep] = {}
    for run in chosen(runs, method=method):
        found.setdefault(run["seed"], {})[run["learning_rate"]] = run[name][-1]
    return [dict(sorted(found[seed].items())) for seed in sorted(found)]


def ratio(runs: Sequence[dict], one: str = LORA, other: str = FULL) -> Estimate:
    """Return one method's best learning rate over another's, by the validation loss.

    The interval reaches to the outer ends of two: over the seeds alone, and over seeds and grids drawn. A
    bootstrap of few seeds cannot pass the most extreme one.
    """
    return outer(sweeps(runs, other), sweeps(runs, one))


def outer(first: list[Sweep], second: list[Sweep]) -> Estimate:
    """Return the ratio of the best learning rates with the outer ends of both intervals."""
    value, alone = rate_ratio(first, second)
    drawn = over_grids(first, second)[1]
    return value, (min(alone[0], drawn[0]), max(alone[1], drawn[1]))


def inside(runs: Sequence[dict]) -> Estimate | None:
    """Return the ratio, or None if a seed's lowest loss is at the end of its grid."""
    try:
        return ratio(runs)
    except ValueError:
        return None


def grid_best(runs: Sequence[dict], method: str) -> float:
    """Return the learning rate of the grid with the lowest mean log loss on the validation questions."""
    found = sweeps(runs, method)
    return min(found[0], key=lambda rate: np.mean([math.log(sweep[rate]) for sweep in found]))


def loss_at(runs: Sequence[dict], method: str, rate: float) -> list[float]:
    """Return the loss on the test questions at a learning rate, of every seed."""
    return [sweep[rate] for sweep in sweeps(runs, method, "test")]


def exact_at(runs: Sequence[dict], method: str, rate: float) -> list[float]:
    """Return the share of test questions answered exactly after the last step, of every seed."""
    return [sweep[rate] for sweep in sweeps(runs, method, "exact")]


def exact_told(runs: Sequence[dict]) -> str:
    """Return both methods' shares of exact answers, each at its best learning rate, as text."""
    if not all("exact" in run for run in runs if run["method"] in (FULL, LORA)):
        return ""
    full, lora = (exact_at(runs, m, grid_best(runs, m)) for m in (FULL, LORA))
    apart = estimates.points(estimates.change(full, lora))
    return f"; exact answers, LoRA against full: {np.mean(lora):.1%} against {np.mean(full):.1%}, {apart}"


def at_largest(runs: Sequence[dict], where: str) -> str:
    """Return where LoRA's validation loss ends at its largest learning rate, and whether above its start."""
    rate = max(run["learning_rate"] for run in chosen(runs, method=LORA))
    some = chosen(runs, method=LORA, learning_rate=rate)
    first, last = (np.mean([run["validation"][k] for run in some]) for k in (0, -1))
    worse = sum(run["validation"][-1] > run["validation"][0] for run in some)
    return (
        f"{where}: LoRA at {rate:g}, its largest learning rate, goes from {first:.2f} to {last:.2f}. "
        f"Worse than at the start: {worse} of {len(some)} seeds."
    )


def reused(runs: Sequence[dict]) -> Estimate:
    """Return LoRA's loss on the test questions at full fine-tuning's learning rate, over full's at its best."""
    return estimates.ratio(
        loss_at(runs, FULL, grid_best(runs, FULL)), loss_at(runs, LORA, near(runs))
    )


def distances(runs: Sequence[dict], full: float, lora: float) -> Estimate:
    """Return LoRA's ‖ΔW‖/‖W‖ after the last step over full fine-tuning's, at a learning rate of each."""
    by = {m: sweeps(runs, m, "moved") for m in (FULL, LORA)}
    return estimates.ratio([s[full] for s in by[FULL]], [s[lora] for s in by[LORA]])


def why_reused(runs: Sequence[dict]) -> str:
    """Return why the loss at full fine-tuning's learning rate comes out as it does."""
    full = grid_best(runs, FULL)
    reached, best = (distances(runs, full, rate) for rate in (near(runs), grid_best(runs, LORA)))
    again, own = reused(runs), tuned(runs)
    return (
        "In the first step AdamW moves every trained entry by about the learning rate. In LoRA these are "
        "entries of B, and W moves by less. After the last step LoRA has moved W "
        f"{times(reached)} as far, with ×{again[0]:.2f} the loss; at its best learning rate, "
        f"{times(best)} as far, with ×{own[0]:.2f} the loss. "
        + (alone(best) if verdict(own, "more", "less", neutral=1.0) == estimates.OPEN else "")
    )


def alone(distance: Estimate) -> str:
    """Return whether how far W has moved can decide a result that is the same for both methods."""
    can = verdict(distance, "does not", "does not", "may or may not", neutral=1.0)
    return f"So the distance of W alone {can} decide."


def near(runs: Sequence[dict]) -> float:
    """Return the learning rate of LoRA's grid that is nearest to full fine-tuning's best one."""
    best = grid_best(runs, FULL)
    return min(sweeps(runs, LORA)[0], key=lambda rate: abs(math.log(rate / best)))


def tuned(runs: Sequence[dict]) -> Estimate:
    """Return LoRA's loss on the test questions over full fine-tuning's, each at its best learning rate."""
    return estimates.ratio(*(loss_at(runs, m, grid_best(runs, m)) for m in (FULL, LORA)))


def rises(runs: Sequence[dict], method: str, rate: float) -> list[float]:
    """Return the rise of the loss on base documents after the last step, of every seed."""
    before = chosen(runs, method=method)[0]["test_documents"][0]
    return [sweep[rate] - before for sweep in sweeps(runs, method, "test_documents")]


def runner_up(runs: Sequence[dict], method: str) -> tuple[float, Estimate]:
    """Return the second best learning rate of a grid, and its validation loss over that of the best one."""
    found, best = sweeps(runs, method), grid_best(runs, method)
    others = [rate for rate in found[0] if rate != best]
    rate = min(others, key=lambda r: np.mean([math.log(sweep[r]) for sweep in found]))
    return rate, estimates.ratio([s[best] for s in found], [s[rate] for s in found])


def tied(runs: Sequence[dict], method: str) -> list[float]:
    """Return the best learning rate of a grid, and the second best if its loss is not settled to be higher."""
    rate, (_, (low, _)) = runner_up(runs, method)
    return [grid_best(runs, method)] + [rate] * (low <= 1)


def costlier(runs: Sequence[dict]) -> dict[str, Estimate]:
    """Return LoRA's rise on base documents minus full fine-tuning's, for all pairs of tied learning rates."""
    return {
        f"{a:g} / {b:g}": estimates.change(rises(runs, FULL, a), rises(runs, LORA, b))
        for a, b in product(tied(runs, FULL), tied(runs, LORA))
    }


def cost_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the differences of ``costlier`` with those of the losses, by pair of learning rates."""
    pairs = list(product(tied(runs, FULL), tied(runs, LORA)))
    rows = {
        name: {
            "rise on documents, LoRA − full": signed(rise),
            "loss on test questions, LoRA ÷ full": times(
                estimates.ratio(loss_at(runs, FULL, a), loss_at(runs, LORA, b))
            ),
        }
        for (a, b), (name, rise) in zip(pairs, costlier(runs).items(), strict=True)
    }
    return pd.DataFrame(rows).T.rename_axis("full / LoRA at")


def signed(found: Estimate) -> str:
    """Return a difference in nats with its interval as text."""
    value, (low, high) = found
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


@torch.no_grad()
def start_moved(model, start) -> float:
    """Return ‖ΔA‖ / ‖A‖ over all adapters: how far A moved from its start."""
    pairs = [
        (p, start.get_parameter(n)) for n, p in model.named_parameters() if n.endswith(".A")
    ]  # fmt: skip
    change, size = (
        sum(x.square().sum().item() for x in some)
        for some in ([a - b for a, b in pairs], [b for _, b in pairs])
    )
    return math.sqrt(change / size)


def where_lost(
    runs: Sequence[dict], method: str, lost: float = LOST, documents: str = DOCUMENTS[0]
) -> list[tuple[float, float]]:
    """Return the learning rate and ‖ΔW‖/‖W‖ at which as much is lost on base documents, of every seed.

    Both are interpolated in logarithms where the rise first exceeds ``lost``; nan if it never does.
    """
    found = []
    moved = sweeps(runs, method, "moved")
    for run, distance in zip(sweeps(runs, method, documents), moved, strict=True):
        before = chosen(runs, method=method)[0][documents][0]
        risen = [max(value - before, 1e-5) for value in run.values()]
        k = next((k for k, rise in enumerate(risen) if rise >= lost), None)
        if not k:
            found.append((math.nan, math.nan))
            continue
        part = math.log(lost / risen[k - 1]) / math.log(risen[k] / risen[k - 1])
        found.append(
            tuple(
                v[k - 1] * (v[k] / v[k - 1]) ** part for v in (list(run), list(distance.values()))
            )
        )
    return found


def at_distance(runs: Sequence[dict], method: str, distances: Sequence[float]) -> list[float]:
    """Return the learning rate at which W has moved a distance, of every seed; nan outside the grid."""
    return [
        math.exp(
            np.interp(math.log(d), np.log(list(s.values())), np.log(list(s)), math.nan, math.nan)
        )
        for d, s in zip(distances, sweeps(runs, method, "moved"), strict=True)
    ]


def lost_ratios(runs: Sequence[dict], lost: float = LOST, what: str = RATE) -> dict[str, Estimate]:
    """Return LoRA's over full fine-tuning's where both have lost so much, by set of documents.

    A set on which a seed never loses so much is left out.

    Args:
        what: the learning rate; how far W has moved; or the learning rate at which LoRA has moved W as
            far as full fine-tuning has where it has lost so much.
    """
    found = {}
    for documents in DOCUMENTS:
        (rates, moved), lora = (
            np.transpose(where_lost(runs, m, lost, documents)) for m in (FULL, LORA)
        )
        pairs = {RATE: (rates, lora[0]), MOVED: (moved, lora[1])}
        pair = pairs.get(what) or (rates, at_distance(runs, LORA, moved))
        if not np.isnan(pair).any():
            found[documents] = estimates.ratio(*pair)
    return found


def lost_ratio(runs: Sequence[dict], what: str = RATE) -> Estimate | None:
    """Return the ratio at ``LOST`` with an interval that covers both sets of documents."""
    found = [*lost_ratios(runs, what=what).values()]
    return (
        (found[0][0], (min(i[0] for _, i in found), max(i[1] for _, i in found))) if found else None
    )


def why_lost(runs: Sequence[dict]) -> str:
    """Return what equal forgetting says of the distance of W."""
    distance = lost_ratio(runs, MOVED)
    if distance is None:
        return f"Some seeds never lose {LOST:g} nats."
    equal = lost_ratio(runs, EQUAL)
    return (
        f"Where both have lost {LOST:g} nats, LoRA has moved W {times(distance)} as far. {alone(distance)} "
        f"If it did, the ratio would be {times(equal) if equal else 'outside the grid'}. "
        "The intervals cover both sets of documents."
    )


def lost_table(runs: Sequence[dict], levels: Sequence[float] = (0.01, LOST, 0.5)) -> pd.DataFrame:
    """Return the ratios where as much is forgotten, by how much is lost and on which documents."""
    columns = {
        f"{what}, {name.replace('_', ' ')}": {
            f"{level:g} nats lost": times(found[name]) if name in found else "some seeds lose less"
            for level in levels
            for found in (lost_ratios(runs, level, what),)
        }
        for what in (RATE, MOVED)
        for name in DOCUMENTS
    }
    return pd.DataFrame(columns).rename_axis("LoRA's ÷ full's")


def u_curves(runs: Sequence[dict], methods: Sequence[str] = (FULL, LORA)):
    """Draw the held-out loss over the learning rate, with each method's best one."""
    found = {
        m: {r: [s[r] for s in sweeps(runs, m)] for r in sweeps(runs, m)[0]} for m in methods
    }  # fmt: skip
    best = {}
    for m in methods:
        with suppress(ValueError):  # a seed's lowest loss is at the end of its grid
            rates = [best_rate(sweep) for sweep in sweeps(runs, m)]
            best[m] = float(gmean(rates))
    told = "; ".join(
        f"{m}: best {best[m]:.1e}" if m in best else f"{m}: no best one inside" for m in methods
    )
    return curves(
        found, "Validation loss after the last step, by learning rate", f"Curves over the learning rate. {told}.",
        spread="lines", mean=gmean, direct=False, axvline={rate: f"{rate:.1e}" for rate in best.values()},
        xscale="log", yscale="log", xlabel="learning rate", ylabel="nats per token", figsize=(7.8, 3.8),
    )  # fmt: skip


def forgetting(runs: Sequence[dict]):
    """Draw the rise of the loss on base documents over the learning rate, after the last step."""
    found = {
        m: {r: np.maximum(rises(runs, m, r), 1e-4) for r in sweeps(runs, m)[0]}
        for m in (FULL, LORA)
    }
    told = "; ".join(
        f"{m}: " + ", ".join(f"{np.mean(v):.3f} at {rate:g}" for rate, v in by.items())
        for m, by in found.items()
    )
    return curves(
        found, "Rise of the loss on base documents after the last step", f"Curves with the range over seeds. {told}.",
        direct=False, axhline={LOST: f"{LOST:g}"}, xscale="log", yscale="log", xlabel="learning rate",
        ylabel="nats per token", figsize=(7.8, 3.6),
    )  # fmt: skip


def told(found: Estimate | None) -> str:
    """Return a ratio with its interval and direction as text."""
    if found is None:
        return "not measured: it lies outside the grid"
    return f"{times(found)}, {verdict(found, 'higher', 'lower', neutral=1.0)}"


def ratios_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the ratio of LoRA's best learning rate to full fine-tuning's, by what it is computed from."""
    by = {name: [sweeps(runs, m, name) for m in (FULL, LORA)] for name in ("validation", "test")}
    lines = {
        "validation questions; seeds and grids drawn": times(over_grids(*by["validation"])),
        "validation questions; seeds alone": times(rate_ratio(*by["validation"])),
        "validation questions; outer ends": times(outer(*by["validation"])),
        "test questions; outer ends": times(outer(*by["test"])),
    }
    return pd.DataFrame({"LoRA's ÷ full fine-tuning's": lines})


def claims(runs: Sequence[dict], real: Sequence[dict], steps: Mapping[str, float]) -> pd.DataFrame:  # fmt: skip
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        steps: method -> length of its first step in W, over full fine-tuning's at the same learning rate.
    """
    found, smol, strong = ratio(runs), inside(real) if real else None, ratio(runs, STRONG, LORA)
    on_test = outer(*(sweeps(runs, m, "test") for m in (FULL, LORA)))
    cost, equal = costlier(runs), lost_ratio(runs, EQUAL)
    directions = {verdict(each, "more", "less", estimates.OPEN) for each in cost.values()}
    against_full = ratio(runs, STRONG, FULL)
    again, own, lost = reused(runs), tuned(runs), lost_ratio(runs)
    on_real = "24 steps, one small base"
    if real:
        spread = (
            times(smol)
            if smol
            else "not settled: some seeds' lowest losses are at an end of their grid"
        )
        on_real = f"SmolLM2, 12 steps: {spread}"
    rows = [
        (
            f"At r = 8 and α = 16 LoRA's best learning rate is {verdict(found, 'higher', 'lower', neutral=1.0)}",
            f"{times(found)}; on other questions {times(on_test)}",
            f"the factor holds for this α: with α = 64 {times(against_full)}",
            on_real,
        ),
        (
            f"Near full fine-tuning's best learning rate, LoRA's loss is {verdict(again, 'higher', 'lower', neutral=1.0)}",
            times(again),
            f"each at its own: {told(own)}",
            f"24 steps; full's best of its grid is {grid_best(runs, FULL):g}, LoRA's nearest {near(runs):g}",
        ),
        (
            f"With four times the α the best learning rate is {verdict(strong, 'higher', 'lower', neutral=1.0)}",
            times(strong),
            "if the first steps decided: ×0.25; if A's own movement did: ×0.5; if α did nothing: ×1",
            "24 steps, rank 8, one small base",
        ),
        (
            f"The learning rate at which as much is forgotten is {verdict(lost, 'higher', 'lower', neutral=1.0) if lost else 'not measured'}",
            told(lost),
            f"if W's distance after the last step decided: {times(equal) if equal else 'not measured'}; if the first step's did: ×{1 / steps[LORA]:.1f}",
            f"{LOST:g} nats on two sets of short documents; one small base",
        ),
        (
            f"Each method at a best learning rate: what LoRA forgets, compared with full fine-tuning, is {directions.pop() if len(directions) == 1 else estimates.OPEN}",
            "rise, LoRA − full: "
            + "; ".join(f"{signed(each)} at {rates}" for rates, each in cost.items()),
            f"losses at the first pair, LoRA ÷ full: {told(own)}{exact_told(runs)}",
            "pairs of learning rates, full / LoRA, whose validation losses are not settled to differ from the best",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
