"""Planned bytes are the bytes that torch and the operating system report."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

from sftlab import memory
from sftlab.lora import inject_lora, lora_parameter_count, lora_parameters
from sftlab.quant import bits_per_parameter, quantize_model_linears

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
    planned = memory.optimizer_state_bytes(net, optimizer)
    assert memory.measured_optimizer_state_bytes(optimizer) == 0
    step(net, optimizer)
    assert planned == memory.measured_optimizer_state_bytes(optimizer)


def test_frozen_parameters_cost_no_state():
    net = inject_lora(model(), "all-linear", r=2, alpha=4)
    optimizer = torch.optim.AdamW(net.parameters())
    planned = memory.optimizer_state_bytes(net, optimizer)
    step(net, optimizer)
    trained = lora_parameter_count(64, 128, 2) + lora_parameter_count(128, 10, 2)
    assert planned == memory.measured_optimizer_state_bytes(optimizer) == 8 * trained + 4 * 4


def test_parameters_of_another_model_do_not_count():
    net, other = model(), model()
    both = torch.optim.AdamW([*net.parameters(), *other.parameters()])
    alone = torch.optim.AdamW(net.parameters())
    assert memory.optimizer_state_bytes(net, both) == memory.optimizer_state_bytes(net, alone)


def test_an_optimizer_without_a_formula_is_refused():
    net = model()
    with pytest.raises(ValueError, match="no formula for Adagrad"):
        memory.optimizer_state_bytes(net, torch.optim.Adagrad(net.parameters()))


def test_a_tied_weight_counts_once():
    net = nn.Sequential(nn.Embedding(100, 64), nn.Linear(64, 100, bias=False))
    net[1].weight = net[0].weight
    assert memory.parameter_bytes(net) == 100 * 64 * 4


def test_weights_split_into_trained_and_frozen():
    net = inject_lora(model().to(torch.bfloat16), ["0"], r=2, alpha=4)
    assert memory.parameter_bytes(net, True) == lora_parameter_count(64, 128, 2) * 4
    assert memory.parameter_bytes(net, False) == (64 * 128 + 128 + 128 * 10) * 2
    assert memory.gradient_bytes(net) == memory.parameter_bytes(net, True)


@pytest.mark.parametrize("double", [False, True])
def test_4_bit_weights_take_the_bits_of_the_formula_and_two_small_tables(double):
    net = nn.Sequential(nn.Linear(512, 1024, bias=False))
    quantize_model_linears(net, double=double)
    formula = 512 * 1024 * bits_per_parameter(64, double) / 8
    tables = 16 * 4 + (256 * 4 + 4 if double else 0)  # both codes, and the mean scale
    assert memory.parameter_bytes(net) == formula + tables


def test_adamw_in_float32_takes_16_bytes_a_parameter():
    assert memory.training_bytes(1000).total == 16_000


def test_full_fine_tuning_in_16_bits_keeps_everything_in_16():
    plan = memory.training_bytes(1000, weight_bits=16)
    assert plan == memory.TrainingBytes(weights=2000, adapters=0, gradients=2000, optimizer=4000)


def test_a_4_bit_base_with_adapters():
    plan = memory.training_bytes(8_000_000, 1000, weight_bits=4.5)
    assert plan == memory.TrainingBytes(4_500_000, adapters=4000, gradients=4000, optimizer=8000)


def test_4_bit_weights_alone_cannot_be_trained():
    with pytest.raises(ValueError, match="cannot be trained"):
        memory.training_bytes(1000, weight_bits=4.5)


@pytest.mark.parametrize("with_lora", [False, True])
def test_the_plan_from_counts_is_the_plan_of_the_model(with_lora):
    net, adapters = model(), 0
    parameters = sum(p.numel() for p in net.parameters())
    if with_lora:
        inject_lora(net, "all-linear", r=2, alpha=4)
        adapters = sum(p.numel() for p in lora_parameters(net))
    of_model = memory.model_training_bytes(net, torch.optim.SGD(net.parameters(), momentum=0.9))
    assert of_model == memory.training_bytes(parameters, adapters, moments=1)


def test_a_model_on_the_meta_device_is_planned_alike():
    with torch.device("meta"):
        net = model()
    plan = memory.model_training_bytes(net, torch.optim.SGD(net.parameters(), momentum=0.9))
    assert plan.total == 12 * sum(p.numel() for p in net.parameters())


def test_the_peak_of_a_process_counts_its_own_memory_and_not_its_parents():
    program = [
        "import resource, sys",
        "from pathlib import Path",
        inspect.getsource(memory.process_peak_bytes),  # alone: importing torch takes much memory
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
