"""Figures and tables of notebook 12. Their words follow the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.diagrams import Diagram
from sftlab.classroom.figures import bars, tokens
from sftlab.classroom.views import View, visible
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, percent, points, tuned, verdict
from sftlab.exercises.ex12_prompt_masking.experiment import APART, HEADERS, LAYOUTS, TOGETHER
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.statistics import chosen

PLAIN, SPACE, ELSEWHERE, _ = LAYOUTS
WHY = {  # why a prediction comes out as it does: prediction -> mechanism
    "a": "The mask removes the prompt's tokens as targets. The answer is still predicted from them.",
    "b": "The answer is computed from every token before it. The length of a gradient also depends on the scale of its embedding, so it does not rank tokens by importance.",
    "c": "“ The” is one token, with its space. After “A:␣” the model must go on with a token that has no space, which it has rarely read there.",
}  # fmt: skip


def two_rows(tokenizer, example: Example, prompt_tokens: int = 6) -> View:
    """Draw the last tokens of the prompt and all later ones above their labels, with the shift."""
    first = next(i for i, label in enumerate(example.labels) if label != IGNORE_INDEX)
    start = max(0, first - prompt_tokens)
    names = [visible(tokenizer.decode([i])) for i in example.input_ids[start:]]
    trained = [label != IGNORE_INDEX for label in example.labels[start:]]
    told = " ".join(f"[{n}]" if t else n for n, t in zip(names, trained, strict=True))
    alt = f"Tokens above their labels; those with a label are in brackets: {told}"
    width = 150 + sum(max(46, 8 * len(name) + 10) for name in names)
    made = Diagram(width, 116, alt)
    made.text(12, 34, "input_ids", code=True, bold=True)
    made.text(12, 96, "labels", code=True, bold=True)
    made.shifted_labels(96, 16, names, trained)
    return View(f'<div style="overflow-x:auto">{made.svg()}</div>', alt)


def reach(tokenizer, example: Example, norms: Sequence[float]):
    """Draw the gradient's norm at the embedding of each token; the trained ones are marked."""
    trained = [label != IGNORE_INDEX for label in example.labels[: len(norms)]]
    names = [tokenizer.decode([i]) for i in example.input_ids[: len(norms)]]
    told = ", ".join(f"{visible(n)} {x:.2g}" for n, x in zip(names, norms, strict=True))
    return tokens(names, norms, "Gradient of the loss at the embedding of each token read",
                  f"Bar chart, trained tokens marked. {told}.", marked=trained, ylabel="gradient norm")  # fmt: skip


def layouts(found: Mapping[str, Estimate]):
    """Draw the share of right facts for each layout of the prompt."""
    told = "; ".join(f"{name}: {percent(value)}" for name, value in found.items())
    return bars(found, "Right facts by the layout of the prompt, base model",
                f"Bars with intervals over kinds of question. {told}.", fmt=".0%", percent="x", xlabel="share of right facts")  # fmt: skip


def served(runs: Sequence[dict], trained: str, how: str) -> list[float]:
    """Return the share of right facts of each seed, at the learning rate of the arm."""
    found = tuned(chosen(runs, trained=trained), lambda run: -run["validation"])
    return [run[how] for run in found]


def served_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return the right facts of both arms with both prompts."""
    names = {APART: "served with the space", TOGETHER: "served without it"}
    return pd.DataFrame(
        {
            names[how]: {
                f"trained {said}": percent(estimates.mean(served(runs, trained, how)))
                for trained, said in ((APART, "with the space"), (TOGETHER, "without it"))
            }
            for how in (APART, TOGETHER)
        }
    )


def smollm2_change(recorded: Sequence[dict], kinds: Sequence[str], layout: str) -> Estimate:
    """Return the change of right facts on SmolLM2 against the plain layout, over kinds."""
    right = {run["layout"]: [int(c) for c in run["right"]] for run in recorded if "right" in run}
    return estimates.over_kinds(kinds, np.subtract(right[layout], right[PLAIN]).tolist())


def borders(counts: Mapping[str, Mapping[str, tuple[int, int]]]) -> pd.DataFrame:
    """Return how many answers are unsafe: tokenizer -> header -> (unsafe, all)."""
    rows = {
        name: {
            header.replace("\n", "⏎").replace(" ", "␣"): f"{few:,} of {all_:,}"
            for header, (few, all_) in by.items()
        }
        for name, by in counts.items()
    }
    return pd.DataFrame(rows)


def nats(found: Estimate) -> str:
    """Return a change of a loss with its interval as text."""
    value, (low, high) = found
    return f"{value:+.2f} nats ({low:+.2f} to {high:+.2f})"


def fewer(found: Estimate) -> str:
    """Return what a change of right facts says."""
    return "none" if found == (0.0, (0.0, 0.0)) else verdict(found, "more", "fewer")


def claims(
    subject: Mapping[str, Estimate], wording: Mapping[str, Estimate], shares: Sequence[Estimate], at_masked_logits: float,
    space: Estimate, elsewhere: Estimate, other_ids: Estimate,
    runs: Sequence[dict], real: Sequence[dict], kinds: Sequence[str],
    counts: Mapping[str, Mapping[str, tuple[int, int]]],
) -> pd.DataFrame:  # fmt: skip
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        subject, wording: "chat" and "base" -> change of the loss with another subject or wording.
        shares: the masked tokens' share of the gradients' norms, that of the same tokens with nothing
            masked, and the difference.
        at_masked_logits: largest gradient of a logit at a masked position.
        space, elsewhere: change of right facts with a space after "A:" or elsewhere.
        other_ids: change of the loss of the same text, in nats, if the space is a token of its own.
        kinds: of the questions that SmolLM2 was asked.
        counts: as in ``borders``.
    """

    def said(found: Estimate) -> str:
        return f"{points(found)}, {fewer(found)}"

    both = {t: estimates.change(served(runs, t, t), served(runs, t, h))
            for t, h in ((TOGETHER, APART), (APART, TOGETHER))}  # fmt: skip
    chatml = {name: by[HEADERS[1]] for name, by in counts.items()}
    few = {name: f"{unsafe:,} of {all_:,}" for name, (unsafe, all_) in chatml.items()}
    moved = chatml["with blank lines"][0] > chatml["no blank lines"][0]
    masked, plain, change = shares
    rows = [
        (
            f"Another subject in a masked prompt: loss {verdict(subject['chat'], 'higher', 'lower')}",
            nats(subject["chat"]),
            f"another wording of the question: {nats(wording['chat'])}",
            f"the base: another subject {nats(subject['base'])}, another wording {nats(wording['base'])}",
        ),
        (
            f"Masking a prompt: its share of the gradient at the embeddings {verdict(change, 'rises', 'falls')}, to {masked[0]:.0%}",
            f"{percent(masked)}; change {points(change)}",
            f"nothing masked: {percent(plain)}; gradient of the logits at masked positions: {at_masked_logits:g}",
            "norms in the base, before training",
        ),
        (
            f"A space after “A:”, right facts: {fewer(space)}",
            points(space),
            f"a space elsewhere: {said(elsewhere)}; the same text with other ids: {nats(other_ids)}",
            f"SmolLM2: {said(smollm2_change(real, kinds, SPACE))}",
        ),
        (
            f"Trained without that space, served with it: {fewer(both[TOGETHER])}",
            points(both[TOGETHER]),
            f"trained and served with it: {percent(estimates.mean(served(runs, APART, APART)))} right",
            f"trained with it, served without: {said(both[APART])}",
        ),
        (
            f"Merges of line breaks {'make' if moved else 'do not make'} answers unsafe after ChatML's header",
            few["with blank lines"],
            f"the same tokenizer without blank lines: {few['no blank lines']}",
            f"almanac: {few['almanac']}; SmolLM2: {few['SmolLM2']}",
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
