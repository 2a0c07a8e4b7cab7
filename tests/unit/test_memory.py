"""Planned bytes are the bytes that torch and the operating system report."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

from sftlab.lora import inject_lora, lora_parameter_count
from sftlab.memory import count, measure
from sftlab.quant import bits_per_parameter
from sftlab.quantized_layers import quantize_model_linears

OPTIMIZERS = {
    "adamw": lambda ps: torch.optim.AdamW(ps),
    "adam with amsgrad": lambda ps: torch.optim.Adam(ps, amsgrad=True),
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1),
    "sgd with momentum": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
}


def model():
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 10, bias=False))


def step(model, optimizer):
    dtype = next(model.parameters()).dtype
    model(torch.randn(3, 64, dtype=dtype)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_planned_optimizer_state_is_what_the_optimizer_then_holds(name, dtype):
    net = model().to(dtype)
    optimizer = OPTIMIZERS[name](net.parameters())
    planned = count.optimizer_state_bytes(net, optimizer)
    assert count.measured_optimizer_state_bytes(optimizer) == 0
    step(net, optimizer)
    assert planned == count.measured_optimizer_state_bytes(optimizer)


def test_frozen_parameters_cost_no_state():
    net = inject_lora(model(), "all-linear", r=2, lora_alpha=4)
    optimizer = torch.optim.AdamW(net.parameters())
    planned = count.optimizer_state_bytes(net, optimizer)
    step(net, optimizer)
    trained = lora_parameter_count(64, 128, 2) + lora_parameter_count(128, 10, 2)
    assert planned == count.measured_optimizer_state_bytes(optimizer) == 8 * trained + 4 * 4


def test_parameters_of_another_model_do_not_count():
    net, other = model(), model()
    both = torch.optim.AdamW([*net.parameters(), *other.parameters()])
    alone = torch.optim.AdamW(net.parameters())
    assert count.optimizer_state_bytes(net, both) == count.optimizer_state_bytes(net, alone)


def test_an_optimizer_without_a_formula_is_refused():
    net = model()
    with pytest.raises(ValueError, match="no formula for Adagrad"):
        count.optimizer_state_bytes(net, torch.optim.Adagrad(net.parameters()))


def test_a_tied_weight_counts_once():
    net = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 100, bias=False))
    net[1].weight = net[0].weight
    assert count.parameter_bytes(net) == 100 * 64 * 4


def test_weights_split_into_trained_and_frozen():
    net = inject_lora(model().to(torch.bfloat16), ["0"], r=2, lora_alpha=4)
    assert count.parameter_bytes(net, True) == lora_parameter_count(64, 128, 2) * 4
    assert count.parameter_bytes(net, False) == (64 * 128 + 128 + 128 * 10) * 2
    assert count.gradient_bytes(net) == count.parameter_bytes(net, True)


@pytest.mark.parametrize("double", [False, True])
def test_4_bit_weights_take_the_bits_of_the_formula_and_two_small_tables(double):
    net = nn.Sequential(nn.Linear(512, 1024, bias=False))
    quantize_model_linears(net, double=double)
    formula = 512 * 1024 * bits_per_parameter(64, double) / 8
    tables = 16 * 4 + (256 * 4 + 4 if double else 0)  # both codes, and the mean scale
    assert count.parameter_bytes(net) == formula + tables


def test_the_peak_of_a_process_counts_its_own_memory_and_not_its_parents():
    program = [
        "from __future__ import annotations",
        "import psutil, sys",
        "from pathlib import Path",
        # alone: importing torch takes much memory
        inspect.getsource(measure._status),
        inspect.getsource(measure.process_peak_bytes),
        "before = process_peak_bytes()",
        "bytearray(b'x') * (64 << 20)",
        "print(before, process_peak_bytes())",
    ]
    ballast = bytearray(b"x") * (300 << 20)  # this process is big when it starts the child
    command = [sys.executable, "-c", "\n".join(program)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, ran.stdout.split())
    assert after - before >= 60 << 20
    if sys.platform == "linux":
        assert before < len(ballast)
