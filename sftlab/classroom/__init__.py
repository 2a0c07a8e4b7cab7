"""The classroom: predict before you look, check what you wrote, reveal how the workbook does it.

    start          begin a notebook: seeds, plot style, what is to do
    predict        ask for a prediction before something is measured
    outcome        show what was measured beside it
    check          try a student's answer; `or_reference()` lets the notebook go on
    reveal         the workbook's own version, folded
    explore        controls over a picture
    show           a figure with its description
    table          rows under headings
    show_progress, show_of_hands    what is done; what a class predicts

Importing this costs next to nothing: torch, IPython and ipywidgets are loaded by the functions that
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
    """Load what needs matplotlib or widgets when it is asked for."""
    if name == "explore":
        from sftlab.classroom.explorer import explore as found
    elif name == "show":
        from sftlab.classroom.plots import show as found
    elif name == "table":
        from sftlab.classroom.views import table as found
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return found
