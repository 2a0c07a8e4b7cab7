"""The code and data behind a stored result, to detect results that are out of date.

The code behind a notebook or module consists of the modules of this package that it imports,
directly or indirectly. Each is represented by a digest that ignores formatting, comments and
docstrings.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from sftlab._internal.paths import DATA, PACKAGE

NAME = PACKAGE.name
# These modules display, download or phrase something; they change no result.
NO_RESULT = {NAME} | {
    f"{NAME}.{name}"
    for name in ("_internal.progress_bar", "_internal.code_behind", "cli", "errors", "fetch")
}


def code_behind(code: str) -> dict[str, str]:
    """Return module -> digest for all modules of the package that ``code`` needs."""
    found: set[str] = set()
    waiting = set(_imported(code))
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= _imports(module) - found
    return {module: module_digest(module) for module in sorted(found - NO_RESULT)}


def records_behind(code: str) -> dict[str, str]:
    """Return file under ``data`` -> digest for all recorded results that the code reads.

    Results read by the modules behind the code are included.
    """
    sources = [code, *(_path(module).read_text(encoding="utf-8") for module in code_behind(code))]
    named = {
        node.args[0].value
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("runs", "read")  # functions of sftlab.exercises.record
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    files = sorted((DATA / "results").glob("*.json"))
    return {f"results/{path.name}": record_digest(path) for path in files if path.stem in named}


def data_behind() -> dict[str, str]:
    """Return the digests of the data that every notebook may read.

    These are the embedded models (by their checksums), the facts and the pairs.
    """
    folders = [DATA / "almanac", DATA / "instructions"]
    files = [p for folder in folders for p in sorted(folder.iterdir()) if p.suffix != ".md"]
    joined = "".join(file_digest(path) for path in files)
    return {
        "models/checksums.json": file_digest(DATA / "models" / "checksums.json"),
        "almanac, instructions": _digest(joined),
    }


def changed(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the names in ``now`` that are new or have another digest in ``before``.

    A module that is no longer needed is not listed. Some module that needed it must then have
    changed and is listed instead.
    """
    return sorted(name for name, digest in now.items() if before.get(name) != digest)


@cache
def module_digest(module: str) -> str:
    return code_digest(_path(module).read_text(encoding="utf-8"))


def code_digest(source: str) -> str:
    """Return a digest that ignores formatting, comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            del node.body[: ast.get_docstring(node, clean=False) is not None]
    return _digest(repr(_plain(tree)))


def file_digest(path: Path) -> str:
    """Return a digest of a text file, with line endings as in git."""
    return _digest(path.read_bytes().replace(b"\r\n", b"\n").decode())


def record_digest(path: Path) -> str:
    """Return a digest of a file of recorded runs, without the entry written by `record.confirm`."""
    text = path.read_bytes().replace(b"\r\n", b"\n").decode()
    return _digest(re.sub(r'(?ms)^"confirmed": \{.*?^\},\n(?="runs")', "", text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(node):
    """Return a syntax tree as tuples without empty fields: the same in every version of Python."""
    if isinstance(node, ast.JoinedStr):  # Python 3.12 adds empty strings between some parts
        return [_plain(part) for part in node.values if getattr(part, "value", None) != ""]
    if isinstance(node, ast.AST):
        parts = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return (type(node).__name__, *((name, _plain(value)) for name, value in parts))
    return [_plain(item) for item in node] if isinstance(node, list) else node


@cache
def _imports(module: str) -> frozenset[str]:
    return frozenset(_imported(_path(module).read_text(encoding="utf-8")))


def _imported(code: str) -> Iterable[str]:
    """Yield the package's modules imported anywhere in the code, and their parent packages.

    The block under ``if __name__ == "__main__"`` is ignored.
    """
    tree = ast.parse(code)
    tree.body = [node for node in tree.body if not _is_program(node)]
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == NAME:
                whole = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
                yield from (module for module in whole if _path(module).is_file())


def _is_program(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def _path(module: str) -> Path:
    """Return the file of a module; for other names, a path that does not exist."""
    place = PACKAGE.parent.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
