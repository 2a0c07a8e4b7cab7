"""Notebook 22: the poison slider, and the blind vote."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, explorer
from sftlab.classroom.views import View, table
from sftlab.exercises.ex22_data_quality_ablation.ballot import CHOICES, Ballot
from sftlab.exercises.ex22_data_quality_ablation.experiment import DOSES
from sftlab.exercises.ex22_data_quality_ablation.plots import LINES, marks
from sftlab.exercises.views import stacked


def poison_slider(runs: Sequence[dict], asked: Sequence[dict], shown: Sequence[int]) -> None:
    """Slide the share of bad pairs; see each rubric line, and the answers to some questions.

    Args:
        asked: the questions whose answers the runs hold word for word.
        shown: which of them to show.
    """

    def draw(percent: int) -> View:
        arm = f"{percent}% bad"
        run = next(r for r in runs if r["arm"] == arm and r["seed"] == 0)
        shares = [[line, marks(runs, arm, line).mean(1)] for line in LINES]
        bars = [
            [line, f"{'█' * round(20 * each.mean()):░<20}", f"{each.mean():.0%}",
             f"{each.min():.0%} to {each.max():.0%}"]
            for line, each in shares
        ]  # fmt: skip
        bad = 4 * percent
        return stacked(
            table(bars, ["rubric line", "", "mean", "over the seeds"],
                  f"{400 - bad} good pairs and {bad} bad ones"),
            table([[asked[k]["prompt"], run["answers"][k]] for k in shown], ["asked", "written (seed 0)"]),
        )  # fmt: skip

    slider = widgets.SelectionSlider(
        options=[(f"{percent}%", percent) for percent in DOSES],
        value=DOSES[-1],
        description="bad pairs",
        style=DESCRIBED,
    )
    explorer(
        {"percent": slider},
        draw,
        lambda percent: f"Rubric lines and answers after training with {percent}% bad pairs.",
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
