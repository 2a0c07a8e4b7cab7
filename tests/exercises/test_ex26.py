"""Notebook 26: the sample file, groups and splits, the recorded runs, and the words that follow them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sftlab.chat import encode, user
from sftlab.data import read_jsonl
from sftlab.exercises.ex26_served_model import experiment, outside, plots, sample, serving
from sftlab.exercises.ex26_served_model.experiment import GROUPS, KINDS, ROWS, SERVED, TRAINED
from sftlab.exercises.ex26_served_model.gates import HELD_OUT, alike, groups, split
from sftlab.exercises.record import runs
from sftlab.export import STORED, read_back, write_gguf
from sftlab.models import load


# --- The sample ----------------------------------------------------------------------------------
def test_the_sample_file_is_the_one_that_is_generated():
    rows, later = sample.sample()
    assert read_jsonl(sample.FOLDER / "desk.jsonl") == rows
    assert read_jsonl(sample.FOLDER / "asked_later.jsonl") == later


def test_what_the_sample_promises():
    rows, later = sample.sample()
    group_of = groups([row["prompt"] for row in rows], alike)
    answers = [{row["response"] for row, g in zip(rows, group_of, strict=True) if g == group} for group in set(group_of)]  # fmt: skip
    assert len(answers) == 2 * sample.FACTS and all(len(each) == 1 for each in answers)
    sizes = np.bincount(group_of)
    assert sorted(set(sizes[sizes > 0])) == [1, 3]
    assert sum(alike(row["prompt"], q["prompt"]) for row in rows for q in later) == 0
    assert sum("room" in q["response"] for q in later) == len(later) // 2 == sample.LATER


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_on_one_side(seed):
    rows = experiment.read_pairs()
    group_of = groups([row["prompt"] for row in rows], alike)
    kept, held_out = split(rows, group_of, seed)
    assert len(kept) + len(held_out) == len(rows) and HELD_OUT <= len(held_out) <= HELD_OUT + 2
    assert serving.leaked(kept, held_out) == 0
    assert serving.leaked(*split(rows, range(len(rows)), seed)) > 0.5 * HELD_OUT
    assert split(rows, group_of, seed) == (kept, held_out) != split(rows, group_of, seed + 1)


def test_pairs_of_other_formats(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("question,answer\nWho?,Me.\n", encoding="utf-8")
    assert experiment.read_pairs(path) == [{"prompt": "Who?", "response": "Me."}]


# --- Templates and rounding ----------------------------------------------------------------------
def test_templates_of_servers(tokenizer):
    trained = encode(tokenizer, user("Who?"), add_generation_prompt=True)
    found = {name: experiment.prompt_ids(tokenizer, "Who?", t) for name, t in SERVED.items()}
    assert [name for name, ids in found.items() if ids == trained] == [experiment.REWRITTEN]
    assert found[plots.LOST] == trained[:-1]  # what Jinja drops is the last token
    assert found["default system turn"][-len(trained) :] == trained


@pytest.mark.parametrize("kind", STORED)
def test_rounded_weights_are_those_of_the_file(kind, tiny_model, tokenizer, tmp_path):
    write_gguf(tiny_model, tokenizer, tmp_path / "model.gguf", kind)
    stored, found = (
        read_back(tmp_path / "model.gguf", tiny_model),
        experiment.rounded(tiny_model, kind),
    )
    assert all((stored[name] == weight).all() for name, weight in found.state_dict().items())


def test_divergence(tiny_model, tokenizer):
    rows = [{"prompt": "Who?"}]
    asked = [experiment.prompt_ids(tokenizer, "Who?")]
    found = experiment.replies(tiny_model, tokenizer, rows)
    assert experiment.divergence(tiny_model, tiny_model, asked, found) == 0
    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        other.model.norm.weight.mul_(0.5)
    assert experiment.divergence(tiny_model, other, asked, found) > 0


def test_the_wrong_order_undoes_to_the_right_one(tiny_model):
    wrong = serving.not_reordered(tiny_model)
    moved = [n for (n, p), q in zip(tiny_model.named_parameters(), wrong.parameters(), strict=True) if (p != q).any()]  # fmt: skip
    assert {name.split(".")[-2] for name in moved} == {"q_proj", "k_proj"}


def test_the_file_is_read_without_llama_cpp_too(tiny_model, tokenizer, tmp_path, monkeypatch, capsys):  # fmt: skip
    monkeypatch.setattr(serving, "missing", lambda: "llama.cpp is not here")
    write_gguf(tiny_model, tokenizer, tmp_path / "model.gguf")
    rows = [{"prompt": "Who?"}, {"prompt": "What is the capital of Chile?"}]
    found = serving.elsewhere(tmp_path / "model.gguf", rows)
    ours = experiment.replies(tiny_model, tokenizer, rows)
    assert found == [(experiment.prompt_ids(tokenizer, r["prompt"]), o.ids) for r, o in zip(rows, ours, strict=True)]  # fmt: skip
    assert "llama.cpp is not here. Until then transformers" in capsys.readouterr().out


# --- The recorded runs ---------------------------------------------------------------------------
@pytest.fixture(scope="module")
def recorded():
    return runs("served")


def test_every_run_is_recorded(recorded):
    assert [{k: run[k] for k in ("seed", "split")} for run in recorded] == experiment.settings()
    assert len(runs("served_outside")) == len(outside.settings()) == experiment.SEEDS
    for run in recorded:
        assert (run["copied"] == 0) == (run["split"] == GROUPS)
        if run["split"] == GROUPS:
            assert set(run["templates"]) == {TRAINED, *SERVED} and set(run["rounding"]) == {*KINDS}


def test_the_gate_separates_same_tokens_from_others(recorded):
    for found in plots.over_seeds(recorded, GROUPS, "templates"):
        refused = {name: one["refused"] for name, one in found.items()}
        assert refused == {n: float(n not in (TRAINED, experiment.REWRITTEN)) for n in refused}
        assert found[experiment.REWRITTEN] == found[TRAINED] | {"refused": 0.0}


def test_words_follow_the_numbers(recorded):
    outside_ = runs("served_outside")
    table = plots.claims(recorded, outside_)
    assert table.shape == (4, 4) and "too high" in table.claim[0] and "costs" in table.claim[1]
    flipped = copy.deepcopy(recorded)
    for run in flipped:
        run["held_out"], run["later"] = run["later"], run["held_out"]
        for found in run.get("templates", {}).values():
            found["exact"] = 1 - found["exact"]
    changed = plots.claims(flipped, outside_)
    assert "too low" in changed.claim[0] and "gains" in changed.claim[1]
    assert "0 of 5 templates cost" in plots.templates(flipped).alt
    assert "promises too little" in plots.scores(flipped).alt
    assert ROWS in plots.split_table(recorded).index


def test_a_trained_model_answers_as_recorded_and_llama_cpp_agrees_on_most(recorded):
    """The rounding of the recorded runs is small where the exported files agree."""
    for run in runs("served_outside"):
        exact = run["same_answers"]["float32, cache in float32"]
        assert exact == run["questions"] == run["same_prompts"]["q8_0, cache in float16"]


def test_the_base_does_not_know_the_template():
    model, tokenizer = load("almanac")
    rows = experiment.read_pairs()[:8]
    assert not any(experiment.exact(experiment.replies(model, tokenizer, rows), rows))
