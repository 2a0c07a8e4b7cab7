"""Notebook 18: counts on real shapes, held against PEFT's; its figures and its explorer."""

from __future__ import annotations

import matplotlib.pyplot as plt
import peft
import pytest

from sftlab.errors import WorkbookError
from sftlab.exercises.ex18_lora_with_peft import explorer as explorers
from sftlab.exercises.ex18_lora_with_peft.plots import (
    TARGETS,
    share_over_rank,
    shares_at,
    sizes,
    trained,
)
from sftlab.lora import inject_lora
from sftlab.memory.count import lora_config_for, targeted_layers, trainable_share
from sftlab.memory.shapes import build
from sftlab.quantized_layers import quantize_model_linears


def pefts_count(model, r, targets):
    config = peft.LoraConfig(r=r, lora_alpha=2 * r, target_modules=targets)
    wrapped = peft.get_peft_model(model, config, low_cpu_mem_usage=True)
    return wrapped, wrapped.get_nb_trainable_parameters()


@pytest.mark.parametrize("name", TARGETS)
def test_the_formula_counts_what_peft_counts(name):
    size = sizes(build("smollm2-135m"))
    wrapped, (count, every) = pefts_count(build("smollm2-135m"), 8, TARGETS[name])
    assert trained(size, name, 8) == (count, count / every)
    assert trainable_share(wrapped) == count / every


def test_the_known_counts_of_smollm2():
    size = sizes(build("smollm2-135m"))
    assert trained(size, "q and v", 8)[0] == 460_800
    assert trained(size, "all linear layers", 8)[0] == 2_442_240


def test_where_one_per_cent_holds():
    small, large = sizes(build("smollm2-135m")), sizes(build("llama-3-70b"))
    assert trained(small, "q and v", 8)[1] < 0.01 < trained(small, "all linear layers", 8)[1]
    assert trained(large, "all linear layers", 32)[1] < 0.01
    assert trained(large, "all linear layers", 64)[1] > 0.01


@pytest.mark.base
def test_the_share_of_a_packed_model_is_that_of_the_plain_one():
    from sftlab.models import load

    shares = []
    for prepare in (lambda m: m, quantize_model_linears):
        model = inject_lora(prepare(load("almanac")[0]), "all-linear", 8, 16)
        shares.append(trainable_share(model))
    assert shares[0] == shares[1] == 162_816 / 3_311_040


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"])
@pytest.mark.parametrize("budget", [500_000, 3_000_001])
def test_the_largest_rank_that_fits(budget, targets):
    config = lora_config_for(build("smollm2-135m"), budget, targets)
    assert config.lora_alpha == 2 * config.r
    _, (count, _) = pefts_count(build("smollm2-135m"), config.r, targets)
    _, (more, _) = pefts_count(build("smollm2-135m"), config.r + 1, targets)
    assert count <= budget < more


def test_a_budget_too_small_for_rank_one_and_unknown_targets_are_refused():
    model = build("smollm2-135m")
    with pytest.raises(WorkbookError, match="rank 1 takes 305,280 parameters"):
        lora_config_for(model, 300_000)
    with pytest.raises(WorkbookError, match="no linear layer of this model is called"):
        targeted_layers(model, ["c_attn"])


MODELS = {
    "small": {"parameters": 3_000_000, "per rank": dict.fromkeys(TARGETS, 20_000)},
    "huge": {"parameters": 70_000_000_000, "per rank": dict.fromkeys(TARGETS, 13_000_000)},
}


def test_figures_show_every_model():
    figure = share_over_rank(MODELS, (1, 8, 64))
    assert all(len(axis.lines) == 3 for axis in figure.axes)  # two models and the 1% line
    figure = shares_at(MODELS, "q and v", 8, "words")
    assert "1 of 2 models" in figure.get_suptitle()
    plt.close("all")


def test_the_explorer_draws_its_extremes(monkeypatch):
    shown = {}
    monkeypatch.setattr(explorers, "explorer", lambda c, d, w: shown.update(c, draw=d, words=w))
    explorers.pick_rank(MODELS)
    for r in (1, 1024):
        for target in shown["target"].options:
            plt.close(shown["draw"](r, target))
            assert f"rank {r} on {target}" in shown["words"](r, target)
