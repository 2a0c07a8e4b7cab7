"""Describe in words the first difference between a result and the expected one."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

SHOWN = 200  # number of characters of a value in the feedback


def shorten(value: Any, length: int = SHOWN) -> str:
    """Return a value as text for students: rounded lists for tensors, long text cut inside."""
    if is_tensor(value):
        values = value.detach().cpu()
        text = f"tensor of shape {tuple(values.shape)}: {_rounded(values.tolist())}"
    elif isinstance(value, float):
        text = str(_rounded(value))
    else:
        try:
            text = repr(_rounded(value))
        except BaseException:  # repr may be the student's code
            text = f"<{type(value).__name__}>"
    if len(text) > length:
        text = f"{text[: length * 2 // 3]} … {text[-length // 4 :]}"
    return text


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if type(value) in (list, tuple):
        return type(value)(_rounded(item) for item in value)
    return value


def is_tensor(value: Any) -> bool:
    """Return whether the value is a torch tensor, without importing torch."""
    return type(value).__module__.startswith("torch") and hasattr(value, "requires_grad")


def _is_array(value: Any) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "shape") and not _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Number) and not isinstance(value, bool)


def difference(got: Any, expected: Any, tolerance: float = 0.0, at: str = "") -> str | None:
    """Return None if the values agree, otherwise one or two sentences on the first difference.

    Numbers agree if |got − expected| ≤ tolerance · (1 + |expected|). Lists and tuples are
    equivalent; where a float is expected, an integer is accepted too.
    """
    where = f" at {at}" if at else ""
    if is_tensor(expected):
        return _tensor_difference(got, expected, tolerance, where)
    if is_tensor(got) or _is_array(got):
        kind = "tensor" if is_tensor(got) else "NumPy array"
        wanted = _kind(expected)
        convert = "`.item()`" if _is_number(expected) else "`.tolist()`"
        return f"The result{where} is a {kind}, but {wanted} is expected: {convert} converts it."
    if dataclasses.is_dataclass(expected) and not isinstance(expected, type):
        return _fields_difference(got, expected, tolerance, at)
    if got is None and expected is not None:
        return (
            f"The result{where} is None, but {_kind(expected)} is expected: is a `return` missing?"
        )
    if isinstance(expected, bool) or expected is None or isinstance(expected, str):
        return _plain_difference(got, expected, where)
    if _is_number(expected):
        return _number_difference(got, expected, tolerance, where)
    if isinstance(expected, dict):
        return _dict_difference(got, expected, tolerance, at)
    if isinstance(expected, (list, tuple)):
        return _sequence_difference(got, expected, tolerance, at)
    return _plain_difference(got, expected, where)


def _kind(value: Any) -> str:
    if is_tensor(value):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, bool):
        return "True or False"
    if isinstance(value, int):
        return "a whole number"
    if isinstance(value, float):
        return "a number"
    names = {"list": "a list", "tuple": "a tuple", "dict": "a dictionary", "str": "a text"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def _wrong_type(got: Any, expected: Any, where: str) -> str:
    return (
        f"The result{where} is of type `{type(got).__name__}`, but {_kind(expected)} is expected."
    )


def _nothing(expected: Any, where: str) -> str:
    return f"The result{where} is None, but {_kind(expected)} is expected: is a `return` missing?"


def _plain_difference(got: Any, expected: Any, where: str) -> str | None:
    if type(got) is not type(expected):
        return _wrong_type(got, expected, where)
    if got == expected:
        return None
    if isinstance(expected, str):
        pairs = zip(got, expected, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(got), len(expected)))
        return (
            f"The texts{where} part at character {first}: expected "
            f"`{expected[first : first + 30]!r}`, got `{got[first : first + 30]!r}`."
        )
    return f"Expected{where}: `{shorten(expected)}`, got: `{shorten(got)}`."


def _number_difference(got: Any, expected: Any, tolerance: float, where: str) -> str | None:
    if not _is_number(got):
        return _wrong_type(got, expected, where)
    if isinstance(expected, int) and not isinstance(got, numbers.Integral):
        return f"The result{where} is `{shorten(got)}`, but a whole number is expected."
    if _close(got, expected, tolerance):
        return None
    if _nan(got):
        return f"The result{where} is NaN (not a number); expected `{shorten(expected)}`."
    return f"Expected{where}: `{shorten(expected)}`, got: `{shorten(got)}`."


def _nan(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isnan(value)


def _close(got: Any, expected: Any, tolerance: float) -> bool:
    if _nan(got) or _nan(expected):
        return _nan(got) and _nan(expected)
    return got == expected or abs(got - expected) <= tolerance * (1 + abs(expected))


def _sequence_difference(got: Any, expected: Any, tolerance: float, at: str) -> str | None:
    where = f" at {at}" if at else ""
    if not isinstance(got, (list, tuple)):
        return _wrong_type(got, expected, where)
    if len(got) != len(expected):
        return f"The result{where} has {len(got)} entries, but {len(expected)} are expected."
    for index, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
        found = difference(mine, theirs, tolerance, f"{at}[{index}]")
        if found:
            return found
    return None


def _dict_difference(got: Any, expected: dict, tolerance: float, at: str) -> str | None:
    where = f" at {at}" if at else ""
    if not isinstance(got, dict):
        return _wrong_type(got, expected, where)
    missing = [key for key in expected if key not in got]
    extra = [key for key in got if key not in expected]
    if missing:
        return f"The result{where} has no entry `{shorten(missing[0])}`."
    if extra:
        return f"The result{where} has an entry `{shorten(extra[0])}` that is not expected."
    for key, value in expected.items():
        found = difference(got[key], value, tolerance, f"{at}[{key!r}]")
        if found:
            return found
    return None


def _fields_difference(got: Any, expected: Any, tolerance: float, at: str) -> str | None:
    """Compare a dataclass by fields; a dictionary or tuple with the same fields is accepted."""
    names = [field.name for field in dataclasses.fields(expected)]
    if isinstance(got, dict) and set(got) >= set(names):
        values = [got[name] for name in names]
    elif isinstance(got, tuple) and len(got) == len(names):
        values = list(got)
    elif all(hasattr(got, name) for name in names):
        values = [getattr(got, name) for name in names]
    else:
        wanted = ", ".join(names)
        return (
            f"{_wrong_type(got, expected, f' at {at}' if at else '')} It has the fields {wanted}."
        )
    for name, value in zip(names, values, strict=True):
        found = difference(value, getattr(expected, name), tolerance, f"{at}.{name}".lstrip("."))
        if found:
            return found
    return None


def _tensor_difference(got: Any, expected: Any, tolerance: float, where: str) -> str | None:
    import torch

    shape = tuple(expected.shape)
    if not is_tensor(got):
        if expected.requires_grad and _is_number(got):
            return (
                f"The result{where} is a plain number: its graph is lost, so no gradient can flow "
                "back. Leave out `.item()` and `float()`."
            )
        if got is None:
            return _nothing(expected, where)
        return _wrong_type(got, expected, where)
    if tuple(got.shape) != shape:
        return f"The result{where} has the shape {tuple(got.shape)}, but {shape} is expected."
    if got.is_floating_point() != expected.is_floating_point() or (
        not got.is_floating_point() and got.dtype != expected.dtype
    ):
        return f"The result{where} has the dtype {got.dtype}, but {expected.dtype} is expected."
    mine, theirs = got.detach().cpu(), expected.detach().cpu()
    wide = torch.float64 if expected.is_floating_point() else theirs.dtype
    mine, theirs = mine.to(wide), theirs.to(wide)
    same = torch.isclose(
        mine, theirs, rtol=tolerance, atol=tolerance, equal_nan=expected.is_floating_point()
    )
    if not same.all():
        return _first_in_tensor(mine, theirs, same, where)
    if expected.requires_grad and not got.requires_grad:
        return (
            f"The values{where} are right, but the graph is lost (`.detach()`, `.data` or "
            "`no_grad`): no gradient could flow back, so nothing would be trained."
        )
    return None


def _first_in_tensor(mine: Any, theirs: Any, same: Any, where: str) -> str:
    index = tuple((~same).nonzero()[0].tolist())
    a, b = mine[index].item(), theirs[index].item()
    place = f" at position {index[0] if len(index) == 1 else index}" if index else where
    if isinstance(a, float) and math.isnan(a):
        return f"The result{place} is NaN (not a number); expected `{shorten(b)}`."
    if isinstance(a, float) and math.isinf(a):
        return f"The result{place} is infinite; expected `{shorten(b)}`."
    count = f" {int((~same).sum())} of {same.numel()} values differ." if same.numel() > 1 else ""
    return f"Expected{place}: `{shorten(b)}`, got: `{shorten(a)}`.{count}"
