"""Notebook 08: gradients of A and B, four starting points, and a part of the recorded runs again."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from sftlab.data import collate
from sftlab.exercises.ex08_lora_zero_init import explorer
from sftlab.exercises.ex08_lora_zero_init.experiment import (
    BATCH,
    INITS,
    RATE,
    RATES,
    batches,
    logits_of,
    mean_nll,
    rows_of,
    run,
    settings,
    start_from,
)
from sftlab.exercises.ex08_lora_zero_init.plots import (
    LABELS,
    four_losses,
    good_rates,
    one_start,
    over_rates,
)
from sftlab.exercises.ex08_lora_zero_init.plots import gradient_norms as norms_figure
from sftlab.exercises.record import runs
from sftlab.lora import inject_lora, lora_layers, lora_parameters
from sftlab.lora_statistics import gradient_norms, relative_update, updates, which_is_stuck
from sftlab.loss import model_loss, sft_loss
from sftlab.statistics import chosen

NAME = "lora_init"


def backward(model, tokenizer) -> dict[str, tuple[float, float]]:
    (batch,) = batches(rows_of(tokenizer, "handful", 16), 1, 0, tokenizer.pad_token_id)
    loss, count = model_loss(model, batch)
    (loss / count).backward()
    return gradient_norms(model)


@pytest.mark.parametrize(
    ("how", "A_moves", "B_moves"),
    [("A random", False, True), ("B random", True, False), ("both zero", False, False), ("both random", True, True)],
)  # fmt: skip
def test_each_gradient_passes_through_the_other_matrix(
    tiny_model, tokenizer, how, A_moves, B_moves
):
    start_from(tiny_model, how, seed=0)
    norms = backward(tiny_model, tokenizer)
    assert set(norms) == set(lora_layers(tiny_model))
    for of_A, of_B in norms.values():
        assert (of_A > 0, of_B > 0) == (A_moves, B_moves)
    assert which_is_stuck(norms) == (list(norms) if how == "both zero" else [])


@pytest.mark.parametrize("how", INITS)
def test_a_product_with_a_zero_matrix_leaves_every_logit_as_it_was(tiny_model, tokenizer, how):
    rows = rows_of(tokenizer, "heldout", 4)
    before = logits_of(tiny_model, rows, 0)
    start_from(tiny_model, how, seed=0)
    assert torch.equal(logits_of(tiny_model, rows, 0), before) == (how != "both random")


def test_a_layer_without_a_gradient_has_norm_zero(tiny_model):
    inject_lora(tiny_model, "q_proj", r=2, lora_alpha=4)
    assert set(gradient_norms(tiny_model).values()) == {(0.0, 0.0)}


def test_only_two_zeros_are_stuck():
    norms = {"a": (0.0, 1.0), "b": (0.0, 0.0), "c": (1e-12, 0.0), "d": (0.0, 0.0)}
    assert which_is_stuck(norms) == ["b", "d"]
    assert which_is_stuck({}) == []


def test_the_update_of_a_layer_is_scaled_by_its_own_rule():
    model = nn.Sequential(nn.Linear(6, 4, bias=False))
    inject_lora(model, "0", r=4, lora_alpha=6, rule="rslora")
    (layer,) = lora_layers(model).values()
    nn.init.ones_(layer.B)
    (delta,) = updates(model).values()
    assert torch.allclose(delta, 3.0 * layer.B @ layer.A)  # 6 / √4
    ratio = (delta.norm() / layer.base.weight.norm()).item()
    assert relative_update(model) == pytest.approx(ratio, rel=1e-5)


def test_batches_are_as_many_as_asked_for_and_the_seed_decides_them(tokenizer):
    rows = rows_of(tokenizer, "handful")

    def ids(seed):
        return [batch["input_ids"] for batch in batches(rows, 5, seed, 0)]

    assert [len(batch) for batch in ids(0)] == [BATCH] * 5
    assert all(map(torch.equal, ids(0), ids(0)))
    assert not all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(ids(0), ids(1), strict=True)
    )


def test_the_mean_nll_is_the_sft_loss(tiny_model, tokenizer):
    rows = rows_of(tokenizer, "heldout", 4)
    batch = collate(rows, 0)
    logits = tiny_model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert mean_nll(tiny_model, rows, 0) == pytest.approx(
        sft_loss(logits, batch["labels"]).item(), rel=1e-5
    )


# --- the recorded runs ---------------------------------------------------------------------


def test_all_settings_are_recorded():
    found = {(r["how"], r["seed"], r["rate"]) for r in runs(NAME)}
    assert found == {(s["how"], s["seed"], s["rate"]) for s in settings()}


def mean(name: str, how: str, rate: float = RATE) -> float:
    return float(np.mean([run[name] for run in chosen(runs(NAME), how=how, rate=rate)]))


def test_what_the_notebook_says_of_them_is_so():
    for found in runs(NAME):
        zero = {"A random": "norm_A", "B random": "norm_B"}.get(found["how"])
        assert (found["difference"] == 0) == (found["how"] != "both random")
        if zero:
            assert found[zero][0] == 0
            assert min(found[zero][1:]) > 0
        if found["how"] == "both zero":
            assert not any(found["norm_A"] + found["norm_B"])
            assert found["nll_end"] == found["nll_base"]
    assert mean("nll_end", "both random") > 3 * mean("nll_end", "A random")
    assert mean("nll_end", "B random") < mean("nll_end", "A random")  # at the rate of the notebook
    assert mean("nll_end", "B random", RATES[2]) > 3 * mean("nll_end", "A random", RATES[2])
    best = [min(mean("nll_end", how, rate) for rate in RATES) for how in INITS[:2]]
    assert max(best) < 1.5 * min(best)
    assert good_rates(runs(NAME), "A random") == list(RATES[1:3])
    assert good_rates(runs(NAME), "B random") == list(RATES[:2])
    assert all(mean("nll_end", how, RATES[3]) > mean("nll_base", how) for how in INITS[:2])


@pytest.mark.base
@pytest.mark.parametrize("how", ("A random", "both zero"))
def test_a_run_measured_again_gives_what_is_recorded(how):
    (recorded,) = runs(NAME, how=how, seed=0, rate=RATE)
    again = run(how, 0, steps=4)
    for name in ("loss", "norm_A", "norm_B"):
        assert again[name] == pytest.approx(recorded[name][:4], rel=0.05, abs=1e-6)
    for name in ("difference", "nll_base", "nll_start"):
        assert again[name] == pytest.approx(recorded[name], rel=1e-3)


# --- pictures ------------------------------------------------------------------------------


def test_the_figures_draw():
    recorded = runs(NAME)
    zero = [0.0] * 20
    figures = [four_losses(recorded), over_rates(recorded), norms_figure(zero, zero)]
    for figure in figures + [one_start(recorded, how, "words") for how in INITS]:
        figure.draw_without_rendering()
        plt.close(figure)


def test_the_explorer_offers_the_four_starts(monkeypatch):
    shown = {}
    monkeypatch.setattr(
        explorer, "explorer", lambda controls, draw, alt: shown.update(controls, draw=draw, alt=alt)
    )
    explorer.pick_a_start(runs(NAME))
    assert shown["how"].value == "A random"
    assert [value for _, value in shown["how"].options] == list(LABELS)
    assert "A has the norm 0.0" in shown["alt"]("A random")
    plt.close(shown["draw"]("both zero"))


def test_only_the_adapter_is_trained(tiny_model):
    start_from(tiny_model, "A random", seed=1)
    trained = {id(p) for p in tiny_model.parameters() if p.requires_grad}
    assert trained == {id(p) for p in lora_parameters(tiny_model)}


def test_the_start_is_exact_in_16_bits_and_with_dropout_too(tiny_model, tokenizer):
    rows = rows_of(tokenizer, "heldout", 4)
    model = tiny_model.to(torch.bfloat16).train()
    before = logits_of(model, rows, 0)
    inject_lora(model, "all-linear", r=3, lora_alpha=8, lora_dropout=0.5)
    assert torch.equal(logits_of(model, rows, 0), before)
