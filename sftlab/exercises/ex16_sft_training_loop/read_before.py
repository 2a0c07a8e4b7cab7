"""Which test questions the base has read with their answers on pages of questions and answers.

The documents of pretraining follow from its seed, so they are written once more, step by step, and
cut where a training sequence ended. A question counts as read if its line and that of its right
answer stand in them word for word, with any of the marks that such pages have. This takes about two
minutes on one core.
"""

from __future__ import annotations

from sftlab.almanac.pretrain import Recipe, rows
from sftlab.exercises.ex16_sft_training_loop.stopping import questions
from sftlab.models import load

RECORD = "read_before"  # data/results/read_before.json

RECIPE = Recipe()
EACH = 500  # steps of a run
MARKS = {"Q:": "A:", "Question:": "Answer:", "Q.": "A."}  # of a page of questions and answers


def settings() -> list[dict]:
    """Return the steps of pretraining in parts."""
    return [{"first": first, "steps": EACH} for first in range(0, RECIPE.steps, EACH)]


def page(step: int, tokenizer) -> str:
    """Return the text of the training sequences of one step, documents apart by an empty line."""
    texts = tokenizer.batch_decode(
        rows(RECIPE, step, tokenizer), clean_up_tokenization_spaces=False
    )
    return "\n\n".join([*texts, ""]).replace(tokenizer.bos_token, "\n\n")


def run(first: int, steps: int) -> dict:
    """Return how often each test question was read in some steps, by the mark of its line."""
    _, tokenizer = load("almanac")
    asked = questions()[1]
    times = {mark: [0] * len(asked) for mark in MARKS}
    for step in range(first, first + steps):
        read = page(step, tokenizer)
        for n, question in enumerate(asked):
            for mark, answer in MARKS.items():
                line = f"{mark} {question['prompt']}\n{answer} {question['response']}\n"
                times[mark][n] += read.count(line)
    return {"times": times}
