"""Notebooks on SmolLM2-135M-Instruct, cell by cell, where the model was fetched (``make models``).

A whole one where that is quick; of the others the part that says something about a real model. They
are asked less and take fewer steps: every cell runs, on the real layers and the real tokenizer.
"""

from __future__ import annotations

import pytest

from sftlab.classroom.catalogue import NOTEBOOKS
from sftlab.fetch import model_folder
from tools.other_models import with_model
from tools.publish import execute

MODEL = "smollm2-instruct"
# Notebook -> heading before which to stop; None for all of it.
PARTS = {
    "14_chat_templates": None,
    "18_lora_with_peft": "### One budget: in which of two places?",
    "05_chat_template_mismatch": "### What does one model make of each form?",
    "19_full_vs_lora": "### What does a step cost in time?",
    "20_merge_lora": "### Is the merged model faster?",
    "21_qlora_finetuning": "### Do both bases learn?",
    "24_packing": "## Over seeds",
    "25_tools_and_thoughts": "### When does it call?",
}
# Notebook -> what a cell says -> what it says here.
LESS = {
    "14_chat_templates": {
        "questions(fewer(16, base))": "questions(fewer(16, base))[:2]",
        "[:2], max_": "[:1], max_",
    },
    "19_full_vs_lora": {
        'start("19", seed=SEED, model=MODEL)': 'start("19", seed=SEED, model=MODEL)\n'
        "BATCHES[SHAPE] = [(1, 32), *BATCHES[SHAPE][1:]]"
    },
    "20_merge_lora": {
        "recipe(MODEL).batch), 24)": "2), 3)",
        "[1][: 100 if FULL else 25], recipe(MODEL).limit": "[1][:2], 3",
        "range(100)": "range(10)",
        "(1, 10, 100)": "(1, 10)",
    },
    "21_qlora_finetuning": {
        "tensor[:4] for": "tensor[:1] for",
        "ways = [(True, True, True), *product((True, False), (True, False), (False,))]": (
            "ways = [(True, True, True), (False, False, False)]"
        ),
    },
    "24_packing": {
        "fewer(32, model)": "8",
        "orders[: fewer(STEPS, student)]": "orders[:1]",
        "questions()[1]))": "questions()[1][:8]))",
    },
}

pytestmark = pytest.mark.slow
fetched = pytest.mark.skipif(
    not model_folder(MODEL).is_dir(),
    reason=f"{MODEL} is not on this machine: fetch it with  make models  (93 MB)",
)


def part(name):
    """The notebook as it runs here."""
    notebook, stop = with_model(NOTEBOOKS / f"{name}.ipynb", MODEL), PARTS[name]
    if stop:
        (end,) = (n for n, cell in enumerate(notebook.cells) if stop in cell.source)
        del notebook.cells[end:]
    for said, less in LESS.get(name, {}).items():
        (cell,) = (cell for cell in notebook.cells if said in cell.source)
        cell.source = cell.source.replace(said, less)
    return notebook


@pytest.mark.parametrize("name", PARTS)
def test_what_ends_or_shortens_a_notebook_stands_in_it_once(name):
    """Without a model, too: a renamed heading is seen on every machine."""
    assert part(name).cells


SOON = "05_chat_template_mismatch"  # takes 15 seconds and has the real tokenizer and layers


@fetched
@pytest.mark.parametrize(
    "name", [SOON, *(pytest.param(n, marks=pytest.mark.thorough) for n in PARTS if n != SOON)]
)
def test_it_runs_on_smollm2(name):
    notebook = part(name)
    execute(notebook, NOTEBOOKS / f"{name}.ipynb", limit=180)
    shown = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not any(output.output_type == "error" for output in shown)
    assert MODEL in str(shown)  # start() says on which model
