"""Figures and tables of notebook 26: splits, serving templates, rounding. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import dots
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, in_100, percent, points, verdict
from sftlab.exercises.ex26_served_model.experiment import (
    GROUPS,
    KINDS,
    REWRITTEN,
    ROWS,
    SERVED,
    TRAINED,
)
from sftlab.statistics import chosen

LOST = "last line break lost"
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "A held-out example whose near-copy was trained is answered from memory. A new question about the same kind of thing cannot be.",
    "b": "The first token of an answer was only ever trained after this line break. Without it the model goes on as if its answer had begun, as in some of the answers above. Seeds differ much.",
    "c": "Every weight moves a little, and the most probable token has to lose against the second one before an answer changes. Where the model is sure, small changes of the logits do not reach that far.",
}  # fmt: skip


def over_seeds(runs: Sequence[dict], split: str, name: str) -> list[float]:
    """Return a measurement of every seed's model."""
    return [run[name] for run in chosen(runs, split=split)]


def inflation(runs: Sequence[dict], split: str = ROWS) -> Estimate:
    """Return the score on held-out rows minus that on later questions, of the same models."""
    return estimates.change(over_seeds(runs, split, "later"), over_seeds(runs, split, "held_out"))


def between_splits(runs: Sequence[dict]) -> Estimate:
    """Return by how much more a split row by row inflates the score than one by groups, seed by seed."""
    by_row, by_group = (
        np.subtract(over_seeds(runs, split, "held_out"), over_seeds(runs, split, "later"))
        for split in (ROWS, GROUPS)
    )
    return estimates.mean((by_row - by_group).tolist())


def own(runs: Sequence[dict], split: str = ROWS) -> Estimate:
    """Return the same for the museum's own facts alone, which nobody can guess."""
    pairs = over_seeds(runs, split, "own")
    return estimates.change([p["later"] for p in pairs], [p["held_out"] for p in pairs])


def scores(runs: Sequence[dict]):
    """Draw the held-out score and the later one, a dot for each seed, for both splits."""
    found = {
        "held-out examples": {split: over_seeds(runs, split, "held_out") for split in (ROWS, GROUPS)},
        "questions asked later": {split: over_seeds(runs, split, "later") for split in (ROWS, GROUPS)},
    }  # fmt: skip
    told = {
        split: verdict(inflation(runs, split), "promises too much", "promises too little", "not settled")
        for split in (ROWS, GROUPS)
    }  # fmt: skip
    title = "; ".join(
        f"{split}: {what} ({points(inflation(runs, split))})" for split, what in told.items()
    )
    alt = "; ".join(
        f"{split}: held-out examples {np.mean(found['held-out examples'][split]):.0%}, later {np.mean(found['questions asked later'][split]):.0%}"
        for split in (ROWS, GROUPS)
    )
    return dots(found, "Share of exact answers, by how the file was split", f"{title}. {alt}.", xlim=(0, 1),
                xlabel="share of exact answers; a dot is a seed, a bar the mean", figsize=(7.6, 3.1))  # fmt: skip


def split_table(runs: Sequence[dict]) -> pd.DataFrame:
    rows = {
        split: {
            "held-out examples with a near-copy in training": f"{np.mean(over_seeds(runs, split, 'copied')):.0%}",
            "held-out − later": points(inflation(runs, split)),
            "the museum's own facts alone": points(own(runs, split)),
        }
        for split in (ROWS, GROUPS)
    }
    return pd.DataFrame(rows).T.rename_axis("split")


def template_change(runs: Sequence[dict], name: str, what: str = "exact") -> Estimate:
    """Return what a serving template changes, against the trained one, in the same models."""
    found = over_seeds(runs, GROUPS, "templates")
    return estimates.change([f[TRAINED][what] for f in found], [f[name][what] for f in found])


def kept_share(runs: Sequence[dict], name: str) -> Estimate:
    """Return the share of exact answers that a serving template leaves, of that of the trained one."""
    found = over_seeds(runs, GROUPS, "templates")
    return estimates.mean([f[name]["exact"] / f[TRAINED]["exact"] for f in found])


def template_table(runs: Sequence[dict]) -> pd.DataFrame:
    found = over_seeds(runs, GROUPS, "templates")
    rows = {}
    for name in (TRAINED, *SERVED):
        mean = {
            key: np.mean([f[name][key] for f in found]) for key in ("exact", "stops", "refused")
        }
        change = "" if name == TRAINED else points(template_change(runs, name))
        rows[name] = {"your gate refuses": f"{mean['refused']:.0%}", "exact": f"{mean['exact']:.0%}",
                      "change, paired": change, "stops": f"{mean['stops']:.0%}"}  # fmt: skip
    return pd.DataFrame(rows).T.rename_axis("template of the server")


def templates(runs: Sequence[dict]):
    """Draw what each serving template changes in the share of exact answers, with intervals."""
    found = {name: in_100(template_change(runs, name)) for name in SERVED}
    lost = [name for name in SERVED if template_change(runs, name)[1][1] < 0]
    title = f"{len(lost)} of {len(SERVED)} templates cost exact answers" + (f": {', '.join(lost)}" if lost else "")  # fmt: skip
    alt = "; ".join(f"{name}: {points(template_change(runs, name))}" for name in SERVED)
    return dots(found, title, f"{title}. {alt}.", zero=True, figsize=(7.6, 3.1),
                xlabel="change of exact answers (points), 95% interval over seeds")  # fmt: skip


def changed(runs: Sequence[dict], kind: str) -> Estimate:
    """Return the share of answers that rounding the weights changes, over seeds."""
    return estimates.mean([f[kind]["changed"] for f in over_seeds(runs, GROUPS, "rounding")])


def score_change(runs: Sequence[dict], kind: str) -> Estimate:
    """Return what rounding the weights changes in the share of exact answers, over seeds."""
    found = over_seeds(runs, GROUPS, "rounding")
    return estimates.change([f["float32"]["exact"] for f in found], [f[kind]["exact"] for f in found])  # fmt: skip


def rounding_table(runs: Sequence[dict]) -> pd.DataFrame:
    bits = {"float32": 32, "float16": 16, "bfloat16": 16, "q8_0": 8.5, "q4_0": 4.5}
    rows = {
        kind: {
            "bits a weight": bits[kind],
            "KL (nats per token)": f"{np.mean([f[kind]['kl'] for f in over_seeds(runs, GROUPS, 'rounding')]):.1e}",
            "answers changed": percent(changed(runs, kind)),
            "exact, change": points(score_change(runs, kind)),
        }
        for kind in KINDS
    }
    return pd.DataFrame(rows).T.rename_axis("stored as")


def outside_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return how many prompts and answers were the same in llama.cpp, over all seeds."""
    questions = sum(run["questions"] for run in runs)
    return pd.DataFrame(
        {
            name: {
                "prompts, token by token": f"{sum(r['same_prompts'][name] for r in runs)} of {questions}",
                "answers, token by token": f"{sum(r['same_answers'][name] for r in runs)} of {questions}",
            }
            for name in runs[0]["same_answers"]
        }
    ).T.rename_axis("file, and llama.cpp's cache")


def claims(runs: Sequence[dict], outside: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""
    rows_, groups_ = inflation(runs, ROWS), inflation(runs, GROUPS)
    lost, same, hint = (template_change(runs, n) for n in (LOST, REWRITTEN, "default system turn"))
    eight, four = changed(runs, "q8_0"), changed(runs, "q4_0")
    exact = "float32, cache in float32"
    questions = sum(run["questions"] for run in outside)
    equal = sum(run["same_answers"][exact] for run in outside)
    rounded = {k: sum(r["same_answers"][k] for r in outside) for k in outside[0]["same_answers"]}
    worst = min(rounded, key=lambda name: rounded[name])
    found = [
        (
            f"Split row by row, the held-out score is {verdict(rows_, 'too high', 'too low', 'not settled to be wrong')}",
            points(rows_),
            f"split group by group: {points(groups_)}; row by row − group by group: {points(between_splits(runs))}",
            "one file; copies that share 80% of their words",
        ),
        (
            f"A line break less in the header {verdict(lost, 'gains', 'costs', 'changes, not settled,')} exact answers",
            points(lost),
            f"another text with the same tokens: {points(same)}",
            f"one model and template; a system turn that was never trained: {points(hint)}",
        ),
        (
            "The exported float32 file gives the same answers in llama.cpp",
            f"{equal} of {questions}, token by token",
            f"{worst}: {rounded[worst]} of {questions}",
            "greedy decoding, short answers, one processor",
        ),
        (
            "8.5 bits a weight change few answers" if eight[1][1] < 0.1 else "8.5 bits a weight change answers",
            percent(eight),
            f"4.5 bits, the same code: {percent(four)}",
            f"one small model, short answers; score at 8.5 bits: {points(score_change(runs, 'q8_0'))}",
        ),
    ]  # fmt: skip
    return pd.DataFrame(found, columns=["claim", "measured", "control", "where it stops holding"])


def gate_table(found: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return which gates stop which file or server."""
    names = ("data", "leak", "score", "template", "answers")
    return pd.DataFrame(
        {fault: {gate: "stops" if gate in stops else "" for gate in names} for fault, stops in found.items()}
    ).T.rename_axis("what is wrong")  # fmt: skip
