"""The arguments with which the book calls an explorer, and the tables for those that the browser computes.

Each is made as the notebook makes it; a test compares the first state with the notebook's.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from sftlab import masking
from sftlab.chat import end_of_turn_id, render, user
from sftlab.classroom import catalogue, views
from sftlab.errors import WorkbookError
from sftlab.exercises.ex04_sft_loss import experiment as sft_loss
from sftlab.exercises.ex13_before_after_sft import experiment as before_after
from sftlab.exercises.ex18_lora_with_peft.plots import sizes
from sftlab.exercises.ex21_qlora_finetuning import plots as dtypes
from sftlab.exercises.record import runs
from sftlab.lora import break_even_rank
from sftlab.loss import IGNORE_INDEX, token_nll
from sftlab.memory import shapes
from sftlab.models import load
from tools import quick_plans
from tools.live import BASE

PARAMETERS = {"MODEL": "almanac", "SEED": 0, "FULL": False}  # of every notebook's first cell


@cache
def first_probabilities() -> tuple[list[str], list[float]]:
    """Return the tokens of an answer and the base's probability of each, as in notebook 04."""
    base, tokenizer = load("almanac")
    (example,) = sft_loss.examples(tokenizer, [sft_loss.questions()["short"][0]])
    ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
    with torch.no_grad():
        terms = token_nll(base(ids).logits, labels)[0][labels[0, 1:] != IGNORE_INDEX]
    trained = [i for i in example.labels if i != IGNORE_INDEX]
    return [tokenizer.decode([i]) for i in trained], (-terms).exp().tolist()


def models_of_18() -> dict[str, dict]:
    """Return the sizes of the embedded model and of the shapes that notebook 18 names."""
    base, _ = load("almanac")
    others = _literal("18", "REAL").items()
    return {"this one (almanac)": sizes(base)} | {
        name: sizes(shapes.build(shape)) for name, shape in others
    }


def training_of_13() -> tuple[list[float], dict[int, list[str]], list[str]]:
    """Train as the cells of notebook 13 do: the losses, the answers at some steps, the prompts."""
    names = {**vars(before_after), **PARAMETERS}
    names["train_step"] = catalogue.exercise("13.train_step").reference
    wanted = ("base", "rows", "held_out", "tune", "watched", "watch", "tuned_model")
    for _, statement in sorted(_binding("13", name) for name in wanted):
        exec(statement, names)
    return names["losses"], names["album"], [asked["prompt"] for asked in names["watched"]]


def _literal(number: str, name: str) -> Any:
    """A constant that a notebook writes down."""
    return ast.literal_eval(_binding(number, name)[1].partition("=")[2].strip())


def _binding(number: str, name: str) -> tuple[int, str]:
    """The statement of a notebook's cells that binds a name first, and its place among all.

    Raises:
        LookupError: no statement does.
    """
    code = catalogue.text(number, "code")
    for place, statement in enumerate(ast.parse(code).body):
        targets = getattr(statement, "targets", [statement])
        bound = {getattr(part, "id", getattr(part, "name", "")) for t in targets for part in getattr(t, "elts", [t])}  # fmt: skip
        if name in bound:
            return place, ast.get_source_segment(code, statement)
    raise LookupError(f"notebook {number} has no statement that binds {name}")


ARGUMENTS: dict[str, Callable[[], tuple]] = {
    "00.pick_a_model": tuple,
    "02.slide_n": lambda: (runs("superficial"),),
    "03.steps_slider": lambda: (runs("prompt_parts"),),
    "04.edit_probabilities": first_probabilities,
    "06.store_tasks": tuple,
    "07.count_parameters": tuple,
    "08.pick_a_start": lambda: (runs("lora_init"),),
    "09.carry_over": lambda: (runs("lora_over_ranks"),),
    "11.plan_memory": tuple,
    "12.mask_a_pair": lambda: (load("almanac")[1],),
    "13.watch_training": training_of_13,
    "17.try_factors": tuple,
    "18.pick_rank": lambda: (models_of_18(),),
    "19.memory_bars": tuple,
    "21.choose_dtypes": tuple,
    "22.one_defect": lambda: (runs("data_defects"),),
    "24.fill_sequences": tuple,
}


def _terms(explorer: Any) -> dict:
    return {"tokens": [views.visible(token) for token in first_probabilities()[0]]}


def _widths(explorer: Any) -> dict:
    widths, outs, ranks = (list(c._options_values) for c in explorer.controls.values())
    last = [[break_even_rank(d_in, d_out) for d_out in outs] for d_in in widths]
    return {"d_in": widths, "d_out": outs, "r": ranks, "last": last}


def _pair(explorer: Any) -> dict:
    """The tokenizer, what the template writes around a pair, and how a token looks."""
    _, tokenizer = load("almanac")

    def talk(prompt: str, response: str) -> list[dict]:
        return [*user(prompt), {"role": "assistant", "content": response}]

    return {
        "tokenizer": json.loads((BASE / "tokenizer.json").read_text(encoding="utf-8")),
        "template": re.split("PROMPT|RESPONSE", render(tokenizer, talk("PROMPT", "RESPONSE"))),
        "end": end_of_turn_id(tokenizer),
        "masked_label": IGNORE_INDEX,
        "looks": {"trained": views.TRAINED, "masked": views.MASKED, "font": views.FONT},
        "empty": [_refusal(tokenizer, talk("", "a")), _refusal(tokenizer, talk("a", ""))],
        "joined": masking._why_no_prefix(tokenizer, talk("a", "a")),
    }


def _refusal(tokenizer: Any, talk: list[dict]) -> str:
    """Why a conversation is no example, in words."""
    try:
        masking.build_example(tokenizer, talk)
    except WorkbookError as error:
        return str(error)
    raise AssertionError("it was accepted")


# What `explorers.js` computes with.
TABLES: dict[str, Callable[[Any], dict]] = {
    "04.edit_probabilities": _terms,
    "07.count_parameters": _widths,
    "12.mask_a_pair": _pair,
}


@contextmanager
def quick(id: str) -> Iterator[None]:
    """Do what takes long once while an explorer is called and its states are drawn."""
    if id == "21.choose_dtypes":  # a model of the same shape for each state
        shown, dtypes.build = dtypes.build, cache(dtypes.build)
        try:
            yield
        finally:
            dtypes.build = shown
    elif id in ("11.plan_memory", "19.memory_bars"):
        with quick_plans.interpolated():
            yield
    else:
        yield
