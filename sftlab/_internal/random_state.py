"""Local random state: torch's global generators are restored afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


def _generators(device: torch.device | str) -> list[torch.Generator]:
    """Return the generators that a model on this device uses: the CPU's and the device's."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.init()
        number = torch.cuda.current_device() if device.index is None else device.index
        return [torch.default_generator, torch.cuda.default_generators[number]]
    if device.type == "mps":
        return [torch.default_generator, torch.mps._get_default_mps_generator()]
    return [torch.default_generator]


@contextmanager
def own_random_state(
    seed: int | None = None, device: torch.device | str = "cpu"
) -> Iterator[Callable[[int], None]]:
    """Context manager that starts from the seed and restores torch's random state afterwards.

    Yields a function that sets a new seed. Without a seed, the block continues from the caller's
    state.
    """
    generators = _generators(device)
    before = [generator.get_state() for generator in generators]

    def reseed(number: int) -> None:
        for generator in generators:
            generator.manual_seed(number)

    try:
        if seed is not None:
            reseed(seed)
        yield reseed
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
