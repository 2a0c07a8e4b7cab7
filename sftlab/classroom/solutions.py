"""``reveal``: the solution is the package's own source, folded, with the reason why."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from sftlab.classroom import catalogue, html_cards


def reveal(id: str) -> None:
    """Show the package's source of the exercise's function, closed until it is unfolded.

    What is shown is what the package runs and its tests test; nothing is written out twice. The
    plain-text twin leaves the solution out.

    Raises:
        WorkbookError: there is no such exercise.
    """
    exercise = catalogue.exercise(id)
    shown = [exercise.reference, *exercise.shows]
    blocks = "".join(_source(function) for function in shown)
    summary = f"Unfold the workbook's own `{exercise.name}`, and why it is written this way"
    html = html_cards.card(
        exercise.title,
        html_cards.folded(summary, f"<p>{html_cards.inline(exercise.why)}</p>{blocks}"),
    )
    text = f"{exercise.title}\nThe solution is folded: open this notebook in Jupyter to unfold it."
    html_cards.show(html, text)


def _source(function: Callable[..., Any]) -> str:
    """The highlighted source and its place. Colours are inline: a stored page has no CSS."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
    from pygments.styles.vs import VisualStudioStyle
    from pygments.token import Name

    class Readable(VisualStudioStyle):
        """Its blue of classes is too pale on white (contrast 3.6; 4.5 is what readers need)."""

        styles = VisualStudioStyle.styles | {Name.Class: "#1f6f8b"}

    # Dark colours on a white that is set with them: a dark page changes neither. On the <pre> too,
    # to which JupyterLab gives a background of its own.
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
