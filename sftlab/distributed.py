"""Sums over the processes of a distributed training run.

Accelerate or torchrun starts the processes and connects them (gloo on CPUs, NCCL on GPUs). Each
process holds the whole model and takes its share of the examples of every batch. Three sums over
all processes give what a single process would compute: the number of trained tokens, the loss and
the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes; (0, 1) if there is only one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of a tensor over all processes; with one process, the tensor itself."""
    if rank_and_world_size()[1] > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value


def sum_number_over_processes(number: float, device: torch.device) -> float:
    """Return the sum of a Python number over all processes."""
    if rank_and_world_size()[1] == 1:
        return number
    return sum_over_processes(torch.tensor(number, dtype=torch.float64, device=device)).item()


@torch.no_grad()
def add_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes, in a single all-reduce.

    PyTorch's DistributedDataParallel computes the *mean* instead; each loss would then have to be
    multiplied by the number of processes. A process without examples has no gradient and adds
    zeros.
    """
    if rank_and_world_size()[1] == 1:
        return
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    # Summed in float32 or wider because half precision would lose digits.
    wide = [part.to(torch.promote_types(part.dtype, torch.float32)) for part in parts]
    summed = sum_over_processes(torch.cat([part.flatten() for part in wide]))
    pieces = summed.split([p.numel() for p in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter).to(parameter.dtype)
