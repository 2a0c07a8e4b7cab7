"""Which cells of a notebook a cell needs: the ones that bind the names that it uses, and theirs.

A test of an explorer or of a check need not wait for every experiment of the notebook. Cells that
only change an object (a training of a model that is there already) are left out: an explorer then
moves over an untrained model, which moves all the same. `make browser` runs all cells, and nbval does.
"""

from __future__ import annotations

import ast
import builtins
from functools import cache


@cache
def bound(source: str) -> frozenset[str]:
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
    return frozenset(found)


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


@cache
def used(source: str) -> frozenset[str]:
    """The names that a cell reads anywhere, functions included, and does not make itself there."""
    return frozenset(_read(ast.parse(source)) - set(dir(builtins)))


def _read(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    first: list[ast.AST] = []  # read before the names of this node are made
    own: set[str] = set()
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        first = [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        own = {argument.arg for argument in (*every, node.args.vararg, node.args.kwarg) if argument}
        body = node.body if isinstance(node.body, list) else [node.body]
        own |= {name for statement in body for name in _made(statement)}
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        first = [node.generators[0].iter]
        own = {name for part in node.generators for name in _made(part.target)}
    elif isinstance(node, ast.For):
        first, own = [node.iter], _made(node.target)
    inside = {n for child in ast.iter_child_nodes(node) if child not in first for n in _read(child)}
    return (inside - own) | {name for child in first for name in _read(child)}


def _made(node: ast.AST) -> set[str]:
    names = (n for n in ast.walk(node) if isinstance(n, ast.Name))
    return {n.id for n in names if isinstance(n.ctx, ast.Store)}


def needed(sources: dict[int, str], target: int) -> list[int]:
    """The code cells to run, in order, for ``target`` to run; ``target`` is the last of them.

    Args:
        sources: index of a code cell -> its text.
    """
    made = {name for source in sources.values() for name in bound(source)}  # torch, for one, is not
    chosen, wanted = [target], set(used(sources[target])) - _imported(sources[target])
    for index in sorted((i for i in sources if i < target), reverse=True):
        source = sources[index]
        if wanted & (bound(source) | changed(source) & made):
            chosen.append(index)
            wanted -= bound(source)
            wanted |= used(source) - _imported(source)
    return sorted(chosen)


def shortened(notebook, *wanted: str) -> None:
    """Keep of a notebook its stubs, the cells with one of these texts, and those that they need."""
    code = {n: cell for n, cell in enumerate(notebook.cells) if cell.cell_type == "code"}
    sources = {n: cell.source for n, cell in code.items()}
    for text in wanted:
        assert any(text in source for source in sources.values()), text
    targets = [
        n
        for n, cell in code.items()
        if "stub" in cell.metadata.get("tags", []) or any(text in cell.source for text in wanted)
    ]
    kept = sorted({cell for target in targets for cell in needed(sources, target)})
    notebook.cells = [notebook.cells[n] for n in kept]


def _imported(source: str) -> set[str]:
    imports = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)]
    return {(a.asname or a.name).partition(".")[0] for n in imports for a in n.names}
