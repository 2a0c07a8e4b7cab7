"""Notebook 21: reports of packed models, the limited process, and the figures and explorer."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from sftlab.errors import WorkbookError
from sftlab.exercises.ex21_qlora_finetuning import explorer as explorers
from sftlab.exercises.ex21_qlora_finetuning.plots import by_kind, planned, under_a_limit
from sftlab.lora import inject_lora, lora_parameter_count
from sftlab.memory import limit
from sftlab.memory.count import memory_report, parameter_bytes
from sftlab.memory.plan import Run, plan
from sftlab.quantized_layers import quantize_model_linears

SMALL = Run(batch=1, length=8, trained_per_row=4, r=2)


def model():
    return nn.ModuleDict({"embed": nn.Embedding(10, 64), "up": nn.Linear(64, 128), "norm": nn.LayerNorm(128)})  # fmt: skip


def test_a_report_adds_up_to_what_the_parameters_take():
    net = model()
    inject_lora(quantize_model_linears(net), "all-linear", r=2, lora_alpha=4)
    report = memory_report(net)
    assert report["whole"][1] == parameter_bytes(net)
    for i in (0, 1):
        assert report["whole"][i] == sum(v[i] for k, v in report.items() if k != "whole")


def test_packing_leaves_the_number_of_weights_and_shrinks_linear_layers_alone():
    net = model()
    before = memory_report(net)
    after = memory_report(quantize_model_linears(net))
    assert {k: v[0] for k, v in before.items()} == {k: v[0] for k, v in after.items()}
    assert after["embedding"] == before["embedding"] and after["other"] == before["other"]
    assert after["linear"][1] < before["linear"][1] / 3


def test_adapters_are_a_kind_of_their_own():
    net = inject_lora(model(), "all-linear", r=2, lora_alpha=4)
    count = lora_parameter_count(64, 128, 2)
    assert memory_report(net)["adapter"] == (count, 4 * count)


@pytest.mark.parametrize("weights", ["bf16", "nf4"])
def test_a_model_built_by_layer_trains(weights):
    run = Run(**{**SMALL.settings(), "weights": weights})
    net = limit.build_by_layer(run)
    assert not any(t.is_meta for t in [*net.parameters(), *net.buffers()])
    assert net.lm_head.weight is net.model.embed_tokens.weight
    losses = limit.train(net, run, 3)
    assert losses[-1] < losses[0]


def test_layers_of_the_model_share_no_memory():
    net = limit.build_by_layer(Run(**{**SMALL.settings(), "weights": "nf4"}))
    places = [layer.mlp.up_proj.weight.data_ptr() for layer in net.model.layers]
    assert len(set(places)) == len(places)


def test_the_plan_of_the_example_lies_on_both_sides_of_the_limit():
    assert plan(limit.example("bf16")).weights > limit.ALLOWED
    assert plan(limit.example("nf4")).peak < 0.75 * limit.ALLOWED


@pytest.mark.slow
def test_a_limited_process_says_where_its_memory_ended_or_that_it_fits():
    tight = limit.in_limited_process(Run("smollm2-135m", 1, 8, 4, r=2), 150_000_000)
    assert not tight["fits"] and "no room for" in tight["said"] and tight["losses"] == []
    assert tight["loaded"] == 0
    packed = Run("smollm2-135m", 1, 8, 4, r=2, weights="nf4")
    roomy = limit.in_limited_process(packed, 1_000_000_000)
    assert roomy["fits"] and roomy["said"] == "" and len(roomy["losses"]) == limit.STEPS
    assert roomy["loaded"] == pytest.approx(plan(packed).weights, rel=0.15)
    assert roomy["peak"] >= roomy["loaded"]


def test_only_a_want_of_memory_is_told_as_such():
    with pytest.raises(WorkbookError, match="no room for it"), limit._room("it"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(RuntimeError, match="shapes"), limit._room("it"):
        raise RuntimeError("shapes do not fit")


def test_other_systems_are_told_that_they_have_no_such_limit(monkeypatch):
    monkeypatch.setattr(limit.sys, "platform", "darwin")
    with pytest.raises(WorkbookError, match="only Linux"):
        limit.in_limited_process(SMALL)


def test_the_figures_draw():
    report = memory_report(model())
    found = {"bf16": {"fits": False, "peak": 2e9}, "4 bits": {"fits": True, "peak": 1e9}}
    for figure in (by_kind({"a": report, "b": report}), under_a_limit(found, 2e9)):
        figure.draw_without_rendering()
        plt.close(figure)


def test_the_explorer_plans_its_extremes(monkeypatch):
    shown = {}
    monkeypatch.setattr(explorers, "explorer", lambda c, d, w: shown.update(c=c, draw=d, words=w))
    explorers.plan_a_step()
    for end in (0, -1):
        settings = {name: control.options[end] for name, control in shown["c"].items()}
        settings = {k: v[1] if isinstance(v, tuple) else v for k, v in settings.items()}
        figure = shown["draw"](**settings)
        figure.draw_without_rendering()
        plt.close(figure)
        assert "Peak" in shown["words"](**settings)
    assert explorers.told(1.5e9) == "1.50 GB" and explorers.told(2.5e6) == "2.50 MB"
    assert isinstance(planned(plan(SMALL), "t", "words"), plt.Figure)
    plt.close("all")


def test_answers_in_between_change_no_gradient_of_a_whole_model():
    """Train, answer with a cache, train on: bit for bit the gradients of before."""
    run = Run(**{**SMALL.settings(), "weights": "nf4"})
    net = limit.build_by_layer(run)
    limit.train(net, run, 2)
    ids = torch.arange(8)[None]

    def gradients():
        net.train().zero_grad()
        net(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return [p.grad.clone() for p in net.parameters() if p.requires_grad]

    before = gradients()
    assert all(g.abs().max() > 0 for g in before)
    net.eval()
    net.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(), strict=True))
