"""A meter of memory against the profiler and the plan."""

from __future__ import annotations

import pytest
import torch

from sftlab.memory.measure import a_batch, allocated_peak
from sftlab.memory.meter import MemoryMeter
from sftlab.memory.plan import Run, build, plan
from sftlab.train import train_step


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("r", [None, 4])
def test_the_peak_of_a_step_is_the_profilers_and_the_planned_one(r, recompute):
    run = Run(batch=4, length=32, trained_per_row=16, r=r, recompute=recompute)
    model = build(run)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    batch = a_batch(run, model.config.vocab_size)
    train_step(model, batch, optimizer)
    meter = MemoryMeter()
    state = [value for one in optimizer.state.values() for value in one.values()]
    for tensor in (*model.parameters(), *model.buffers(), *state):
        meter.hold(tensor.detach())
    before = sum(meter.sizes.values())
    with meter:
        train_step(model, batch, optimizer)
    optimizer.zero_grad()  # the profiler would see these gradients freed, and never allocated
    rise = allocated_peak(lambda: train_step(model, batch, optimizer), torch.device("cpu"))
    assert max(meter.timeline) == pytest.approx(before + rise, rel=0.02)
    assert max(meter.timeline) == pytest.approx(plan(run).peak, rel=0.03)


def test_what_is_freed_is_gone():
    with MemoryMeter() as meter:
        a = torch.zeros(10)
        del a
        b = torch.zeros(1)
    assert meter.timeline == [40, 4] and len(b) == 1
