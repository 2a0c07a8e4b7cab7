"""Several processes, one training run: what they add up.

Accelerate or torchrun starts the processes and connects them (gloo on CPUs, NCCL on GPUs). Each
holds the whole model and takes its share of the rows of every batch. Three sums make of the shares
what one process would have computed: of the trained tokens, of the losses, of the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed


def rank_and_world_size() -> tuple[int, int]:
    """This process's number, from 0, and how many there are: (0, 1) for a program of its own."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes; the tensor itself where there is only one."""
    if rank_and_world_size()[1] > 1:
        value = value.clone()
        distributed.all_reduce(value)
    return value


def sum_number_over_processes(number: float, device: torch.device) -> float:
    """The sum of a plain number over all processes."""
    if rank_and_world_size()[1] == 1:
        return number
    return sum_over_processes(torch.tensor(number, dtype=torch.float64, device=device)).item()


@torch.no_grad()
def add_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Put the sum of all processes' gradients into every process, in one message.

    PyTorch's DistributedDataParallel takes the *mean* instead: with it, each loss would have to be
    multiplied by the number of processes first. A process without a row has no gradient and adds
    zeros.
    """
    if rank_and_world_size()[1] == 1:
        return
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    # Summed in float32 at least: half precision would lose digits of what the others add.
    wide = [part.to(torch.promote_types(part.dtype, torch.float32)) for part in parts]
    summed = sum_over_processes(torch.cat([part.flatten() for part in wide]))
    pieces = summed.split([p.numel() for p in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.grad = piece.view_as(parameter).to(parameter.dtype)
