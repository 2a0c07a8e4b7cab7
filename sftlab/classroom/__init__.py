"""The classroom: predict before you look, check what you wrote, reveal how the workbook does it.

Importing this costs next to nothing: torch, IPython and ipywidgets are loaded by the functions that
need them.
"""

from sftlab.classroom.check_results import check
from sftlab.classroom.predictions import outcome, predict
from sftlab.classroom.progress_overview import show_progress, start
from sftlab.classroom.show_of_hands import show_of_hands
from sftlab.classroom.solutions import reveal

__all__ = ["check", "outcome", "predict", "reveal", "show_of_hands", "show_progress", "start"]
