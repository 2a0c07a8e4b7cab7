"""What an answer needs: the statements of a notebook that define a function, and no others.

To grade a function it need not be known what else a notebook does. Experiments that train for
minutes, an endless loop in a draft, a patched library: a statement that the function does not lean
on is not run.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType

FIXES = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Import,
    ast.ImportFrom,
    ast.Assign,
)
IMPORTS = (ast.Import, ast.ImportFrom)
COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


@dataclass(frozen=True)
class Statement:
    """One statement at the top of a cell.

    Attributes:
        binds: the names that it defines.
        now: the names that it reads when it runs.
        later: the names that its functions read when they are called.
        changes: the name whose object it changes: ``x[0] = 1``, ``x.append(1)``.
    """

    cell: int
    node: ast.stmt
    code: CodeType
    binds: frozenset[str]
    now: frozenset[str]
    later: frozenset[str]
    changes: str | None


def statements(cells: Sequence[str], leave_out: str = "") -> tuple[list[Statement], list[str]]:
    """The statements of a notebook's code cells, and the cells that cannot be read, in words.

    Args:
        cells: their texts; magics are taken out.
        leave_out: statements with this constant in them are passed over.
    """
    found, broken = [], []
    for number, text in enumerate(cells):
        try:
            body = ast.parse(_without_magics(text)).body
            for node in body:
                parts = ast.walk(node) if leave_out else ()
                if not any(isinstance(p, ast.Constant) and p.value == leave_out for p in parts):
                    found.append(_statement(number, node))
        except (SyntaxError, ValueError, RecursionError) as error:
            line = getattr(error, "text", None) or text.strip().partition("\n")[0]
            broken.append(f"Python cannot read a cell ({type(error).__name__}): `{line.strip()}`")
    return found, broken


def needed(all_: Sequence[Statement], name: str) -> list[Statement]:
    """The statements to run, in order, for ``name`` to be what it is after the last of ``all_``."""
    chosen: set[int] = set()
    done: set[tuple[str, int]] = set()
    asked = [(name, len(all_))]
    while asked:
        wanted = asked.pop()
        if wanted in done:
            continue
        done.add(wanted)
        for at in _defining(all_, *wanted):
            if at not in chosen:
                chosen.add(at)
                asked += [(read, at) for read in all_[at].now]
                asked += [(read, len(all_)) for read in all_[at].later]
    return [all_[at] for at in sorted(chosen)]


def _defining(all_: Sequence[Statement], name: str, before: int) -> Iterator[int]:
    """The places before ``before`` that make ``name`` what it is there, from the last one back."""
    changes = []
    for at in reversed(range(before)):
        statement = all_[at]
        if statement.changes == name:
            changes.append(at)
        if name in statement.binds:
            yield at
            if isinstance(statement.node, FIXES) and name not in statement.now:
                # What is done to a library is not part of an answer.
                yield from () if isinstance(statement.node, IMPORTS) else changes
                return
    if not hasattr(builtins, name):
        yield from (at for at in range(before) if _is_star(all_[at].node))


def _is_star(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.names[0].name == "*"


def _statement(cell: int, node: ast.stmt) -> Statement:
    code = compile(ast.Module([node], []), f"<cell {cell + 1}>", "exec")
    binds = _named(code, "STORE_NAME", "STORE_GLOBAL")
    now, later = _reads(code)
    return Statement(
        cell, node, code, frozenset(binds), frozenset(now), frozenset(later), _changed(node)
    )


def _reads(code: CodeType) -> tuple[set[str], set[str]]:
    """The global names that code reads when it runs, and those that its functions read later."""
    now = _named(code, "LOAD_NAME", "LOAD_GLOBAL")
    later: set[str] = set()
    for inner in filter(inspect.iscode, code.co_consts):
        inner_now, inner_later = _reads(inner)
        is_function = inner.co_flags & inspect.CO_OPTIMIZED and inner.co_name not in COMPREHENSIONS
        (later if is_function else now).update(inner_now)
        later |= inner_later
    return now, later


def _named(code: CodeType, *operations: str) -> set[str]:
    return {step.argval for step in dis.get_instructions(code) if step.opname in operations}


def _changed(node: ast.stmt) -> str | None:
    target = None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        target = node.value.func
    elif isinstance(node, ast.Assign):
        target = node.targets[0]
    elif isinstance(node, ast.AugAssign):
        target = node.target
    if not isinstance(target, ast.Attribute | ast.Subscript):
        return None
    while isinstance(target, ast.Attribute | ast.Subscript):
        target = target.value
    return target.id if isinstance(target, ast.Name) else None


def _without_magics(text: str) -> str:
    """Plain Python. Lines stay where they are, so that a message names the right one."""
    from IPython.core.inputtransformer2 import TransformerManager

    if text.lstrip().startswith("%%"):
        first, _, rest = text.lstrip().partition("\n")
        text = f"# {first}\n{rest}"
    return TransformerManager().transform_cell(text)
