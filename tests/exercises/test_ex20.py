"""Notebook 20: what merging loses, measured; and its figures and explorer."""

from __future__ import annotations

import copy

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from sftlab.exercises.ex20_merge_lora import explorer as explorers
from sftlab.exercises.ex20_merge_lora.plots import rounding, strength_curve
from sftlab.lora import LoRALinear, inject_lora, lora_layers, merge_lora
from sftlab.merging import merged_at, relative_error, rounding_loss, tokens_per_second
from sftlab.quantized_layers import dequantize_model_linears, quantize_model_linears

IDS = torch.arange(24).reshape(2, 12)


@pytest.fixture
def model(tiny_model):
    """A tiny Llama with LoRA whose B is not zero; α ≠ r."""
    inject_lora(tiny_model, "all-linear", r=2, lora_alpha=6, seed=0)
    for layer in lora_layers(tiny_model).values():
        nn.init.normal_(layer.B, std=0.05)
    return tiny_model.eval()


def logits(model):
    with torch.inference_mode():
        return model(IDS).logits


def test_relative_error_of_nothing_and_of_everything():
    wanted = torch.tensor([3.0, 4.0])
    assert relative_error(wanted, wanted) == 0
    assert relative_error(torch.zeros(2), wanted) == 1
    assert relative_error(torch.tensor([3.0, 4.5]), wanted) == pytest.approx(0.1)


def layer_of(update: float) -> LoRALinear:
    """W is 1 everywhere, the update the same number everywhere."""
    layer = LoRALinear(nn.Linear(4, 4, bias=False), r=1, alpha=2)
    layer.base.weight.data, layer.A.data = torch.ones(4, 4), torch.ones(1, 4)
    layer.B.data = torch.full((4, 1), update / 2)
    return layer


def test_an_update_below_half_a_step_of_bfloat16_is_lost_and_one_of_whole_steps_is_not():
    assert rounding_loss([layer_of(2**-9)], torch.bfloat16) == (1.0, 1.0)
    assert rounding_loss([layer_of(2**-7)], torch.bfloat16) == (0.0, 0.0)
    assert rounding_loss([layer_of(2**-9), layer_of(2**-7)], torch.bfloat16)[0] == 0.5
    assert rounding_loss([layer_of(2**-9)], torch.float32) == (0.0, 0.0)


def test_strength_one_is_the_merged_model_and_nothing_is_left_behind(model):
    before = {n: p.clone() for n, p in model.named_parameters()}
    unmerged = logits(model)
    with merged_at(model, 1.0):
        assert relative_error(logits(model), unmerged) < 1e-6
    with merged_at(model, 2.0):
        assert relative_error(logits(model), unmerged) > 1e-3
    with pytest.raises(RuntimeError, match="inside"), merged_at(model, 3.0):
        raise RuntimeError("inside")
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert torch.equal(logits(model), unmerged)


def test_strength_zero_is_the_base(model):
    with merged_at(model, 0.0):
        without = logits(model)
    for layer in lora_layers(model).values():
        layer.B.data.zero_()
    assert torch.equal(logits(merge_lora(model)), without)


def test_a_merged_model_reads_faster_than_one_with_adapters(model):
    merged = torch.nn.Sequential(*[nn.Linear(64, 64) for _ in range(4)])
    adapted = torch.nn.Sequential(*[LoRALinear(nn.Linear(64, 64), 2, 4) for _ in range(4)])
    speeds = tokens_per_second({"merged": merged, "adapter": adapted}, torch.randn(1, 64), 50)
    assert speeds["merged"] > speeds["adapter"] > 0


def test_an_adapter_belongs_to_the_weights_that_it_was_trained_on():
    """Merged into what the 4 bits stand for it stays what it was; into other weights it does not."""
    original = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    trained_on = quantize_model_linears(copy.deepcopy(original))
    inject_lora(trained_on, "all-linear", r=4, lora_alpha=8, seed=1)
    for layer in lora_layers(trained_on).values():
        nn.init.normal_(layer.B, std=0.05)
    matrices = [(layer.A, layer.B) for layer in lora_layers(trained_on).values()]

    def merged_into(base):
        inject_lora(base, "all-linear", r=4, lora_alpha=8)
        for layer, (A, B) in zip(lora_layers(base).values(), matrices, strict=True):
            layer.A.data, layer.B.data = A.data.clone(), B.data.clone()
        return merge_lora(base)

    unpacked = merged_into(
        dequantize_model_linears(quantize_model_linears(copy.deepcopy(original)))
    )
    elsewhere = merged_into(copy.deepcopy(original))
    again = quantize_model_linears(copy.deepcopy(unpacked))
    x = torch.randn(20, 64)
    with torch.no_grad():
        wanted = trained_on(x)
        away = [relative_error(m(x), wanted) for m in (unpacked, elsewhere, again)]
    assert away[0] < 1e-5
    assert min(away[1:]) > 0.01


def test_figures_show_every_number():
    figure = rounding([0.1, 0.05], [(0.02, 0.01), (0.04, 0.03)])
    assert [len(line.get_xdata()) for line in figure.axes[0].lines[:2]] == [2, 2]
    figure = strength_curve({0.0: 0, 1.0: 90, 3.0: 100}, 100)
    assert [t.get_text() for t in figure.axes[0].texts] == ["as trained"]
    plt.close("all")


def test_the_speeds_are_drawn_to_scale_and_not_outside_a_notebook(capsys):
    html = explorers.bars({"base": 200.0, "adapter": 100.0})
    assert "width:22.0em" in html and "width:11.0em" in html
    explorers.show_speeds({"base": 1.0})
    assert capsys.readouterr().out == ""


def test_the_explorer_answers_at_its_extremes(model, tokenizer, monkeypatch):
    shown = {}
    monkeypatch.setattr(explorers, "explorer", lambda c, d, w: shown.update(c, draw=d, words=w))
    explorers.merge_strength(model, tokenizer, "Hello?")
    for strength in (shown["strength"].min, 1.0, shown["strength"].max):
        text = shown["draw"](strength, "Hello?").text
        assert "0, the base" in text and "1, as trained" in text
    assert "4 α" in shown["words"](4.0, "Hello?")
    with pytest.raises(explorers.WorkbookError, match="type something"):
        shown["draw"](1.0, " ")
