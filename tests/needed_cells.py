"""Which cells of a notebook a cell needs: the ones that bind the names that it uses, and theirs.

A browser test of an explorer need not wait for every experiment of the notebook. Cells that only
change an object (a training of a model that is there already) are left out: the explorer then moves
over an untrained model, which moves all the same. `make browser` runs all cells.
"""

from __future__ import annotations

import ast
import builtins


def bound(source: str) -> set[str]:
    """The names that a cell's statements bind outside its functions."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
            return
        if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp):
            return
        if isinstance(node, ast.GeneratorExp):
            return
        if isinstance(node, ast.alias):
            found.add((node.asname or node.name).partition(".")[0])
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found


def changed(source: str) -> set[str]:
    """The names whose object a cell changes by a statement of its own: ``x[0] = …``, ``x.add(…)``."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            targets = [node.value.func]
        elif isinstance(node, ast.Assign):
            targets = node.targets
        else:
            continue
        for target in targets:
            depth = 0
            while isinstance(target, ast.Attribute | ast.Subscript):
                target, depth = target.value, depth + 1
            if depth and isinstance(target, ast.Name):
                found.add(target.id)
    return found


def used(source: str) -> set[str]:
    """The names that a cell reads anywhere, functions included."""
    names = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name))
    return {n.id for n in names if isinstance(n.ctx, ast.Load)} - set(dir(builtins))


def needed(sources: dict[int, str], target: int) -> list[int]:
    """The code cells to run, in order, for ``target`` to run; ``target`` is the last of them.

    Args:
        sources: index of a code cell -> its text.
    """
    chosen, wanted = [target], used(sources[target]) - _imported(sources[target])
    for index in sorted((i for i in sources if i < target), reverse=True):
        source = sources[index]
        if wanted & (bound(source) | changed(source)):
            chosen.append(index)
            wanted -= bound(source)
            wanted |= used(source) - _imported(source)
    return sorted(chosen)


def _imported(source: str) -> set[str]:
    imports = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)]
    return {(a.asname or a.name).partition(".")[0] for n in imports for a in n.names}
