"""The house, read from its imports: ``python -m tools.architecture`` draws docs/architecture.svg.

A room is a folder of the package; the modules directly in it are the core. Imports inside functions
count as any others do.
"""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from html import escape

import grimp

from sftlab._internal.paths import ROOT

PICTURE = ROOT / "docs" / "architecture.svg"
# Room -> the rooms that its modules may import, besides its own.
ALLOWED: dict[str, set[str]] = {
    "_internal": set(),
    "core": {"_internal"},
    "memory": {"_internal", "core"},
    "almanac": {"_internal", "core"},
    "classroom": {"_internal", "core"},
    "exercises": {"_internal", "core", "memory", "almanac", "classroom"},
    "tools": {"_internal", "core", "memory", "almanac", "classroom", "exercises"},
}
ROOMS = tuple(ALLOWED)
# Of the core the classroom imports the errors, and what it draws: tokens with their labels.
DRAWN = {"sftlab.errors", "sftlab.chat", "sftlab.loss", "sftlab.masking"}


def graph() -> grimp.ImportGraph:
    """The imports of the package and of the tools."""
    return grimp.build_graph("sftlab", "tools", cache_dir=None)


def room(module: str) -> str:
    """The room of a module; the package itself, its program and the errors count to the lowest."""
    parts = module.split(".")
    if parts[0] == "tools":
        return "tools"
    if module in ("sftlab", "sftlab.errors"):
        return "_internal"
    return parts[1] if parts[1] in ALLOWED else "core"


def wrong_arrows(found: grimp.ImportGraph) -> list[str]:
    """The imports that the rules do not allow."""
    wrong = []
    for module in sorted(found.modules):
        for imported in sorted(found.find_modules_directly_imported_by(module)):
            here, there = room(module), room(imported)
            drawn = here != "classroom" or there != "core" or imported in DRAWN
            if here != there and not (there in ALLOWED[here] and drawn):
                wrong.append(f"{module} → {imported}")
    return wrong


def circles(found: grimp.ImportGraph) -> list[list[str]]:
    """The groups of modules that import each other round about, each in alphabetical order."""
    groups = set()
    for module in found.modules:
        behind = found.find_upstream_modules(module)
        group = {m for m in behind if module in found.find_upstream_modules(m)}
        if group:
            groups.add(tuple(sorted({module, *group})))
    return [list(group) for group in sorted(groups)]


# --- The picture ---------------------------------------------------------------------------------
# Where a room stands: left edge, upper edge, width, height, and what it is for.
PLACES = {
    "tools": (40, 20, 820, 62, "for authors, outside the package: publish, pages, course, benchmarks"),
    "exercises": (40, 128, 820, 62, "a folder for each notebook: check, answers, experiment, explorer, plots"),
    "classroom": (40, 240, 250, 92, "predict, check, reveal,\nexplore, show, table"),
    "memory": (325, 240, 250, 92, "count, plan, measure\nand limit the bytes"),
    "almanac": (610, 240, 250, 92, "facts, documents, tokenizer,\nbase, pairs"),
    "core": (40, 382, 820, 120, ""),
    "_internal": (40, 552, 820, 62, "errors, paths, progress bar, interrupts, random state, provenance"),
}  # fmt: skip
INK, LINE = "#1b1f24", "#5f6b76"


def draw(found: grimp.ImportGraph) -> str:
    """The rooms and the arrows between them as SVG: from who imports to what is imported."""
    arrows = Counter(
        (room(module), room(imported))
        for module in found.modules
        for imported in found.find_modules_directly_imported_by(module)
        if room(module) != room(imported)
    )
    core = sorted(m.partition(".")[2] for m in found.modules if room(m) == "core")
    words = ", ".join(name for name in core if not name.startswith("__"))
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 640" font-family="sans-serif" '
        f'role="img" aria-label="{_in_words(arrows)}">',
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>',
        '<rect width="900" height="640" fill="#ffffff"/>',
    ]
    for name, (x, y, width, height, about) in PLACES.items():
        text = textwrap.fill(words, 112) if name == "core" else about
        parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="#f3f5f7" '
            f'stroke="{LINE}"/><text x="{x + 14}" y="{y + 25}" font-size="17" font-weight="bold" '
            f'fill="{INK}">{name}</text>'
        )
        for number, line in enumerate(text.split("\n")):
            parts.append(
                f'<text x="{x + 14}" y="{y + 47 + 18 * number}" font-size="13.5" fill="{INK}">'
                f"{escape(line)}</text>"
            )
    # Only to the next room below: what lies further down may be imported as well.
    for upper, lower in (("tools", "exercises"), ("exercises", "classroom"), ("exercises", "memory"),
                         ("exercises", "almanac"), ("classroom", "core"), ("memory", "core"),
                         ("almanac", "core"), ("core", "_internal")):  # fmt: skip
        if arrows[upper, lower]:
            box = PLACES[lower if lower in ("classroom", "memory", "almanac") else upper]
            x = 450 if box[2] > 500 else box[0] + box[2] / 2
            start, end = PLACES[upper][1] + PLACES[upper][3], PLACES[lower][1]
            parts.append(
                f'<path d="M{x:g},{start} V{end - 3}" stroke="{LINE}" stroke-width="2" '
                'marker-end="url(#head)"/>'
            )
    return "\n".join([*parts, "</svg>", ""])


def _in_words(arrows: Counter) -> str:
    lines = []
    for importer in ROOMS[::-1]:
        imported = [name for name in ROOMS if arrows[importer, name]]
        if imported:
            lines.append(f"{importer} imports {', '.join(imported)}.")
    return " ".join(lines)


def main() -> int:
    """Draw the picture; 1 if an arrow points the wrong way or there is a circle."""
    found = graph()
    PICTURE.write_text(draw(found), encoding="utf-8")
    for line in wrong_arrows(found):
        print(f"not allowed: {line}")
    for circle in circles(found):
        print(f"a circle: {', '.join(circle)}")
    return int(bool(wrong_arrows(found) or circles(found)))


if __name__ == "__main__":
    sys.exit(main())
