"""Notebook 22: one defect in some dose, and the blind vote."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import ipywidgets as widgets

from sftlab.almanac.defects import DEFECTS
from sftlab.classroom.explorer import DESCRIBED, explorer
from sftlab.classroom.views import View, table
from sftlab.exercises.ex22_data_quality_ablation.ballot import CHOICES, Ballot
from sftlab.exercises.ex22_data_quality_ablation.plots import (
    CLEAN,
    effect,
    points,
    shares,
    shown_questions,
    spoilt,
    went_wrong,
)
from sftlab.exercises.ex22_data_quality_ablation.spoilt import DOSES, SHOWN
from sftlab.exercises.views import stacked
from sftlab.scoring import RUBRIC


def one_defect(runs: Sequence[dict]) -> None:
    """Choose a defect and the number of pairs that have it; see the rubric lines and some answers."""
    asked = shown_questions(SHOWN)

    def draw(defect: str, bad: int) -> View:
        rows = []
        for line in RUBRIC:
            before, after = (shares(runs, line, **a).mean(1) for a in (CLEAN, spoilt(defect, bad)))
            change = points(effect(runs, CLEAN, spoilt(defect, bad), line))
            rows.append(
                [line.replace("_", " "), f"{before.mean():.0%}", f"{after.mean():.0%}", change]
            )
        return stacked(
            table(rows, ["rubric line", "all right", "spoilt", "change (95%)"],
                  f"300 pairs, {bad} of them with this defect: {defect}"),
            table(went_wrong(runs, defect, asked, bad=bad),
                  ["asked", "all pairs right", f"{bad} pairs spoilt"], "answers that differ, seed 0"),
        )  # fmt: skip

    explorer(
        {
            "defect": widgets.Dropdown(
                options=list(DEFECTS), value="ramble", description="defect", style=DESCRIBED
            ),
            "bad": widgets.SelectionSlider(
                options=DOSES, value=DOSES[-1], description="pairs with it", style=DESCRIBED
            ),
        },
        draw,
        lambda defect, bad: (
            f"Rubric lines and answers after training with {bad} pairs of the defect {defect}."
        ),
        continuous=True,
    )


def pair_view(ballot: Ballot) -> View:
    """The pair that is voted on, without a word about who wrote what."""
    prompt, a, b = ballot.shown()
    where = f"pair {ballot.at + 1} of {len(ballot.questions)}"
    return table([[a, b]], ["A", "B"], f"{where}: {prompt}")


def blind_vote(ballot: Ballot) -> None:
    """Vote for A, for B, or for neither; a class presses once for every hand. Shows a pair at once.

    The result stays hidden until it is asked for: who knows the standing is no longer blind.
    """
    from IPython import get_ipython
    from IPython.display import display

    still = pair_view(ballot)
    text = f"{still.text}\nRun the notebook to vote."
    if get_ipython() is None:
        print(text)
        return
    stage, count, result = widgets.HTML(still.html), widgets.HTML(), widgets.HTML()
    here = dict.fromkeys(CHOICES, 0)

    def tell() -> None:
        cast = ", ".join(f"{choice}: {n}" for choice, n in here.items())
        count.value = f"<small>votes on this pair: {escape(cast)}. {escape(ballot.notice)}</small>"

    def voted(choice: str) -> None:
        try:
            ballot.vote(choice)
        except Exception as error:  # a button's error would be seen by nobody
            result.value = escape(f"The vote could not be kept: {error}")
            return
        here[choice] += 1
        result.value = ""
        tell()

    def go_on(_) -> None:
        ballot.forward()
        here.update(dict.fromkeys(CHOICES, 0))
        stage.value, result.value = pair_view(ballot).html, ""
        tell()

    buttons = []
    for choice in CHOICES:
        button = widgets.Button(description=choice)
        button.on_click(lambda _, choice=choice: voted(choice))
        buttons.append(button)
    following = widgets.Button(description="next pair", icon="arrow-right")
    following.on_click(go_on)
    telling = widgets.Button(description="show the result")
    telling.on_click(lambda _: setattr(result, "value", escape(ballot.result())))
    tell()
    box = widgets.VBox([stage, widgets.HBox([*buttons, following, telling]), count, result])
    note = "<p><small>Run the notebook to vote.</small></p>"
    bundle = {**box._repr_mimebundle_(), "text/html": still.html + note, "text/plain": text}
    display(bundle, raw=True)
