"""A and B of a layer, found by their shapes whatever they are called, and known numbers for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sftlab._internal.random_state import own_random_state


def seeded(make: Callable[[], Any]) -> Any:
    """Return what ``make`` returns, with random numbers that are the same each time."""
    with own_random_state(seed=1):
        return make()


def find_adapter(
    parameters: Iterable[Tensor], d_in: int, d_out: int, r: int, of=lambda p: p.data
) -> dict | None:
    """A as (r, d_in) and B as (d_out, r), views of whatever was written; None if they are not there."""
    found, named = {}, list(parameters)
    for p in named:
        for which, shape in (("A", (r, d_in)), ("B", (d_out, r))):
            if tuple(p.shape) in (shape, shape[::-1]) and which not in found:
                value = of(p)
                turned = value is not None and tuple(p.shape) != shape
                found[which] = value.T if turned else value
                break
    return found if len(found) == len(named) == 2 else None


def fill(adapter: dict[str, Tensor] | None, seed: int) -> None:
    """Write known numbers into A and B, through the views."""
    generator = torch.Generator().manual_seed(seed)
    for which in "AB" if adapter else "":
        adapter[which].copy_(torch.randn(adapter[which].shape, generator=generator))


def shapes_of(parameters: Iterable[Tensor]) -> set[tuple[int, ...]]:
    """The shapes, the smaller dimension first, because a matrix may be stored as its transpose."""
    return {tuple(sorted(p.shape)) for p in parameters}
