"""Notebook 00: choose a model."""

from __future__ import annotations

import ipywidgets as widgets

from sftlab.classroom.explorer import explorer
from sftlab.classroom.views import View, table
from sftlab.models import FAMILIES


def pick_a_model() -> None:
    """The models that the workbook knows, and the line that chooses one."""

    def draw(name: str) -> View:
        family = FAMILIES[name]
        where = (
            "embedded: nothing to download"
            if family.embedded
            else f"fetched from the hub on first use: {family.base}"
        )
        rows = [["in each notebook's first cell", f'MODEL = "{name}"'], ["base", family.base], ["chat", family.chat],
                ["licence", family.licence], ["where it comes from", where]]  # fmt: skip
        return table(rows, ["", name])

    picker = widgets.Dropdown(options=list(FAMILIES), description="model")
    explorer(
        {"name": picker}, draw, lambda name: f"How to choose the model {name}.", continuous=True
    )
