"""Figures and tables of notebook 13, from recorded runs. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import bars, curves
from sftlab.exercises.estimates import Estimate, change, mean, percent, points, tuned, verdict
from sftlab.exercises.ex13_before_after_sft.dose import ARMS as DECLINING
from sftlab.exercises.ex13_before_after_sft.dose import curve
from sftlab.exercises.ex13_before_after_sft.experiment import (
    CHECKPOINTS,
    LINES,
    RATES,
    TRAINED,
    UNTRAINED,
    ask,
)
from sftlab.scoring import score_answer
from sftlab.statistics import chosen

ARMS = (*UNTRAINED, *TRAINED)
PAGE = "Q and A"


def best(runs: Sequence[dict], arm: str) -> list[dict]:
    """Return the runs of one learning rate, a run per seed: that with most exact validation answers."""
    return tuned(chosen(runs, arm=arm), lambda run: -run["validation"][-1]["correct"])


def values(runs: Sequence[dict], arm: str, line: str, place: int = -1) -> list[float]:
    """Return a share of every seed: of the test questions, at one checkpoint (the last)."""
    return [run["test"][place][line] for run in best(runs, arm)]


def tested(runs: Sequence[dict], arm: str, line: str) -> Estimate:
    """Return the mean share of an arm after the last step, with its 95% t interval over the seeds."""
    value, (low, high) = mean(values(runs, arm, line))
    return value, (max(low, 0.0), min(high, 1.0))


def cost_of_wrong_values(runs: Sequence[dict], rate: float) -> Estimate:
    """Return by how much wrong values change the share of right facts, at one learning rate."""
    at = chosen(runs, learning_rate=rate)
    return change(*(values(at, arm, "content") for arm in TRAINED))


def at_rate(runs: Sequence[dict], arm: str, rate: float, line: str = "content") -> Estimate:
    """Return the mean share of an arm at one learning rate, with its 95% t interval over the seeds."""
    return tested(chosen(runs, learning_rate=rate), arm, line)


def shown(runs: Sequence[dict], arm: str, line: str) -> str:
    """Return a share as text, with its interval if there is more than one run."""
    count = len(best(runs, arm))
    value = tested(runs, arm, line)
    return percent(value) if count > 1 else f"{value[0]:.0%} (1 run)"


def arms_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return one row per arm: its learning rate, and the shares of the test questions."""
    lines = [
        {
            "arm": arm,
            "learning rate": f"{best(runs, arm)[0]['learning_rate']:g}" if arm in TRAINED else "–",
            "seeds": len(best(runs, arm)),
            **{name: shown(runs, arm, line) for line, name in LINES.items()},
        }
        for arm in ARMS
        if chosen(runs, arm=arm)
    ]
    return pd.DataFrame(lines).set_index("arm")


def by_rate(runs: Sequence[dict], line: str = "content") -> pd.DataFrame:
    """Return the mean share of the test questions after the last step, by arm and learning rate."""
    found = {
        arm: {
            f"{rate:g}": np.mean([r["test"][-1][line] for r in chosen(runs, arm=arm, learning_rate=rate)])
            for rate in RATES
        }
        for arm in TRAINED
    }  # fmt: skip
    return pd.DataFrame(found).T.map("{:.0%}".format).rename_axis(columns="learning rate")


def why_the_rate(runs: Sequence[dict]) -> str:
    """By how much the two kinds of pairs differ at the lowest and at this learning rate."""
    low, high = (points(cost_of_wrong_values(runs, rate)) for rate in (RATES[0], RATES[2]))
    return (
        f"At {RATES[0]:g} wrong values change the right facts by {low}, at {RATES[2]:g} by {high}."
    )


def why_answers(runs: Sequence[dict]) -> str:
    """What the untrained base knows, asked between "Q:" and "A:"."""
    return f"Between “Q:” and “A:” the untrained base names {tested(runs, PAGE, 'content')[0]:.0%} of the facts."


def shares_of(found: Mapping[str, Mapping[str, float]]):
    """A bar for each arm and line of the score."""
    by_line = {name: {arm: shares[line] for arm, shares in found.items()} for line, name in LINES.items()}  # fmt: skip
    words = "; ".join(
        f"{name}: " + ", ".join(f"{arm} {value:.0%}" for arm, value in arms.items())
        for name, arms in by_line.items()
    )
    title = "One seed: shares of the held-out questions"
    return bars(by_line, title, f"{title}. {words}.", fmt=".0%", percent="x", figsize=(8, 4.2))


def wrong_answers(models: Mapping, tokenizer, asked: Sequence[dict], rows: int = 5) -> pd.DataFrame:
    """Return what models write to the first questions to which the last of them writes a wrong fact."""
    texts = {arm: ask(model, tokenizer, asked) for arm, model in models.items()}
    *_, last = texts
    wrong = [
        k
        for k, (question, reply) in enumerate(zip(asked, texts[last], strict=True))
        if not score_answer(question, reply.text, reply.stopped).content
    ]
    table = {arm: [replies[k].text for k in wrong[:rows]] for arm, replies in texts.items()}
    return pd.DataFrame(table, index=[asked[k]["prompt"] for k in wrong[:rows]])


def over_steps(runs: Sequence[dict], rate: float = RATES[2]):
    """Right facts and exact answers over the training steps at one learning rate, for both trained arms."""
    at = chosen(runs, learning_rate=rate)
    found = {
        name: {
            arm: {step: values(at, arm, line, k) for k, step in enumerate(CHECKPOINTS)}
            for arm in TRAINED
        }
        for line, name in LINES.items()
        if line != "stops"
    }
    page = {name: np.mean(values(runs, PAGE, line)) for line, name in LINES.items()}
    words = "; ".join(
        f"{name} after {CHECKPOINTS[-1]} steps: "
        + ", ".join(f"{arm} {np.mean(points[CHECKPOINTS[-1]]):.0%}" for arm, points in arms.items())
        for name, arms in found.items()
    )
    return curves(
        found, f"Held-out questions over the training steps, learning rate {rate:g} (band: range of the seeds)",
        f"Line charts of shares of held-out questions. {words}.", panels=True, percent="y", ylim=(0, 1.03),
        xlabel="training step", sharey=True, figsize=(9.2, 3.4),
        each={name: {"axhline": {page[name]: "untrained, Q and A"}} for name in found},
    )  # fmt: skip


def dose_curve(runs: Sequence[dict]):
    """Declining the unknown against answering the known, over the dose, one panel per arm."""
    table = curve(runs)
    names = {"declined": "unknown: declined", "known_right": "known: right", "wrongly_declined": "known: declined"}  # fmt: skip
    found = {
        arm: {
            name: {row.dose: (row[key], (row[f"{key} low"], row[f"{key} high"])) for _, row in rows.iterrows()}
            for key, name in names.items()
        }
        for arm, rows in table.groupby("arm", sort=False)
    }  # fmt: skip
    last = table.dose.max()
    words = "; ".join(
        f"{arm}, {last} pairs: " + ", ".join(f"{n} {points[last][0]:.0%}" for n, points in lines.items())
        for arm, lines in found.items()
    )  # fmt: skip
    return curves(
        found, "Questions about unknown and known names, over the number of declining pairs",
        f"Line charts of shares of questions. {words}.", panels=True, percent="y", ylim=(-0.02, 1.03),
        xlabel="pairs that decline", sharey=True, figsize=(9.2, 3.4),
    )  # fmt: skip


def gain_of_known(declining: Sequence[dict], name: str) -> Estimate:
    """Return what known facts beside the declining pairs change at the largest dose, paired by seed."""
    dose = max(run["dose"] for run in declining)
    return change(*([r[name] for r in chosen(declining, arm=arm, dose=dose)] for arm in DECLINING))


def claims(runs: Sequence[dict], real: Sequence[dict], declining: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""
    base, after = (tested(runs, arm, "correct") for arm in ("base", "32 pairs"))
    answers = verdict(
        (after[0] - base[0], (after[1][0] - base[0], after[1][1] - base[0])), "more", "fewer"
    )
    low, middle, high, highest = (cost_of_wrong_values(runs, rate) for rate in RATES)
    own = change(*(values(runs, arm, "content") for arm in TRAINED))
    few_shot = change(
        *(values(real, arm, "correct") for arm in ("Q and A, 4 examples", "32 pairs"))
    )
    doses = curve(declining)
    last = doses[doses.dose == doses.dose.max()].set_index("arm")
    alone = last.loc[DECLINING[0]]
    known = gain_of_known(declining, "known_right")

    def said(found: Estimate) -> str:
        return f"{points(found)}, {verdict(found, 'more', 'fewer')}"

    def exact(arm: str, some: Sequence[dict] = runs) -> str:
        return shown(some, arm, "correct")

    rows = [
        (
            f"After {CHECKPOINTS[-1]} steps on 32 pairs, questions in the chat template are answered exactly: {answers}",
            f"{exact('base')} before, {percent(after)} after",
            f"without training: four examples in the template {exact('template, 4 examples')}; “Q: … A:” with no example "
            f"{exact(PAGE)}, with four {exact('Q and A, 4 examples')}",
            f"SmolLM2, tuned before: {exact('base', real)} before, {exact('32 pairs', real)} after; “Q: … A:” with four "
            f"examples {exact('Q and A, 4 examples', real)}, paired {said(few_shot)}",
        ),
        (
            f"Wrong values in the pairs, learning rate {RATES[2]:g}: {verdict(high, 'more', 'fewer')} right facts",
            points(high),
            "the same questions, steps and learning rate with right values: "
            + percent(at_rate(runs, "32 pairs", RATES[2])),
            f"each arm's best learning rate: {said(own)}. {RATES[0]:g}: {said(low)}; {RATES[1]:g}: {said(middle)}; "
            f"{RATES[3]:g}: {said(highest)}. SmolLM2, {RATES[1]:g}: {said(cost_of_wrong_values(real, RATES[1]))}",
        ),
        (
            f"{doses.dose.max()} pairs that decline invented names: {alone['declined']:.0%} of new invented names declined",
            f"known facts right: {alone['known_right']:.0%} ({alone['known_right low']:.0%} to {alone['known_right high']:.0%}); "
            f"without such pairs {doses.known_right.iloc[0]:.0%}",
            f"as many known facts beside them: {said(known)} known facts right; "
            f"declined {said(gain_of_known(declining, 'declined'))}",
            "the names have other syllables than in training, the questions the same templates",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])


# --- Gemma 3 270M, one seed ------------------------------------------------------------------

MARKS = {"content": "right fact", "correct": "exactly right", "format": "right format", "stops": "stops"}  # fmt: skip


def share(runs: Sequence[dict], line: str) -> float:
    """Return the share of answers that meet a rubric line, over all seeds."""
    return float(np.mean([[int(mark) for mark in run[line]] for run in runs]))


def continues(runs: Sequence[dict]) -> float:
    """Return the share of bare questions that the base continues instead of answering them."""
    bare = runs[0]["bare"]
    return bare["continued"] / sum(bare.values())


def before_and_after(recorded: Sequence[dict]) -> pd.DataFrame:
    """Return one row per model and number of pairs: shares of the answers in the template."""
    rows = [
        {"model": f"{run['model']}, {run['count'] or 'no'} pairs"}
        | {name: f"{share([run], line):.0%}" for line, name in MARKS.items()}
        for run in sorted(recorded, key=lambda run: (run["model"], run["count"]))
    ]
    return pd.DataFrame(rows).set_index("model")
