"""``reveal``: show the package's own source as the solution, folded, with an explanation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from sftlab.classroom import catalogue, html_cards


def reveal(id: str) -> None:
    """Show the source code of an exercise's function, folded until the student opens it.

    Above it stand the path to the solution and why it is written this way. The source is what the
    package runs and its tests test. The plain-text version leaves the solution out.

    Raises:
        WorkbookError: there is no such exercise.
    """
    exercise = catalogue.exercise(id)
    shown = [exercise.reference, *exercise.shows]
    blocks = "".join(_source(function) for function in shown)
    said = "".join(f"<p>{html_cards.inline(t)}</p>" for t in (exercise.path, exercise.why) if t)
    summary = f"Unfold the workbook's own `{exercise.name}`, and why it is written this way"
    html = html_cards.card(exercise.title, html_cards.folded(summary, f"{said}{blocks}"))
    text = f"{exercise.title}\nThe solution is folded: open this notebook in Jupyter to unfold it."
    html_cards.show(html, text)


def _source(function: Callable[..., Any]) -> str:
    """Return the highlighted source and its path; colors are inline since stored pages lack CSS."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    from pygments.styles.vs import VisualStudioStyle
    from pygments.token import Name

    class Readable(VisualStudioStyle):
        """Darker blue for classes: the original's contrast on white is 3.6, but 4.5 is needed."""

        styles = VisualStudioStyle.styles | {Name.Class: "#1f6f8b"}

    # Text and background colors are set together, so a dark page changes neither. They are
    # also set on the <pre>, to which JupyterLab gives its own background.
    paper = f"background:#ffffff;color:{html_cards.INK}"
    formatter = HtmlFormatter(
        noclasses=True,
        style=Readable,
        prestyles=paper,
        cssstyles=f"{paper};padding:.4em .8em;overflow:auto",
    )
    path = function.__module__.replace(".", "/") + ".py"
    code = highlight(inspect.getsource(function), PythonLexer(), formatter)
    return f"<div><small>{path}</small></div>{code}"
