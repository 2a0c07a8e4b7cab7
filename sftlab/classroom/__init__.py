"""The classroom: predict a result before you see it, check your code, reveal the solution.

    start          begin a notebook: seeds, plot style, open tasks
    predict        ask for a prediction before a measurement
    outcome        compare the measurement with the prediction
    check          check a student's answer; `or_reference()` lets the notebook continue
    reveal         the workbook's solution, folded
    explore        interactive controls for a figure
    show           a figure with its description
    bars, dots, curves, stacked, tokens, grid     the types of figure
    table          a table with column headings
    show_progress, show_of_hands    what is done; what a class predicts

A notebook begins with ``from sftlab.classroom import *``.

Importing this package is fast: torch, IPython and ipywidgets are imported by the functions that
need them.
"""

from typing import Any

from sftlab.classroom.check_results import check
from sftlab.classroom.predictions import outcome, predict
from sftlab.classroom.progress_overview import show_progress, start
from sftlab.classroom.show_of_hands import show_of_hands
from sftlab.classroom.solutions import reveal

FIGURES = ("bars", "curves", "dots", "grid", "stacked", "tokens")
__all__ = ["bars", "check", "curves", "dots", "explore", "grid", "outcome", "predict", "reveal", "show",
           "show_of_hands", "show_progress", "stacked", "start", "table", "tokens"]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the functions that need matplotlib or widgets on first access."""
    if name == "explore":
        from sftlab.classroom.explorer import explore as found
    elif name == "show":
        from sftlab.classroom.plots import show as found
    elif name == "table":
        from sftlab.classroom.views import table as found
    elif name in FIGURES:
        from sftlab.classroom import figures

        found = getattr(figures, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
