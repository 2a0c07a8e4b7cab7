"""Wrong versions of a function, made by changing its syntax tree in one place."""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
COPIES = {"clone", "copy", "detach", "deepcopy", "contiguous"}
DTYPES = {"float32": "float64", "float64": "float32", "long": "int32", "int64": "int32",
          "uint8": "int64", "bfloat16": "float32"}  # fmt: skip


def mutants(function: Any) -> Iterator[tuple[str, Any]]:
    """Yield (what was changed, the changed function) for a function or a class.

    Places that only refuse invalid arguments (an ``if`` whose body is a ``raise``) and annotations
    stay as they are.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    tree.body[0].decorator_list = []
    seen: dict[str, int] = {}
    for number, place in enumerate(_places(tree)):
        for change in range(len(list(_changes(place)))):
            changed = copy.deepcopy(tree)
            node = list(_places(changed))[number]
            parent, field, index, new, text = list(_changes(node))[change]
            _replace(parent, field, index, new)
            seen[text] = seen.get(text, 0) + 1
            name = text if seen[text] == 1 else f"{text} #{seen[text]}"
            try:
                yield name, _compiled(ast.fix_missing_locations(changed), function)
            except (SyntaxError, ValueError):
                seen[text] -= 1


def _compiled(tree: ast.Module, function: Any) -> Any:
    names = dict(vars(inspect.getmodule(function)))
    exec(compile(tree, f"<a mutant of {function.__name__}>", "exec"), names)
    return names[function.__name__]


def _replace(parent: ast.AST, field: str, index: int | None, new: Any) -> None:
    if index is None:
        setattr(parent, field, new)
    elif new is None:
        del getattr(parent, field)[index]
        if not getattr(parent, field) and field in ("body", "orelse"):
            getattr(parent, field).append(ast.Pass())
    else:
        getattr(parent, field)[index] = new


Place = tuple[ast.AST, str, int | None, ast.AST]


def _places(node: ast.AST) -> Iterator[Place]:
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "args") and isinstance(node, (ast.FunctionDef, ast.arg, ast.AnnAssign)):  # fmt: skip
            continue
        values = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in values:
            if not isinstance(child, ast.AST) or _refuses(child) or _is_docstring(child):
                continue
            yield node, field, index, child
            yield from _places(child)


def _refuses(node: ast.AST) -> bool:
    ends = isinstance(node, (ast.Raise, ast.Assert))
    return ends or (isinstance(node, ast.If) and all(isinstance(s, ast.Raise) for s in node.body) and not node.orelse)  # fmt: skip


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(place: Place) -> Iterator[tuple[ast.AST, str, int | None, Any, str]]:
    parent, field, index, node = place

    def to(new: Any, text: str | None = None) -> tuple:
        said = text or f"`{ast.unparse(node)}` becomes `{ast.unparse(ast.fix_missing_locations(copy.deepcopy(new)))}`"  # fmt: skip
        return parent, field, index, new, said

    def like(**fields: Any) -> Any:
        new = copy.deepcopy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return new

    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            yield to(like(ops=[COMPARISONS[type(op)]()]))
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            yield to(like(op=ARITHMETIC[type(op)]()))
        case ast.BoolOp(op=op):
            yield to(like(op=ast.Or() if isinstance(op, ast.And) else ast.And()))
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield to(operand)
        case ast.Constant(value=bool(value)):
            yield to(ast.Constant(not value))
        case ast.Constant(value=int(value)):
            yield to(ast.Constant(value + 1))
            if value:
                yield to(ast.Constant(value - 1))
        case ast.Constant(value=float(value)):
            yield to(ast.Constant(value * 2 + 1))
        case ast.Attribute(attr=name) if name in DTYPES:
            yield to(like(attr=DTYPES[name]))
        case ast.Call(func=ast.Attribute(attr=name, value=value), args=[]) if name in COPIES:
            yield to(value)
        case ast.Call(args=[first, second, *rest]) if not any(isinstance(a, ast.Starred) for a in node.args):  # fmt: skip
            yield to(like(args=[second, first, *rest]))
        case ast.IfExp(body=body, orelse=other):
            yield to(body)
            yield to(other)
        case ast.Expr() | ast.AugAssign() | ast.For() | ast.If() | ast.Continue() | ast.Break():
            yield to(None, f"without `{ast.unparse(node).splitlines()[0]}`")
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield to(None, f"without `{ast.unparse(node)}`")
    if isinstance(node, ast.keyword) and node.arg and isinstance(parent, ast.Call):
        yield to(None, f"without `{node.arg}=` in `{ast.unparse(parent)}`")
