"""The answers of the banks as text, to be typed into a stub, with all that they lean on."""

from __future__ import annotations

import ast

from needed_cells import bound, used

from sftlab._internal.paths import ROOT

BANKS = ROOT / "tests" / "wrong_answers"


def answers(number: str, kind: str, id: str) -> list[tuple[str, str]]:
    """The answers to one check that can be typed: (cell, what the feedback says of it).

    Args:
        number: of the notebook, "07".
        kind: "WRONG" or "RIGHT"; of a right answer the feedback is "".
        id: of the check, "07.break_even_rank".
    """
    text = (BANKS / f"bank_{number}.py").read_text(encoding="utf-8")
    statements = ast.parse(text).body
    (listed,) = [
        s for s in statements if isinstance(s, ast.Assign) and bound(ast.unparse(s)) == {kind}
    ]
    around = [
        ast.unparse(s) if s is listed else ast.get_source_segment(text, s) for s in statements
    ]
    found = []
    for key, value in zip(listed.value.keys, listed.value.values, strict=True):
        if key.value != id:
            continue
        literal = value.right if isinstance(value, ast.BinOp) else value  # shared ones | its own
        for entry in literal.values:
            if kind == "WRONG" and not isinstance(entry, ast.Tuple):
                continue  # made by an expression
            node, phrase = entry.elts if kind == "WRONG" else (entry, ast.Constant(""))
            cell = _cell(around, ast.get_source_segment(text, node), id.partition(".")[2])
            if cell and isinstance(phrase, ast.Constant):
                found.append((cell, phrase.value))
    return found


def _cell(around: list[str], expression: str, name: str) -> str | None:
    """The statements that an expression needs, and the expression under the stub's name.

    None if the bank uses that name for something of its own, which the stub would hide.
    """
    chosen: set[int] = set()
    wanted = used(expression)
    while more := {i for i, part in enumerate(around) if bound(part) & wanted} - chosen:
        chosen |= more
        wanted |= set().union(*(used(around[i]) for i in more))
    parts = [around[index] for index in sorted(chosen)]
    if any(name in bound(part) for part in parts):
        return "\n".join(parts) if expression == name else None
    return "\n".join([*parts, f"{name} = {expression}"])
