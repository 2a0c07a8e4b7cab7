"""Notebook 20: merge with any strength; and speeds, which are shown live and never stored."""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets as widgets

from sftlab.classroom.explorer import WIDE, explorer, text_box
from sftlab.classroom.views import View, table
from sftlab.errors import WorkbookError
from sftlab.generate import answer
from sftlab.merging import merged_at


def merge_strength(model, tokenizer, prompt: str) -> None:
    """A slider for the merge strength, and what the model then answers.

    Args:
        model: with its LoRA layers, not merged; it is so again after each answer.
    """

    def draw(strength: float, prompt: str) -> View:
        if not prompt.strip():
            raise WorkbookError("type something to ask")
        rows = []
        for times in dict.fromkeys((0.0, strength, 1.0)):
            with merged_at(model, times):
                (reply,) = answer(model, tokenizer, [prompt], max_new_tokens=32)
            name = {0.0: "0, the base", 1.0: "1, as trained"}.get(times, f"{times:g}")
            rows.append([name, reply.text, "yes" if reply.stopped else "no"])
        return table(rows, ["merge strength", "the model writes", "stopped by itself"])

    slider = widgets.FloatSlider(
        value=0.4, min=0, max=4, step=0.1, description="× α", layout=WIDE, readout_format=".1f"
    )
    explorer(
        {"strength": slider, "prompt": text_box(prompt, "Prompt (Enter to ask)")},
        draw,
        lambda strength, prompt: f"What the model answers to {prompt!r}, merged at {strength:g} α.",
    )


def show_speeds(speeds: Mapping[str, float]) -> None:
    """Tokens per second as bars, for the live page alone: a stored page does not keep them."""
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        return
    display(widgets.HTML(bars(speeds)))


def bars(speeds: Mapping[str, float]) -> str:
    """One bar of HTML per name, as long as its speed."""
    most = max(speeds.values())
    return "".join(
        f'<div style="margin:2px 0"><span style="display:inline-block;width:6em">{name}</span>'
        f'<span style="display:inline-block;height:1em;width:{22 * speed / most:.1f}em;'
        f'background:#0072B2;vertical-align:middle"></span> {speed:,.0f} tokens/s</div>'
        for name, speed in speeds.items()
    )
