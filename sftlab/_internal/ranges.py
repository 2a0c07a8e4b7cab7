"""Validation of settings: an error names the setting, its value and its range."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from sftlab.errors import WorkbookError

LARGEST_SEED = 2**64 - 1  # limit of torch's generators


def check_whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise WorkbookError unless the value is an integer in the range; booleans are rejected."""
    needed = f"at least {least}" + ("" if most is None else f" and at most {most}")
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole:
        raise WorkbookError(f"{name} is {value!r}; it must be a whole number, {needed}")
    if value < least or (most is not None and value > most):
        raise WorkbookError(f"{name} is {value}; it must be {needed}")


def check_number(name: str, value: Any, fits: Callable[[Any], bool], needed: str) -> None:
    """Raise WorkbookError unless the value is a number and ``fits(value)`` is true.

    NaN fits no range; booleans are rejected.

    Args:
        needed: the range in words, as the end of a sentence: "it must be above 0".
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not fits(value):
        raise WorkbookError(f"{name} is {value!r}; {needed}")


def check_seed(seed: Any) -> None:
    """Raise WorkbookError unless the value is a valid seed for torch and Python."""
    check_whole("seed", seed, 0, LARGEST_SEED)


def check_clipping(max_grad_norm: float | None) -> None:
    """Raise WorkbookError unless the value is None or a number of at least 0.

    0 and None mean no clipping, as in transformers. A negative value would reverse the gradient.
    """
    if max_grad_norm is not None:
        check_number("max_grad_norm", max_grad_norm, lambda norm: norm >= 0,
                     "it must be at least 0; 0 or None is no clipping")  # fmt: skip
