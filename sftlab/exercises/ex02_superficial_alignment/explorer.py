"""Notebook 02: a slider over n, and the rank of each token under the base."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets
import torch

from sftlab.chat import encode, user
from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.classroom.views import View, table, visible
from sftlab.exercises.ex02_superficial_alignment.experiment import ARMS, SIZES, questions
from sftlab.exercises.ex02_superficial_alignment.plots import at, n_table, rank_view
from sftlab.exercises.ex02_superficial_alignment.rank_shift import forced_logits, token_rank_shift
from sftlab.exercises.views import stacked
from sftlab.generate import next_token_distribution
from sftlab.statistics import chosen


def slide_n(runs: Sequence[dict]) -> None:
    """Choose an arm and the number of pairs; see format and content by group, and some answers."""
    asked = questions()[::40]

    def draw(arm: str, pairs: int) -> View:
        run = chosen(runs, **at(arm, pairs))[0]
        rows = [
            [q["prompt"], text[:90]] for q, text in zip(asked, run["answers"], strict=True)
        ]  # fmt: skip
        return stacked(n_table(runs, arm, pairs), table(rows, ["question", "reply (seed 0)"]))

    controls = {
        "arm": widgets.Dropdown(options=ARMS, description="arm", style=DESCRIBED),
        "pairs": widgets.SelectionSlider(
            options=SIZES, value=8, description="training pairs", style=DESCRIBED
        ),
    }
    explorer(controls, draw, lambda arm, pairs: f"Format and content by group: {arm}, {pairs} pairs.", continuous=True)  # fmt: skip


def token_ranks(base, tokenizer, answers: dict[str, Sequence[int]]) -> None:
    """Choose a question and a token of a tuned model's answer; see what the base would have written.

    Args:
        answers: question -> ids of the tuned model's own answer, with its end-of-turn token.
    """
    known: dict[str, torch.Tensor] = {}

    def draw(question: str, token: int) -> View:
        ids = list(answers[question])
        if question not in known:
            prompt = encode(tokenizer, user(question), add_generation_prompt=True)
            known[question] = forced_logits(base, prompt, ids)
        place = min(token, len(ids)) - 1
        words = [tokenizer.decode([i]) for i in ids]
        ranks = token_rank_shift(known[question], torch.tensor(ids)).tolist()
        chances = next_token_distribution(known[question][: place + 1])
        top = chances.topk(5)
        rows = [
            [k, visible(tokenizer.decode([i])), f"{p:.3f}", "← the tuned model’s" if i == ids[place] else ""]
            for k, (p, i) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True), 1)
        ]  # fmt: skip
        if ranks[place] > 5:
            own = [ranks[place], visible(words[place]), f"{chances[ids[place]]:.3f}", "← the tuned model’s"]  # fmt: skip
            rows.append(own)
        return stacked(
            rank_view(words, ranks, f"The tuned model’s answer to: {question}", place),
            table(rows, ["rank", "the base would write", "p", ""], f"token {place + 1} of {len(ids)}"),
        )  # fmt: skip

    controls = {
        "question": widgets.Dropdown(
            options=list(answers), description="question", style=DESCRIBED, layout=WIDE
        ),
        "token": widgets.IntSlider(
            min=1, max=max(map(len, answers.values())), value=1, description="token"
        ),
    }
    explorer(controls, draw, lambda question, token: f"Ranks under the base of the tuned model's answer to {question!r}; token {token} is chosen.")  # fmt: skip
