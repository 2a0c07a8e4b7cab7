"""Figures and tables of notebook 20: merged and not merged. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, floor

import numpy as np
import pandas as pd
from scipy import stats

from sftlab.classroom.figures import GREY, curves, dots
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, mean, percent, points, times, verdict
from sftlab.exercises.ex20_merge_lora.experiment import (
    ARITHMETIC,
    BOTH,
    EMBEDDED,
    FOUR,
    HIGH,
    LOW,
    MERGED,
    RECIPES,
    REFERENCE,
    ROUNDED,
    SIXTEEN,
    SMOL,
    VERSIONS,
)
from sftlab.statistics import chosen

NAMES = {EMBEDDED: "embedded", SMOL: "SmolLM2"}
LABELS = {  # version -> what is stored and computed in
    MERGED: "merged; float32",
    ARITHMETIC: "not merged; bfloat16 arithmetic",
    ROUNDED: "merged; bfloat16 weights, float32 arithmetic",
    BOTH: "merged; bfloat16 weights and arithmetic",
}
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "An entry moves only if its update reaches half a step of its own bfloat16 number: 1/512 to 1/256 of its size. The smaller the updates, the more entries fall short of it.",
}  # fmt: skip


def of_adapter(runs: Sequence[dict], adapter: str, model: str = EMBEDDED) -> list[dict]:
    """Return the runs of one adapter, by seed."""
    found = [run for run in runs if run["kind"] == "merge"]
    return chosen(found, model=model, adapter=adapter)


def values(runs: Sequence[dict], version: str, name: str) -> list[float]:
    """Return one measurement of a version, seed by seed."""
    return [run[version][name] for run in runs]


def stays(runs: Sequence[dict], adapter: str, model: str = EMBEDDED) -> Estimate:
    """Return the share of weight entries that a merge in bfloat16 leaves as they were."""
    return mean([run["unchanged"] for run in of_adapter(runs, adapter, model)])


def by_size(moved: float) -> float:
    """Return the share of entries that would stay if only the size of the update counted.

    Entries of W and of ΔW are normal, with standard deviations of 1 and ``moved``: an entry stays if its
    update is below half a step of bfloat16.
    """
    entries = stats.norm.ppf(0.5 + (np.arange(20_000) + 0.5) / 40_000)
    half_steps = 2.0 ** (np.floor(np.log2(entries)) - 8)
    return float(np.mean(2 * stats.norm.cdf(half_steps / moved) - 1))


def beyond_size(
    runs: Sequence[dict], adapter: str, model: str = EMBEDDED
) -> tuple[float, Estimate]:
    """Return the mean share that ``by_size`` predicts, and the measured one divided by it, run by run."""
    found = of_adapter(runs, adapter, model)
    predicted = [by_size(run["moved"]) for run in found]
    return float(np.mean(predicted)), estimates.ratio(
        predicted, [run["unchanged"] for run in found]
    )


def changed(runs: Sequence[dict], adapter: str, version: str, model: str = EMBEDDED) -> Estimate:
    """Return the share of answers that differ from those of the reference, with a wide interval.

    All seeds share the questions. The interval therefore holds both the t interval over the seeds and the
    exact one (Clopper-Pearson) over the questions, for as many of them as change with a seed on average.
    """
    value, (low, high) = mean(values(of_adapter(runs, adapter, model), version, "changed"))
    asked = RECIPES[model].questions[1]
    count = round(value * asked, 6)
    fewest, most = (
        stats.binomtest(n, asked).proportion_ci(method="exact") for n in (floor(count), ceil(count))
    )
    return value, (max(0.0, min(low, fewest.low)), min(1.0, max(high, most.high)))


def further(runs: Sequence[dict], adapter: str, model: str = EMBEDDED) -> Estimate:
    """Return the KL divergence by rounded weights, divided by that of the arithmetic alone."""
    found = of_adapter(runs, adapter, model)
    return estimates.ratio(*(values(found, v, "kl") for v in (ARITHMETIC, ROUNDED)))


def why_few(runs: Sequence[dict]) -> str:
    """Return when an answer changes, what rounding changes in each place alone, and what the interval is."""
    return (
        "A greedy answer changes only where rounding puts another token in first place: where the two most "
        f"probable ones are almost equal. Rounded weights alone change {percent(changed(runs, LOW, ROUNDED))} of the "
        f"answers, bfloat16 arithmetic alone {percent(changed(runs, LOW, ARITHMETIC))}. All seeds share the "
        f"{RECIPES[EMBEDDED].questions[1]} questions, so the interval covers other questions as well as other seeds."
    )


def why_apart(runs: Sequence[dict]) -> str:
    """Return the mechanism of 20.c, with both effects, and the bases before any training."""
    mismatch, base = apart(runs)
    full, four = (np.mean([run["base"] for run in on(runs, b)]) for b in (SIXTEEN, FOUR))
    return (
        "Two things change at once: the weights under the adapter, and whether the adapter was trained on them. "
        f"Training on both bases and merging into both tells them apart: the full base ÷ the 4-bit one {times(base)}, "
        f"the other base ÷ the own one {times(mismatch)}. The first says nothing of the bases alone: before training "
        f"the full one has {full:.2f} nats, the 4-bit one {four:.2f}."
    )


def adapters_table(runs: Sequence[dict], model: str = EMBEDDED) -> pd.DataFrame:
    """Return what each adapter is, and what a merge in bfloat16 does to the weights."""
    lines = {}
    for adapter in RECIPES[model].rates:
        found = of_adapter(runs, adapter, model)
        lines[adapter] = {
            "steps, mean": f"{np.mean([run['steps'] for run in found]):.0f}",
            "test loss (nats)": f"{np.mean(values(found, REFERENCE, 'nll')):.3f}",
            "‖ΔW‖/‖W‖": f"{np.mean([run['moved'] for run in found]):.2%}",
            "entries that stay": percent(stays(runs, adapter, model)),
            "… by size alone": f"{beyond_size(runs, adapter, model)[0]:.1%}",
            "error of ΔW": percent(mean([run["error"] for run in found])),
        }
    return pd.DataFrame(lines).T


def size_and_rounding(runs: Sequence[dict]):
    """Draw the share of entries that stay over the size of the update: runs, and what size alone predicts."""
    found = {
        f"{NAMES[model]}, {adapter}": {
            run["moved"]: run["unchanged"] for run in of_adapter(runs, adapter, model)
        }
        for model in NAMES
        for adapter in RECIPES[model].rates
    }
    told = "; ".join(
        f"{name}: " + ", ".join(f"{share:.0%} at {moved:.2%}" for moved, share in points_.items())
        for name, points_ in found.items()
    )
    figure = curves(found, "Entries that stay, by size of the update (line: predicted by the size alone)",
                    f"A point for each run. {told}.", lines=False, direct=False, xscale="log", percent="xy", ylim=(0, 1),
                    xticks=(0.002, 0.005, 0.01, 0.02, 0.05), xlabel="‖ΔW‖/‖W‖", ylabel="entries as they were", figsize=(7.6, 4))  # fmt: skip
    sizes = np.geomspace(*figure.axes[0].get_xlim(), 50)
    figure.axes[0].plot(sizes, [by_size(size) for size in sizes], color=GREY, lw=1, zorder=0)
    return figure


def changed_answers(runs: Sequence[dict], model: str = EMBEDDED):
    """Draw the share of answers that differ from the reference, for each version and adapter."""
    found = {
        adapter: {
            LABELS[v]: values(of_adapter(runs, adapter, model), v, "changed") for v in VERSIONS
        }
        for adapter in RECIPES[model].rates
    }
    told = "; ".join(
        f"{adapter}: " + ", ".join(f"{v} {np.mean(x):.1%}" for v, x in rows.items())
        for adapter, rows in found.items()
    )
    figure = dots(found, f"Answers that differ from the adapter in float32, {NAMES[model]}",
                  f"Dots for the seeds, bars for the means. {told}.", percent="x", xlim=(0, None), figsize=(8.4, 5.2))  # fmt: skip
    _spread(figure.axes[0])
    return figure


def _spread(axis) -> None:
    """Draw equal repetitions of a row beside each other, and whole ones at the edge."""
    for line in axis.lines:
        xs, ys = (np.asarray(data, dtype=float) for data in line.get_data())
        if len(xs) > 1:
            before = np.array([list(xs[:k]).count(x) for k, x in enumerate(xs)])
            alike = np.array([list(xs).count(x) for x in xs])
            line.set(ydata=ys + 0.055 * (before - (alike - 1) / 2), clip_on=False)


def distance_table(runs: Sequence[dict], model: str = EMBEDDED) -> pd.DataFrame:
    """Return how far each version is from the reference: KL in thousandths of a nat, error of the logits."""

    def told(adapter: str, version: str, name: str) -> str:
        found = float(np.mean(values(of_adapter(runs, adapter, model), version, name)))
        if name == "logits":
            return f"{found:.2%}" if found >= 1e-4 else f"{found:.0e}"
        mean_ = 1000 * found
        return f"{mean_:,.0f}" if mean_ >= 100 else f"{mean_:.2g}" if mean_ >= 0.0005 else "0"

    found = {
        f"{label}, {adapter}": {
            LABELS.get(v, v): told(adapter, v, name) for v in (*VERSIONS, "base")
        }
        for name, label in (("kl", "KL"), ("logits", "error of the logits"))
        for adapter in RECIPES[model].rates
    }
    return pd.DataFrame(found)


def slowdown(runs: Sequence[dict], name: str, tokens: int, model: str = EMBEDDED) -> Estimate:
    """Return the time of a version divided by the base's: the mean of the medians of the runs."""
    found = [run for run in runs if run["kind"] == "speed"]
    medians = [
        run["ratios of seconds"][name][1] for run in chosen(found, model=model, tokens=tokens)
    ]
    return estimates.ratio([1.0] * len(medians), medians)


def speed_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return tokens/s of all three, and the times of two as ratios to the base's."""
    lines = {}
    for model, recipe in RECIPES.items():
        for tokens in recipe.lengths:
            found = chosen([r for r in runs if r["kind"] == "speed"], model=model, tokens=tokens)
            spread = [run["ratios of seconds"]["adapter"] for run in found]
            low, high = np.mean([s[0] for s in spread]), np.mean([s[2] for s in spread])
            speed = np.median([run["tokens in seconds"]["base"] for run in found])
            lines[f"{NAMES[model]}, {tokens} at once"] = {
                "base, tokens/s": f"{speed:,.0f}",
                **{
                    f"{name}, tokens/s": f"{np.median([r['tokens in seconds'][name] for r in found]):,.0f}"
                    for name in ("adapter", "merged")
                },
                "time with adapter": times(slowdown(runs, "adapter", tokens, model)),
                "middle half of rounds": f"{low:.2f} to {high:.2f}",
                "time merged": times(slowdown(runs, "merged", tokens, model)),
            }
    return pd.DataFrame(lines).T


def on(runs: Sequence[dict], trained_on: str, model: str = EMBEDDED) -> list[dict]:
    """Return the runs whose adapters were trained on a base, by seed."""
    found = [run for run in runs if run["kind"] == "bases"]
    return chosen(found, model=model, trained_on=trained_on)


def other_base(runs: Sequence[dict], trained_on: str, model: str = EMBEDDED) -> Estimate:
    """Return the loss after a merge into the other base, divided by that into the base of training."""
    found, other = on(runs, trained_on, model), {SIXTEEN: FOUR, FOUR: SIXTEEN}[trained_on]
    return estimates.ratio(values(found, trained_on, "nll"), values(found, other, "nll"))


def apart(runs: Sequence[dict]) -> tuple[Estimate, Estimate]:
    """Return two ratios of losses: into the other base ÷ the own one, and the full base ÷ the 4-bit one."""
    four, full = on(runs, FOUR), on(runs, SIXTEEN)

    def both(a: str, b: str) -> list[float]:
        return np.sqrt(np.multiply(values(four, a, "nll"), values(full, b, "nll"))).tolist()

    return (
        estimates.ratio(both(FOUR, SIXTEEN), both(SIXTEEN, FOUR)),
        estimates.ratio(both(FOUR, FOUR), both(SIXTEEN, SIXTEEN)),
    )


def bases_table(runs: Sequence[dict], model: str = EMBEDDED) -> pd.DataFrame:
    """Return loss and changed answers for each base of training and of merging."""
    lines = {}
    for trained_on in (SIXTEEN, FOUR) if model == EMBEDDED else (FOUR,):
        found = on(runs, trained_on, model)
        line = {"before training": f"{np.mean([run['base'] for run in found]):.3f}"}
        line |= {"not merged": f"{np.mean(values(found, 'not merged', 'nll')):.3f}"}
        for base in (SIXTEEN, FOUR):
            loss = np.mean(values(found, base, "nll"))
            share = np.mean(values(found, base, "changed"))
            line[f"merged into {base}"] = f"{loss:.3f}, {share:.0%} of answers changed"
        line["loss, other ÷ own"] = times(other_base(runs, trained_on, model))
        lines[f"trained on {trained_on}"] = line
    return pd.DataFrame(lines).T


def sized(runs: Sequence[dict], model: str) -> str:
    """Return what the size alone predicts of both adapters, and how the measured shares compare, as text."""
    found = {adapter: beyond_size(runs, adapter, model) for adapter in (LOW, HIGH)}
    shares = " against ".join(f"{share:.1%}" for share, _ in found.values())
    ratios = ", ".join(f"{a} {times(ratio)}" for a, (_, ratio) in found.items())
    return f"by the size of ΔW alone: {shares}; measured ÷ this: {ratios}"


def claims(runs: Sequence[dict], factors: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        factors: factor -> comparison of the model that is merged with it; some factors are wrong.
    """
    every = [run for run in runs if run["kind"] == "merge"]
    exact = max(values(every, MERGED, "changed"))
    kept = estimates.change(*([r["unchanged"] for r in of_adapter(runs, a)] for a in (HIGH, LOW)))
    matched = estimates.ratio(*(values(of_adapter(runs, a), REFERENCE, "nll") for a in (HIGH, LOW)))
    more, smol_more = further(runs, LOW), further(runs, LOW, SMOL)
    wrong = {name: each["changed"] for name, each in factors.items() if each["logits"] > 0.01}
    least = min(wrong, key=lambda name: wrong[name])
    right = estimates.change(
        *(values(of_adapter(runs, LOW), v, "correct") for v in (REFERENCE, BOTH))
    )
    one, many = RECIPES[EMBEDDED].lengths
    slow, same, long = (slowdown(runs, name, n) for name, n in (("adapter", one), ("merged", one), ("adapter", many)))  # fmt: skip
    smol = slowdown(runs, "adapter", RECIPES[SMOL].lengths[0], SMOL)
    four, real = other_base(runs, FOUR), other_base(runs, FOUR, SMOL)

    def said(found: Estimate) -> str:
        return f"{times(found)}, {verdict(found, 'higher', 'lower', neutral=1.0)}"

    rows = [
        (
            f"A merge in float32 changed {'no answer' if exact == 0 else 'some answers'} here",
            f"at most {exact:.1%} of a run's answers, {len(every)} runs",
            f"adapter left out: {percent(changed(runs, HIGH, 'base'))}; of the wrong factors above, the least: {least}, {wrong[least]:.0%}",
            f"logits move, by {max(values(every, MERGED, 'logits')):.0e} of their norm at most",
        ),
        (
            f"Low learning rate, bfloat16: {verdict(kept, 'more entries stay', 'fewer entries stay')}",
            f"{percent(stays(runs, LOW))}, {points(kept)}",
            f"{sized(runs, EMBEDDED)}; test loss, low ÷ high: {times(matched)}",
            f"SmolLM2: {percent(stays(runs, LOW, SMOL))} against {percent(stays(runs, HIGH, SMOL))}; {sized(runs, SMOL)}",
        ),
        (
            f"Low learning rate: rounding the weights moves the predictions, compared with bfloat16 arithmetic: {verdict(more, 'more', 'less', neutral=1.0)} (embedded), {verdict(smol_more, 'more', 'less', neutral=1.0)} (SmolLM2)",
            f"KL {times(more)}; answers changed by both together {percent(changed(runs, LOW, BOTH))}, right ones {points(right)}",
            f"the arithmetic alone: answers changed {percent(changed(runs, LOW, ARITHMETIC))}",
            f"SmolLM2, low: {said(smol_more)}; high: {said(further(runs, HIGH, SMOL))}",
        ),
        (
            f"Time with an adapter that is not merged: {verdict(slow, 'longer', 'shorter', neutral=1.0)}",
            f"{times(slow)} of the base's, one token at once",
            f"merged: {times(same)}",
            f"{many} tokens at once: {times(long)}; SmolLM2, one token: {times(smol)}; one processor, one thread: another machine differs",
        ),
        (
            f"Trained on 4 bits, merged into the full base: loss {verdict(four, 'higher', 'lower', neutral=1.0)}",
            f"{times(four)} of the loss in its own base",
            f"both trainings: the other base ÷ the own one {said(apart(runs)[0])}; the full base ÷ the 4-bit one {said(apart(runs)[1])}",
            f"SmolLM2, one of the two trainings: {said(real)}",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
