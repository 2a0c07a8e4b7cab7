"""Notebook 09: α, the rank and the rule; what equals doubling α; and a part of the recorded runs."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sftlab.exercises.ex09_lora_alpha_over_r import alpha_or_rate, experiment, explorer
from sftlab.exercises.ex09_lora_alpha_over_r import plots as plots
from sftlab.exercises.ex09_lora_alpha_over_r.alpha_or_rate import RATES, STOPS, compare
from sftlab.exercises.ex09_lora_alpha_over_r.experiment import (
    FACTOR,
    MEETING_RANK,
    RANKS,
    RULES,
    alpha_of,
)
from sftlab.exercises.ex09_lora_alpha_over_r.plots import (
    apart_table,
    change_over_ranks,
    factors,
    over_ranks,
    percent,
    stretched,
    values,
)
from sftlab.exercises.record import runs
from sftlab.lora import effective_update, lora_layers, lora_scale
from sftlab.statistics import chosen


def test_doubling_alpha_doubles_the_update_in_every_bit():
    A, B = torch.randn(8, 30), torch.randn(20, 8)
    for alpha in (16, 10, 3.7):
        doubled = effective_update(A, B, 2 * alpha, 8)
        assert torch.equal(doubled, 2 * effective_update(A, B, alpha, 8))
    tripled = effective_update(A, B, 30, 8)
    assert not torch.equal(tripled, 3 * effective_update(A, B, 10, 8))
    assert torch.allclose(tripled, 3 * effective_update(A, B, 10, 8))


def test_the_rules_agree_at_the_meeting_rank():
    for rule in RULES:
        assert lora_scale(alpha_of(rule), MEETING_RANK, rule) == pytest.approx(FACTOR)
    assert [round(alpha_of(rule), 2) for rule in RULES] == [16, 5.66, 2]


def test_a_random_product_grows_like_the_root_of_the_rank():
    products = explorer.products_of(torch.randn(96, 64))
    for r in (4, 16, 64):
        assert products[2 * r] / products[r] == pytest.approx(math.sqrt(2), rel=0.1)


@pytest.fixture
def tiny(monkeypatch, tiny_model, tokenizer):
    """The tiny random model in place of the one that is loaded."""
    import copy

    for module in (alpha_or_rate, experiment):
        monkeypatch.setattr(module, "load", lambda name: (copy.deepcopy(tiny_model), tokenizer))


def test_under_sgd_doubled_alpha_is_twice_the_rate_from_a_larger_A(tiny):
    found = compare("sgd", 0.05, 0, (1, 3))
    assert max(found["rate × 2, A × √2"]["apart"]) < 1e-3
    assert found["rate × 4"]["apart"][0] < 1e-3
    assert found["rate × 4"]["apart"][1] > found["rate × 2, A × √2"]["apart"][1]
    assert found["α × 2"]["size"][0] == pytest.approx(4, rel=1e-3)


def test_under_adam_doubled_alpha_is_twice_the_rate_of_B(tiny):
    found = compare("adam", 1e-3, 0, (1, 3))
    assert max(found["rate of B × 2"]["apart"]) < 0.02  # but for Adam's ε
    assert found["rate × 2"]["apart"][0] < 0.02
    assert found["rate × 4"]["apart"][0] > 0.5
    assert found["α × 2"]["size"][0] == pytest.approx(2, rel=1e-2)


def test_untrained_sizes_follow_the_rules(tiny):
    low, high = (experiment.untrained(r, 0) for r in (2, 32))
    grown = {rule: high[rule]["update"] / low[rule]["update"] for rule in RULES}
    assert grown["lora"] == pytest.approx(1 / 4, rel=0.1)
    assert grown["rslora"] == pytest.approx(1, rel=0.1)
    assert grown["plain"] == pytest.approx(4, rel=0.1)
    assert all(low[rule]["output"] > 0 for rule in RULES)


def test_random_B_is_as_large_as_A_at_every_rank(tiny):
    for r in (2, 32):
        model, _ = experiment.with_lora("lora", r, 0)
        experiment.randomise_B(model, 0)
        for layer in lora_layers(model).values():
            assert layer.B.std().item() == pytest.approx(layer.A.std().item(), rel=0.3)


# --- the recorded runs ---------------------------------------------------------------------


@pytest.mark.parametrize("module", (alpha_or_rate, experiment))
def test_all_settings_are_recorded(module):
    wanted = module.settings()
    found = [{key: run[key] for key in wanted[0]} for run in runs(module.RECORD)]
    assert sorted(map(str, found)) == sorted(map(str, wanted))


def test_what_the_notebook_says_of_the_ranks_is_so():
    recorded = runs("lora_over_ranks")
    grown = {
        name: {rule: change_over_ranks(recorded, name, rule) for rule in RULES}
        for name in ("update_first", "output_first", "update_end", "output_end")
    }
    assert grown["update_first"]["lora"] < 0.2
    assert 0.8 < grown["update_first"]["rslora"] < 1.5
    assert 0.5 < grown["output_first"]["lora"] < 1.5
    assert grown["output_first"]["rslora"] > 3
    assert grown["output_first"]["plain"] > 10
    assert all(0.6 < times < 2 for times in grown["output_end"].values())
    spread = [max(values.values()) / min(values.values()) for values in
              (grown["update_first"], grown["update_end"])]  # fmt: skip
    assert spread[1] < spread[0]
    losses = {(rule, r): np.mean(values(recorded, "nll", rule, r)) for rule in RULES for r in RANKS}
    assert max(losses, key=losses.get) == ("plain", 1)
    assert max(losses.values()) < 0.5
    assert losses["rslora", RANKS[-1]] == min(losses[rule, RANKS[-1]] for rule in RULES)


def test_what_the_notebook_says_of_the_optimisers_is_so():
    recorded = runs("alpha_or_rate")

    def mean(optimizer, rate, variant):
        found = chosen(recorded, optimizer=optimizer, rate=rate)
        return np.mean([run[variant]["apart"] for run in found], axis=0)

    for rate in RATES["sgd"]:
        assert max(mean("sgd", rate, "rate × 2, A × √2")) < 1e-3
        assert mean("sgd", rate, "rate × 4")[0] < 1e-3 < 0.02 < mean("sgd", rate, "rate × 4")[-1]
    for rate in RATES["adam"]:
        assert max(mean("adam", rate, "rate of B × 2")) < 0.02
        assert mean("adam", rate, "rate × 2")[0] < 0.005 < 0.02 < mean("adam", rate, "rate × 2")[-1]


@pytest.mark.base
def test_a_run_over_ranks_measured_again_gives_what_is_recorded():
    (recorded,) = runs("lora_over_ranks", rule="rslora", r=2, seed=0)
    again = experiment.run("rslora", 2, 0)
    for name in ("update_first", "update_end", "output_end"):
        assert again[name] == pytest.approx(recorded[name], rel=0.1), name


@pytest.mark.base
@pytest.mark.parametrize("optimizer", RATES)
def test_a_comparison_measured_again_gives_what_is_recorded(optimizer):
    rate = RATES[optimizer][0]
    (recorded,) = runs("alpha_or_rate", optimizer=optimizer, rate=rate, seed=0)
    for variant, found in compare(optimizer, rate, 0, STOPS[:2]).items():
        for name in ("size", "apart"):
            assert found[name] == pytest.approx(recorded[variant][name][:2], rel=0.05, abs=2e-3)


# --- pictures ------------------------------------------------------------------------------


def test_the_figures_draw():
    panels = {"update_end": "a", "output_end": "b", "nll": "c"}
    figures = [
        over_ranks(runs("lora_over_ranks"), panels, "t"),
        plots.apart(runs("alpha_or_rate"), STOPS),
        stretched({0: (0.0, 2.5), 1: (2.0, 0.1), 4: (5.0, 1.0)}, 2.5),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        plt.close(figure)
    assert len(apart_table(runs("alpha_or_rate"))) == 8


def test_small_shares_are_told_as_such():
    assert [percent(x) for x in (3e-7, 0.00123, 0.29, 77)] == [
        "< 0.01%",
        "0.12%",
        "29%",
        "more than 150%",
    ]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("alpha", (1, 128))
@pytest.mark.parametrize("r", (1, 128))
def test_the_explorer_draws_extreme_settings(rule, alpha, r):
    figure = factors(alpha, r, rule, explorer.products_of(torch.randn(24, 16)), "words")
    figure.draw_without_rendering()
    plt.close(figure)


def test_the_explorer_starts_with_alpha_16_and_rank_8(monkeypatch):
    shown = {}
    monkeypatch.setattr(
        explorer,
        "explorer",
        lambda controls, draw, alt, continuous: shown.update(controls, alt=alt),
    )
    explorer.scale_and_rank(torch.randn(24, 16))
    assert [shown[name].value for name in ("alpha", "r", "rule")] == [16, 8, "lora"]
    assert "the factor is 2;" in shown["alt"](16, 8, "lora")
