"""The classroom: predict a result before you see it, check your code, reveal the solution.

    start          begin a notebook: seeds, plot style, open tasks
    predict        ask for a prediction before a measurement
    outcome        compare the measurement with the prediction
    check          check a student's answer; `or_reference()` lets the notebook continue
    reveal         the workbook's solution, folded
    explore        interactive controls for a figure
    show           a figure with its description
    table          a table with column headings
    show_progress, show_of_hands    what is done; what a class predicts

Importing this package is fast: torch, IPython and ipywidgets are imported by the functions that
need them.
"""

from typing import Any

from sftlab.classroom.check_results import check
from sftlab.classroom.predictions import outcome, predict
from sftlab.classroom.progress_overview import show_progress, start
from sftlab.classroom.show_of_hands import show_of_hands
from sftlab.classroom.solutions import reveal

__all__ = ["check", "explore", "outcome", "predict", "reveal", "show", "show_of_hands",
           "show_progress", "start", "table"]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the functions that need matplotlib or widgets on first access."""
    if name == "explore":
        from sftlab.classroom.explorer import explore as found
    elif name == "show":
        from sftlab.classroom.plots import show as found
    elif name == "table":
        from sftlab.classroom.views import table as found
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
