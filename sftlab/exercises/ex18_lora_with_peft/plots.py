"""Figures and tables of notebook 18: where LoRA's parameters go. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from sftlab.classroom.figures import curves, dots
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, times, verdict
from sftlab.exercises.ex18_lora_with_peft.experiment import (
    ANSWERS,
    BUDGET,
    FACTS,
    LESS,
    MORE,
    SETS,
    SEVERAL,
    new_facts,
)
from sftlab.exercises.ex18_lora_with_peft.further import FRESH, FRESH_SEEDS, WORDINGS
from sftlab.exercises.ex18_lora_with_peft.further import LOWER as LOWER  # for the notebook
from sftlab.exercises.trade_off import LIMIT, examples
from sftlab.memory.count import targeted_layers
from sftlab.statistics import chosen

ALL, ATTENTION, QV, MLP, DOWN = "all linear", "attention", "q, v", "MLP", "down"
ASKED_FOR = {ANSWERS: "other facts", FACTS: "in other words"}
WAYS = (("validation", "test"), ("test", "validation"))  # chosen on one, reported on the other
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "A wider layer has d_in · d_out weights, LoRA adds r · (d_in + d_out). The weights grow with the square of the width, the adapter with the width.",
    "b": "Attention mixes what earlier tokens hold, the MLP works on each token by itself. Both are weights, and both can hold a fact. Why one learns these 29 facts better, this comparison does not say. The interval does not cover other facts.",
    "c": "A larger rank gives the same layers more directions. Layers without an adapter stay as they are. The interval is for these 29 facts.",
}  # fmt: skip


def arm(
    runs: Sequence[dict], task: str, targets: str, budget: int = BUDGET, by: str = "validation"
) -> list[dict]:
    """Return the runs of a set of layers at its learning rate, the one with the lowest loss ``by``."""
    found = chosen(runs, task=task, targets=targets, budget=budget)
    return estimates.tuned(found, lambda run: np.log(run[by]))


def losses(
    runs: Sequence[dict], task: str, targets: str, budget: int = BUDGET,
    name: str = "test", by: str = "validation",
) -> list[float]:  # fmt: skip
    """Return a measurement of every seed, at the arm's own learning rate."""
    return [run[name] for run in arm(runs, task, targets, budget, by)]


def both_ways(ratio: Callable[[str, str], Estimate]) -> Estimate:
    """Return a ratio as published, with an interval that covers the one with the questions exchanged, too.

    ratio: is given the names of two losses: the learning rates are chosen by one, the other is reported.
    """
    found = [ratio(by, name) for by, name in WAYS]
    lows, highs = zip(*(interval for _, interval in found), strict=True)
    return found[0][0], (min(lows), max(highs))


def against(
    runs: Sequence[dict], task: str, targets: str, other: str = ALL,
    budget: int = BUDGET, other_budget: int = BUDGET,
) -> Estimate:  # fmt: skip
    """Return the loss of one arm over that of another: geometric mean over seeds, paired, both ways."""
    return both_ways(
        lambda by, name: estimates.ratio(
            losses(runs, task, other, other_budget, name, by),
            losses(runs, task, targets, budget, name, by),
        )
    )


def apart(
    runs: Sequence[dict], task: str, targets: str, other: str = ALL,
    budget: int = BUDGET, other_budget: int = BUDGET,
) -> str:  # fmt: skip
    """Return the difference of two arms' losses as text, which a loss that both keep leaves as it is."""
    value, (low, high) = found = both_ways(
        lambda by, name: estimates.change(
            losses(runs, task, other, other_budget, name, by),
            losses(runs, task, targets, budget, name, by),
        )
    )
    return f"{value:+.2f} nats ({low:+.2f} to {high:+.2f}), {verdict(found, 'higher', 'lower')}"


def exactly(
    runs: Sequence[dict], task: str, targets: str, other: str = ALL, budget: int = BUDGET
) -> Estimate:
    """Return by how much more an arm answers exactly than another one with ``BUDGET``, by seed."""
    return estimates.change(
        losses(runs, task, other, name="exact"), losses(runs, task, targets, budget, "exact")
    )


def by_chance(model, tokenizer) -> tuple[float, str]:
    """Return the loss on new facts that stays if unread tokens are equally likely, and more in words.

    Rows of the output head within 5% of each other are those of tokens that the base never read. The
    head is frozen, so an adapter before it can hardly choose among k of them: equally likely, each
    token costs log k nats.
    """
    head = model.get_output_embeddings().weight.detach()
    answers = [[i for i in e.labels if i >= 0] for e in examples(tokenizer, new_facts(0))]
    alike = {i: int(((head - head[i]).norm(dim=1) < 0.05 * head[i].norm()).sum())
             for ids in answers for i in ids}  # fmt: skip
    costs = [sum(np.log(alike[i]) for i in ids) for ids in answers]
    left = float(sum(costs)) / sum(map(len, answers))
    unread, long = sum(cost > 0 for cost in costs), sum(len(ids) > LIMIT for ids in answers)
    exact = sum(cost == 0 and len(ids) <= LIMIT for cost, ids in zip(costs, answers, strict=True))
    return left, (
        f"{unread} of {len(answers)} answers hold a token that the base never read, and {long} are longer than the "
        f"limit of {LIMIT} tokens. So {exact / len(answers):.0%} can be exact, or more by a lucky guess. If the "
        f"never-read tokens were equally likely, a loss of {left:.3f} nats would stay."
    )


def at_equal_budget(runs: Sequence[dict], left: float):
    """Draw the loss of every set of layers for both tasks: seeds, and what stays by ``by_chance``."""
    found = {
        task: {"": {f"{name}, r = {arm(runs, task, name)[0]['rank']}": losses(runs, task, name)
                    for name in SETS}}
        for task in (ANSWERS, FACTS)
    }  # fmt: skip
    found = {f"{task}: {ASKED_FOR[task]}": by for task, by in found.items()}
    told = "; ".join(
        f"{task}: "
        + ", ".join(f"{name} {stats.gmean(values):.2f}" for name, values in by[""].items())
        for task, by in found.items()
    )
    return dots(
        found, f"Loss after training, {BUDGET:,} parameters or just below (dotted: unread tokens equally likely)",
        f"Two panels, one dot per seed. {told}. Unread tokens equally likely: {left:.2f}.", panels=True, marker="|", mean=False,
        xscale="log", xlabel="nats per token", figsize=(9, 3.4),
        each={f"{FACTS}: {ASKED_FOR[FACTS]}": {"axvline": {left: ""}, "xlim": (0.085, None)}},
    )  # fmt: skip


def sets_table(runs: Sequence[dict], task: str) -> pd.DataFrame:
    """Return a row for every set of layers: size, learning rate, loss against all linear, exact."""
    rows = {}
    for name in SETS:
        found = arm(runs, task, name)
        rows[name] = {
            "rank": found[0]["rank"],
            "trained": f"{found[0]['trained']:,}",
            "learning rate": f"{found[0]['learning_rate']:g}"
            + ", end of the grid" * at_edge(runs, task, name),
            "loss": round(float(stats.gmean(losses(runs, task, name))), 3),
            "÷ all linear": "" if name == ALL else times(against(runs, task, name)),
            "exactly right": estimates.percent(
                estimates.mean(losses(runs, task, name, name="exact"))
            ),
        }
    return pd.DataFrame(rows).T.rename_axis(task)


def over_share(runs: Sequence[dict], parameters: int):
    """Draw the loss on new facts over the trained share, for the sets that were trained with three budgets."""
    found: dict = {}
    for name in SEVERAL:
        for budget in (LESS, BUDGET, MORE):
            size = arm(runs, FACTS, name, budget)[0]["trained"]
            share = size / (size + parameters)
            found.setdefault(name, {})[share] = losses(runs, FACTS, name, budget)
    told = "; ".join(
        f"{name}: " + ", ".join(f"{stats.gmean(v):.2f} at {x:.1%}" for x, v in points.items())
        for name, points in found.items()
    )
    return curves(
        found, "New facts: loss in another wording by trained share", f"Curves with the range over seeds. {told}.",
        mean=stats.gmean, percent="x", xscale="log", yscale="log", xticks=[0.005, 0.01, 0.02, 0.05, 0.1],
        xlabel="trained share of all weights", ylabel="nats per token", figsize=(7.2, 3.4),
    )  # fmt: skip


def loss_ratio(runs: Sequence[dict]) -> Estimate:
    """Return the loss on new facts with q and v over that with the MLP, at the same budget."""
    return against(runs, FACTS, QV, MLP)


def catch_up(runs: Sequence[dict]) -> Estimate:
    """Return the loss on new facts: q and v with three times the budget over all linear layers with one."""
    return against(runs, FACTS, QV, ALL, MORE, BUDGET)


def at_edge(runs: Sequence[dict], task: str, targets: str, budget: int = BUDGET) -> bool:
    """Return whether the learning rate of an arm is the lowest or the highest that was tried."""
    found = chosen(runs, task=task, targets=targets, budget=budget)
    rates = {run["learning_rate"] for run in found}
    return arm(runs, task, targets, budget)[0]["learning_rate"] in (min(rates), max(rates))


def tried(runs: Sequence[dict], task: str, names: Sequence[str]) -> str:
    """Return how many learning rates each set was trained with, and whether the best is the first or last."""
    told = []
    for name in names:
        rates = {run["learning_rate"] for run in chosen(runs, task=task, targets=name)}
        edge = f", the best ({arm(runs, task, name)[0]['learning_rate']:g}) an end of them"
        told.append(f"{name} {len(rates)}" + edge * at_edge(runs, task, name))
    return "learning rates tried: " + "; ".join(told)


# --- shares of real models -----------------------------------------------------------------------


def per_rank(model) -> dict[str, int]:
    """Return what one unit of rank costs for every set of layers: Σ (d_in + d_out)."""
    return {name: sum(map(sum, targeted_layers(model, t).values())) for name, t in SETS.items()}


def sizes(model) -> dict:
    """Return the parameters of a model, and what one unit of rank costs for every set of layers."""
    return {"parameters": model.num_parameters(), "per rank": per_rank(model)}


def trained(size: Mapping, targets: str, r: int) -> tuple[int, float]:
    """Return the trained parameters and their share of all, the adapter included."""
    count = r * size["per rank"][targets]
    return count, count / (count + size["parameters"])


def shares_at(models: Mapping[str, Mapping], targets: str, r: int, alt: str):
    """Draw the share of every model at one rank, with 1% marked; the count stands beside the name."""
    found = {}
    for name, size in models.items():
        count, share = trained(size, targets, r)
        found[f"{name}\n{count:,}"] = share
    below = sum(share < 0.01 for share in found.values())
    return dots(
        found, f"r = {r} on {targets}: {below} of {len(models)} models are below 1%", alt,
        fmt=lambda share: f"{100 * share:.2g}%", percent="x", xscale="log", xlim=(1e-5, 3), xticks=[1e-5, 1e-4, 1e-3, 0.01, 0.1, 1],
        axvline={0.01: "1%"}, xlabel="trained share (under the names: trained parameters)", marker="o", mean=False, figsize=(8, 0.5 * len(models) + 1.6),
    )  # fmt: skip


# --- what was found ------------------------------------------------------------------------------


def word(found: Estimate) -> str:
    return verdict(found, "higher", "lower", neutral=1.0)


def told(found: Estimate) -> str:
    """Return a ratio with its interval and direction as text."""
    return f"{times(found)}, {word(found)}"


def places(runs: Sequence[dict], task: str) -> str:
    """Return in words how attention, the MLP and all linear layers compare after a task."""
    pairs = ((ATTENTION, MLP), (ATTENTION, ALL), (MLP, ALL))
    ratios = (f"{one} ÷ {two} {told(against(runs, task, one, two))}" for one, two in pairs)
    return f"Loss on {task}: " + "; ".join(ratios) + "."


def beside_the_report(runs: Sequence[dict]) -> str:
    """Return in words where attention stays behind the MLP here, as was reported for large models."""
    said = {
        "higher": ", as reported for large models",
        "lower": ", unlike the report on large models",
    }
    found = {task: word(against(runs, task, ATTENTION, MLP)) for task in (FACTS, ANSWERS)}
    told = (f"{task} {direction}{said.get(direction, '')}" for task, direction in found.items())
    return "Loss with attention alone, compared with the MLP alone: " + "; ".join(told) + "."


def claims(runs: Sequence[dict], further: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        further: the runs of ``further``: the trained wording, and fresh seeds, which alone compare ``down``.
    """
    wordings, fresh = (chosen(further, part=part) for part in (WORDINGS, FRESH))
    edges = [
        f"{task}, {targets}, {budget:,}"
        for task, targets, budget in dict.fromkeys(
            (r["task"], r["targets"], r["budget"]) for r in runs
        )
        if at_edge(runs, task, targets, budget)
    ]
    edged = "; best learning rate at an end of what was tried: " + "; ".join(edges) if edges else ""
    place, size, down = loss_ratio(runs), catch_up(runs), against(fresh, FACTS, DOWN)
    twelvefold = against(runs, FACTS, QV, ALL, MORE, LESS)
    more = (f"on {name} {told(against(runs, FACTS, name, name, MORE, LESS))}" for name in SEVERAL)
    other = {
        name: told(estimates.ratio(*([r[name] for r in chosen(wordings, targets=t)] for t in (MLP, QV))))
        for name in ("trained wording", "test values")
    }  # fmt: skip
    answering = against(runs, ANSWERS, QV)
    right = estimates.mean(losses(runs, ANSWERS, ALL, name="exact"))
    rows = [
        (
            f"These 29 new facts, as many parameters: the loss with q and v, compared with the MLP, is {word(place)}",
            f"{times(place)}; exactly right {estimates.points(exactly(runs, FACTS, QV, MLP))}",
            f"the ratio on the trained wording: {other['trained wording']}; on the tokens of the value alone: {other['test values']}; "
            f"with another task, answering, which differs in steps and examples too: {told(against(runs, ANSWERS, QV, MLP))}",
            f"{apart(runs, FACTS, QV, MLP)}; three kinds of facts, one sentence each, the same in all seeds",
        ),
        (
            f"These 29 new facts: the loss with three times the parameters on q and v, compared with all linear layers, is {word(size)}; with twelve times as many, {word(twelvefold)}",
            f"{times(size)}; twelve times {times(twelvefold)}",
            f"twelve times the parameters on the same layers: {'; '.join(more)}",
            f"{apart(runs, FACTS, QV, ALL, MORE)}; twelve times {apart(runs, FACTS, QV, ALL, MORE, LESS)}; "
            f"exactly right, with three times: {estimates.points(exactly(runs, FACTS, QV, ALL, MORE))}; α = 2r in all arms{edged}",
        ),
        (
            f"These 29 new facts, as many parameters: the loss with down_proj alone, compared with all linear layers, is {word(down)}",
            f"{times(down)}, {len(FRESH_SEEDS)} fresh seeds",
            f"picked from five sets with other seeds, where the ratio was {times(against(runs, FACTS, DOWN))}; {tried(fresh, FACTS, (ALL, DOWN))}",
            f"{apart(fresh, FACTS, DOWN)}; exactly right: {estimates.points(exactly(fresh, FACTS, DOWN))}; "
            f"answering: {told(against(runs, ANSWERS, DOWN))}",
        ),
        (
            f"Learning to answer, as many parameters: the loss with q and v, compared with all linear layers, is {word(answering)}",
            times(answering),
            f"k and o as well, compared with all linear layers: {told(against(runs, ANSWERS, ATTENTION))}; the MLP: {told(against(runs, ANSWERS, MLP))}",
            f"exactly right: {estimates.points(exactly(runs, ANSWERS, QV))}, of {estimates.percent(right)}; 32 pairs on facts that the base knows, 24 steps",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
