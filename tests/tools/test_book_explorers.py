"""Explorers on the pages of the book: every state is there, and says what the notebook's explorer says."""

from __future__ import annotations

import random
import re
from html import unescape

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from sftlab.classroom import catalogue
from sftlab.classroom.explorer import _bundle
from sftlab.memory import plan as planner
from sftlab.memory.plan import Run
from tools import explorer_arguments, explorer_charts, explorers, quick_plans

IDS = list(explorer_arguments.ARGUMENTS)
FREE = (
    "04.edit_probabilities",
    "12.mask_a_pair",
)  # a slider for each token, and text: no list of states
LISTED = [id for id in IDS if id not in FREE]
CHARTS = ("03.steps_slider", "06.store_tasks", "08.pick_a_start", "09.carry_over", "17.try_factors", "18.pick_rank", "21.choose_dtypes", "24.fill_sequences")  # fmt: skip


def cell_of(id: str):
    """The notebook's cell with an explorer."""
    cells = nbformat.read(catalogue.notebook(id[:2]), as_version=4).cells
    (found,) = (c for c in cells if (m := explorers.CALL.search(c.source)) and m[1] == id)
    return found


def stored(id: str) -> str:
    """The words of an explorer's first picture in the notebook."""
    return "".join(cell_of(id).outputs[0].data["text/plain"])


def some_states(id: str, count: int) -> list[dict]:
    states = list(explorers.captured(id).states())
    return random.Random(0).sample(states, min(count, len(states)))


@pytest.mark.parametrize("id", LISTED)
def test_states_are_listed_once_and_the_first_is_the_notebooks(id):
    explorer = explorers.captured(id)
    states = [tuple(values.items()) for values in explorer.states()]
    assert len(set(states)) == len(states) == explorer.count()
    assert tuple(explorer.first().items()) in states
    with explorer_charts.as_data(), explorer_arguments.quick(id):
        drawn = explorer.draw(**explorer.first())
    if isinstance(drawn, explorer_charts.Chart):
        assert drawn["alt"] == stored(id)
    else:
        words = explorer.words(explorer.first())
        assert _bundle(drawn, words)[0]["text/plain"] == stored(id)


@pytest.mark.parametrize("id", IDS)
def test_controls_on_the_page_have_the_notebooks_labels_and_defaults(id):
    page = explorers.html(cell_of(id))
    parts = re.findall(r"<(?:fieldset|label) class=.moving-\w+.*?</(?:fieldset|label)>(?!<label|</div>)", page, re.S)  # fmt: skip
    controls = explorers.captured(id).controls
    assert len(parts) == len(controls)
    for part, control in zip(parts, controls.values(), strict=True):
        assert (control.description or "") in unescape(part)
        if "<textarea" in part:
            assert f">{control.value}</textarea>" in unescape(part)
            continue
        labels, _, first = explorers.choices(control)
        assert f'data-first="{first}"' in part
        if 'type="checkbox"' not in part and id in LISTED:
            assert all(label in unescape(unescape(part)) for label in labels)
    assert len(page) < len(str(cell_of(id).outputs)) + 100_000


def test_an_explorer_that_needs_a_model_stays_as_it_is():
    for id in ("10.choose_a_rate", "16.train_and_ask", "23.examine_a_run"):
        assert explorers.html(cell_of(id)) is None


@pytest.mark.parametrize("id", CHARTS)
def test_a_chart_says_what_the_figure_says(id):
    explorer = explorers.captured(id)
    assert explorers.kind(id) == "charts"
    for values in some_states(id, 5):
        with explorer_charts.as_data():
            chart = explorer.draw(**values)
        figure = explorer.draw(**values)
        assert (chart["title"], chart["alt"]) == (figure.get_suptitle(), figure.alt)
        if chart["kind"] == "curves":
            for panel, axis in zip(chart["panels"], figure.axes, strict=True):
                lines = {line.get_label(): line for line in axis.lines}
                for series in panel["series"]:
                    shown = np.array(series["points"])[:, :2].T
                    assert np.allclose(shown, lines[series["label"]].get_data(), rtol=1e-4)
                for which, ends in (("x", axis.get_xlim()), ("y", axis.get_ylim())):
                    assert np.allclose([panel[which]["low"], panel[which]["high"]], ends, rtol=0.02)
            plt.close(figure)
            continue
        texts = {text.get_text() for axis in figure.axes for text in axis.texts}
        written = {total for total in chart["totals"] if total}
        written |= {each for row in chart.get("inside", []) for each in row if each}
        assert written == {text for text in texts if text and text not in dict(chart["lines"]).values()}  # fmt: skip
        ticks = [text.get_text() for text in figure.axes[0].get_yticklabels()]
        assert chart["rows"] == ticks
        plt.close(figure)


def drawn_runs(count: int) -> list[Run]:
    """Runs that explorers 11 and 19 can ask for."""
    draw = random.Random(0)
    return [
        Run(
            draw.choice(("smollm2-135m", "llama-3.2-1b", "llama-3-8b")),
            draw.choice((1, 2, 4, 8, 16)),
            length := draw.choice((32, 128, 512, 2048, 8192)),
            length // 2,
            draw.choice((1, 8, 16, 64, 256)),
            draw.choice(("all-linear", ("q_proj", "v_proj"))),
            draw.choice(("fp32", "bf16", "nf4")),
            draw.choice((False, True)),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [2, pytest.param(60, marks=pytest.mark.thorough)])
def test_quick_plans_are_those_of_the_planner(count):
    for run in drawn_runs(count):
        expected = planner.plan.__wrapped__(run)
        with quick_plans.interpolated():
            assert planner.plan.__wrapped__(run) == expected, run


def test_after_quick_plans_the_planner_is_itself_again():
    with pytest.raises(ZeroDivisionError), quick_plans.interpolated():
        1 / 0  # noqa: B018
    assert planner._dry_run is quick_plans._dry_run
    assert planner._dry_run is not quick_plans.counts
