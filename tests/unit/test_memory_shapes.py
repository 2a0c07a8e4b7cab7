"""Real models as shapes: the table adds up to the published totals, to the parameter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora, lora_parameter_count, lora_parameters
from sftlab.memory import shapes


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_a_shape_has_as_many_parameters_as_the_published_model(name):
    model = shapes.build(name)
    assert sum(p.numel() for p in model.parameters()) == shapes.SHAPES[name].parameters
    assert all(p.is_meta for p in model.parameters())
    assert model.config.model_type == shapes.SHAPES[name].family


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_the_formula_is_the_count_of_what_is_injected_everywhere(name):
    model = shapes.build(name)
    layers = shapes.linear_layers(model)
    assert len(layers) == 7 * shapes.SHAPES[name].layers
    inject_lora(model, "all-linear", r=8, lora_alpha=16)
    counted = sum(p.numel() for p in lora_parameters(model))
    assert counted == sum(lora_parameter_count(*shape, r=8) for shape in layers.values())


def test_known_counts_of_smollm2_at_rank_8():
    layers = shapes.linear_layers(shapes.build("smollm2-135m"))
    assert sum(lora_parameter_count(*shape, 8) for shape in layers.values()) == 2_442_240
    some = [shape for name, shape in layers.items() if name.endswith(("q_proj", "v_proj"))]
    assert sum(lora_parameter_count(*shape, 8) for shape in some) == 460_800


def test_grouped_query_and_mlp_weights_are_not_square():
    layers = shapes.linear_layers(shapes.build("llama-3-8b"), head=True)
    block = {name.split(".")[-1]: shape for name, shape in layers.items()}
    assert block["q_proj"] == block["o_proj"] == (4096, 4096)
    assert block["k_proj"] == block["v_proj"] == (4096, 1024)
    assert block["up_proj"] == (4096, 14336) and block["down_proj"] == (14336, 4096)
    assert block["lm_head"] == (4096, 128256)


def test_the_dtype_is_that_asked_for_and_bfloat16_otherwise():
    assert shapes.build("smollm2-135m").dtype == torch.bfloat16
    assert shapes.build("smollm2-135m", torch.float32).dtype == torch.float32


def test_a_packed_layer_is_told_by_the_widths_it_computes_with():
    layer = nn.Linear(6, 4, bias=False)
    layer.weight = nn.Parameter(torch.zeros(12, 1, dtype=torch.uint8), requires_grad=False)
    assert shapes.linear_layers(nn.Sequential(layer)) == {"0": (6, 4)}


def test_an_unknown_name_is_told_with_its_neighbours():
    with pytest.raises(WorkbookError, match="no shape 'llama-70b'; the nearest are llama-"):
        shapes.build("llama-70b")
