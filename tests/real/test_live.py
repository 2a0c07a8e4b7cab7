"""Notebooks on SmolLM2-135M-Instruct, cell by cell, where the model was fetched (``make models``).

Whole ones where that is quick; of the others the part that says something about a real model.
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
    "18_lora_with_peft": "### One budget, two places",
    "05_chat_template_mismatch": "### One model, every form",
    "19_full_vs_lora": "### Time",
    "20_merge_lora": "### Speed",
    "21_qlora_finetuning": "### Train on both",
    "24_packing": "## Over seeds",
}

pytestmark = pytest.mark.slow
fetched = pytest.mark.skipif(
    not model_folder(MODEL).is_dir(),
    reason=f"{MODEL} is not on this machine: fetch it with  make models  (93 MB)",
)


@pytest.mark.parametrize("name", PARTS)
def test_the_heading_before_which_to_stop_is_there(name):
    """Without a model, too: a renamed heading is seen on every machine."""
    notebook = with_model(NOTEBOOKS / f"{name}.ipynb", MODEL)
    stop = PARTS[name]
    assert stop is None or sum(stop in cell.source for cell in notebook.cells) == 1


@fetched
@pytest.mark.parametrize("name", PARTS)
def test_it_runs_on_smollm2(name):
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = with_model(path, MODEL)
    if stop := PARTS[name]:
        (end,) = (n for n, cell in enumerate(notebook.cells) if stop in cell.source)
        del notebook.cells[end:]
    execute(notebook, path, limit=180)
    shown = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert not any(output.output_type == "error" for output in shown)
    assert MODEL in str(shown)  # start() says on which model
