"""Compare a result with the expected one by meaning, and describe the first difference in words.

A number is a number whether Python, NumPy or PyTorch holds it, and a sequence is a list, a tuple, an
array or a tensor. What an exercise asks for beyond the values is named by the keys of its rules:
``tensor`` (the result is a tensor), ``dtype`` (of exactly this dtype) and ``gradient`` (with its graph).
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import Any

SHOWN = 200  # number of characters of a value in the feedback
FLOAT32 = 1e-6  # what float32 can hold, as a relative tolerance
STRICT = ("tensor", "dtype", "gradient")


class Broken(str):
    """A message about a broken rule; ``rule`` is the rule's key in the exercise."""

    rule: str

    def __new__(cls, rule: str, message: str) -> Broken:
        text = super().__new__(cls, message)
        text.rule = rule
        return text


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


def tensors_in(value: Any) -> Iterator[Any]:
    """Yield the tensors in a value: in lists, tuples, dictionaries, and the states of modules."""
    if is_tensor(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in([*value.values()])
    elif not isinstance(value, type) and hasattr(value, "named_parameters"):
        yield from value.state_dict().values()


def plain(value: Any) -> Any:
    """Return an array, a tensor or a NumPy number as Python numbers and lists; others unchanged."""
    if is_tensor(value):
        return value.detach().cpu().tolist()
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Number)


def is_plain_sequence(value: Any) -> bool:
    """Return whether the value is an ordered collection, such as a list; text is none."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def difference(
    got: Any, expected: Any, tolerance: float = 0.0, strict: Collection[str] = (), at: str = ""
) -> str | None:
    """Return None if the values agree, otherwise one or two sentences on the first difference.

    Numbers agree if |got − expected| ≤ tolerance · (1 + |expected|); for a result in float32 the
    tolerance is at least its precision. NaN agrees with NaN. If a set is expected, order is free.

    Args:
        strict: what is compared beyond the values: "tensor", "dtype", "gradient".
    """
    where = f" at {at}" if at else ""
    if is_tensor(expected):
        return _tensor_difference(got, expected, tolerance, strict, where)
    if dataclasses.is_dataclass(expected) and not isinstance(expected, type):
        return _fields_difference(got, expected, tolerance, strict, at)
    if got is None and expected is not None:
        return f"The result{where} is None, but {_kind(expected)} is expected{_missing(at)}"
    if callable(got) and not callable(expected):
        kind = "class" if isinstance(got, type) else "function"
        return (
            f"The result{where} is a {kind}, but {_kind(expected)} is expected: are parentheses "
            "missing?"
        )
    if "float32" in str(getattr(got, "dtype", "")):
        tolerance = max(tolerance, FLOAT32)
    got = plain(got)
    if _is_number(expected):
        return _number_difference(got, expected, tolerance, where)
    if isinstance(expected, Mapping):
        return _dict_difference(got, expected, tolerance, strict, at)
    if isinstance(expected, Set):
        return _set_difference(got, expected, where)
    if is_plain_sequence(expected):
        return _sequence_difference(got, expected, tolerance, strict, at)
    return _plain_difference(got, expected, where)


NO_RETURN = ": is a `return` missing?"


def _missing(at: str) -> str:
    return "." if at else NO_RETURN


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
    names |= {"set": "a collection", "frozenset": "a collection", "NoneType": "None"}
    name = type(value).__name__
    return names.get(name, f"{'an' if name[0] in 'AEIOU' else 'a'} {name}")


def _wrong_type(got: Any, expected: Any, where: str) -> str:
    return (
        f"The result{where} is of type `{type(got).__name__}`, but {_kind(expected)} is expected."
    )


def _plain_difference(got: Any, expected: Any, where: str) -> str | None:
    if isinstance(expected, str) and isinstance(got, str):
        if str(got) == str(expected):
            return None
        pairs = zip(got, expected, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(got), len(expected)))
        return (
            f"The texts{where} part at character {first}: expected "
            f"`{expected[first : first + 30]!r}`, got `{got[first : first + 30]!r}`."
        )
    if type(got) is not type(expected):
        return _wrong_type(got, expected, where)
    if got == expected:
        return None
    return f"Expected{where}: `{shorten(expected)}`, got: `{shorten(got)}`."


def _number_difference(got: Any, expected: Any, tolerance: float, where: str) -> str | None:
    if not _is_number(got):
        return _wrong_type(got, expected, where)
    if close(got, expected, tolerance):
        return None
    if _nan(got):
        return f"The result{where} is NaN (not a number); expected `{shorten(expected)}`."
    if isinstance(expected, int) and isinstance(got, float) and got % 1:
        return f"The result{where} is `{shorten(got)}`, but a whole number is expected: {expected}."
    return f"Expected{where}: `{shorten(expected)}`, got: `{shorten(got)}`."


def _nan(value: Any) -> bool:
    return isinstance(value, numbers.Real) and math.isnan(value)


def close(got: Any, expected: Any, tolerance: float) -> bool:
    """Return whether two numbers agree: |got − expected| ≤ tolerance · (1 + |expected|)."""
    if _nan(got) or _nan(expected):
        return _nan(got) and _nan(expected)
    if got == expected:
        return True
    apart = abs(float(got) - float(expected)) if tolerance else math.inf
    return apart <= tolerance * (1 + abs(expected)) < math.inf


def _sequence_difference(
    got: Any, expected: Sequence, tolerance: float, strict: Collection[str], at: str
) -> str | None:
    where = f" at {at}" if at else ""
    if isinstance(got, Set):
        return f"The result{where} is a set, which has no order, but {_kind(expected)} is expected."
    if not is_plain_sequence(got):
        return _wrong_type(got, expected, where)
    if len(got) != len(expected):
        return (
            f"The result{where} has {len(got)} entries, but {len(expected)} are expected: "
            f"`{shorten(expected, 80)}`, got: `{shorten(got, 80)}`."
        )
    for index, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
        found = difference(mine, theirs, tolerance, strict, f"{at}[{index}]")
        if found:
            names = all(isinstance(item, str) for item in (*got, *expected))
            if names and sorted(got) == sorted(expected):
                return (
                    f"The result{where} has the right entries in another order: expected "
                    f"`{shorten(expected)}`, got `{shorten(got)}`."
                )
            return found
    return None


def _set_difference(got: Any, expected: Set, where: str) -> str | None:
    """Compare without order. A list with an entry twice differs from one that has it once."""
    if not (isinstance(got, Set) or is_plain_sequence(got)):
        return _wrong_type(got, expected, where)
    if missing := sorted((x for x in expected if x not in got), key=repr):
        return f"The result{where} lacks `{shorten(missing[0])}`; got: `{shorten(got)}`."
    if extra := [x for x in got if x not in expected]:
        return f"The result{where} holds `{shorten(extra[0])}`, which is not expected."
    if len(got) != len(expected):
        return f"The result{where} holds an entry more than once: `{shorten(got)}`."
    return None


def _dict_difference(
    got: Any, expected: Mapping, tolerance: float, strict: Collection[str], at: str
) -> str | None:
    where = f" at {at}" if at else ""
    if not isinstance(got, Mapping):
        return _wrong_type(got, expected, where)
    missing = [key for key in expected if key not in got]
    extra = [key for key in got if key not in expected]
    if missing:
        return f"The result{where} has no entry `{shorten(missing[0])}`."
    if extra:
        return f"The result{where} has an entry `{shorten(extra[0])}` that is not expected."
    for key, value in expected.items():
        found = difference(got[key], value, tolerance, strict, f"{at}[{key!r}]")
        if found:
            return found
    return None


def _fields_difference(
    got: Any, expected: Any, tolerance: float, strict: Collection[str], at: str
) -> str | None:
    """Compare a dataclass by fields; a dictionary or tuple with the same fields is accepted."""
    fields = _fields(got, expected)
    if fields is None:
        wanted = ", ".join(field.name for field in dataclasses.fields(expected))
        return (
            f"{_wrong_type(got, expected, f' at {at}' if at else '')} It has the fields {wanted}."
        )
    for name, value in fields.items():
        wanted, place = getattr(expected, name), f"{at}.{name}".lstrip(".")
        if found := difference(value, wanted, tolerance, strict, place):
            return found
    return None


def _fields(value: Any, like: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass by name, from a dictionary, a tuple or another object."""
    names = [field.name for field in dataclasses.fields(like)]
    if isinstance(value, Mapping) and set(value) >= set(names):
        return {name: value[name] for name in names}
    if is_plain_sequence(value) and len(value) == len(names):
        return dict(zip(names, value, strict=True))
    if all(hasattr(value, name) for name in names):
        return {name: getattr(value, name) for name in names}
    return None


def _tensor_difference(
    got: Any, expected: Any, tolerance: float, strict: Collection[str], where: str
) -> str | None:
    import torch

    if got is None:
        return f"The result{where} is None, but {_kind(expected)} is expected{_missing(where)}"
    if not is_tensor(got):
        if "gradient" in strict and expected.requires_grad and _is_number(got):
            return Broken(
                "gradient",
                f"The result{where} is a plain number: its graph is lost, so no gradient can flow "
                "back. Leave out `.item()` and `float()`.",
            )
        if strict:
            rule = next(key for key in STRICT if key in strict)
            return Broken(rule, _wrong_type(got, expected, where))
        try:
            got = torch.as_tensor(got)
        except (TypeError, ValueError, RuntimeError):  # text, or lists of unequal length
            return _wrong_type(got, expected, where)
    if tuple(got.shape) != tuple(expected.shape):
        return (
            f"The result{where} has the shape {tuple(got.shape)}, but {tuple(expected.shape)} is "
            "expected."
        )
    if "dtype" in strict and got.dtype != expected.dtype:
        return Broken(
            "dtype",
            f"The result{where} has the dtype {got.dtype}, but {expected.dtype} is expected.",
        )
    mine, theirs = got.detach().cpu(), expected.detach().cpu()
    wide = torch.float64 if mine.is_floating_point() or theirs.is_floating_point() else torch.int64
    if mine.dtype == torch.float32:
        tolerance = max(tolerance, FLOAT32)
    mine, theirs = mine.to(wide), theirs.to(wide)
    same = torch.isclose(
        mine, theirs, rtol=tolerance, atol=tolerance, equal_nan=wide == torch.float64
    )
    if not same.all():
        return _first_in_tensor(mine, theirs, same, where)
    if "gradient" in strict and expected.requires_grad and not got.requires_grad:
        return Broken(
            "gradient",
            f"The values{where} are right, but the graph is lost (`.detach()`, `.data` or "
            "`no_grad`): no gradient could flow back, so nothing would be trained.",
        )
    return None


def _first_in_tensor(mine: Any, theirs: Any, same: Any, where: str) -> str:
    index = tuple((~same).nonzero()[0].tolist())
    a, b = mine[index].item(), theirs[index].item()
    position = f"position {index[0] if len(index) == 1 else index}"
    place = (f"{where}, {position}" if where else f" at {position}") if index else where
    if isinstance(a, float) and math.isnan(a):
        return f"The result{place} is NaN (not a number); expected `{shorten(b)}`."
    if isinstance(a, float) and math.isinf(a):
        return f"The result{place} is infinite; expected `{shorten(b)}`."
    count = f" {int((~same).sum())} of {same.numel()} values differ." if same.numel() > 1 else ""
    return f"Expected{place}: `{shorten(b)}`, got: `{shorten(a)}`.{count}"


def cast(value: Any, like: Any) -> Any:
    """Return an equal value of the kind that ``like`` has, for the cells that go on with it."""
    if is_tensor(like):
        import torch

        return value if is_tensor(value) else torch.as_tensor(value)
    if value is None or (isinstance(value, type(like)) and dataclasses.is_dataclass(like)):
        return value
    if dataclasses.is_dataclass(like) and not isinstance(like, type):
        fields = _fields(value, like)
        return type(like)(**{name: cast(v, getattr(like, name)) for name, v in fields.items()})
    value = plain(value)
    if isinstance(like, (bool, int, float)) and _is_number(value):
        made = type(like)(value)
        return made if made == value or isinstance(like, float) else value
    if isinstance(like, Mapping) and isinstance(value, Mapping):
        return {key: cast(item, like.get(key)) for key, item in value.items()}
    if isinstance(like, list) and isinstance(value, Collection):
        return [cast(item, like[0]) if like else item for item in value]
    if isinstance(like, tuple) and is_plain_sequence(value):
        kinds = like if len(like) == len(value) else [None] * len(value)
        return tuple(cast(item, kind) for item, kind in zip(value, kinds, strict=True))
    return value
