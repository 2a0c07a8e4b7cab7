"""The explorer of notebook 23: pick a run and an instrument."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ipywidgets as widgets

from sftlab.chat import end_of_turn_id
from sftlab.classroom.explorer import DESCRIBED, explorer, text_box
from sftlab.classroom.figures import curves
from sftlab.classroom.views import View, table, token_view
from sftlab.errors import WorkbookError
from sftlab.exercises.ex23_broken_runs_clinic.clinic import Run
from sftlab.exercises.ex23_broken_runs_clinic.evidence import PROBES, values
from sftlab.exercises.ex23_broken_runs_clinic.plots import NAMES, told
from sftlab.exercises.views import prompt_view, stacked
from sftlab.loss import IGNORE_INDEX


def _curve(run: Run, _: str):
    title = f"The last loss is {run.losses[-1]:.2f}"
    alt = f"Line chart of the loss over {len(run.losses)} steps, from {run.losses[0]:.2f} to {run.losses[-1]:.2f}."
    return curves(dict(enumerate(run.losses, 1)), title, alt, xlabel="training step",
                  ylabel="loss (nats per trained token)", ylim=(0, None))  # fmt: skip


def _answer(run: Run, question: str) -> View:
    if not question.strip():
        raise WorkbookError("type a question")
    prompt = prompt_view(run.tokenizer, run.prompt(question), "the served model reads")
    (reply,) = run.ask([question])
    row = [reply.text or "(nothing)", "yes" if reply.stopped else "no"]
    return stacked(prompt, table([row], ["it writes", "stopped by itself"]))


def _tokens(run: Run, _: str) -> View:
    return stacked(*(token_view(run.tokenizer, run.rows[number]) for number in (0, 2)))


def _labels(run: Run, _: str) -> View:
    end = end_of_turn_id(run.tokenizer)
    ids = [token for row in run.rows for token in row.input_ids]
    labels = [label for row in run.rows for label in row.labels if label != IGNORE_INDEX]
    lengths = sorted(row.trained for row in run.rows)
    rows = [
        ["tokens in all examples", len(ids)],
        ["of them trained", f"{len(labels)} ({len(labels) / len(ids):.0%})"],
        ["end-of-turn tokens in the input ids", ids.count(end)],
        ["end-of-turn tokens among the labels", labels.count(end)],
        ["trained tokens in an example", f"{lengths[0]} to {lengths[-1]}"],
    ]
    return table(rows, [f"{len(run.rows)} examples", ""])


def _all(run: Run, _: str) -> View:
    seen = values(run)
    rows = [[NAMES.get(n, n), p.source, told(p.sound), told(seen[n])] for n, p in PROBES.items()]
    return table(rows, ["probe", "looks at", "a sound run", "this run"])


ASKS = "prompt and answer"  # the instrument that reads the question
INSTRUMENTS: dict[str, Callable] = {
    "loss curve": _curve,
    ASKS: _answer,
    "tokens of two examples": _tokens,
    "label counts": _labels,
    "all probes": _all,
}


def examine_a_run(ward: Mapping[str, Run], question: str) -> None:
    """Pick a run and an instrument; type a question for the instrument that asks."""

    def draw(bed: str, instrument: str, question: str):
        found = INSTRUMENTS[instrument](ward[bed], question)
        named = View(f"<p>run {bed}</p>", f"run {bed}")  # two runs may look the same
        return stacked(named, found) if isinstance(found, View) else found

    controls = {
        "bed": widgets.ToggleButtons(
            options=list(ward),
            value=next(iter(ward)),
            description="run",
            style={"button_width": "2.6em"},
        ),
        "instrument": widgets.Dropdown(
            options=list(INSTRUMENTS),
            value=ASKS,
            description="instrument",
            style=DESCRIBED,
        ),
        "question": text_box(question, "Question (Enter to ask)"),
    }

    def lock_what_is_not_read(change) -> None:
        controls["question"].disabled = change.new != ASKS

    controls["instrument"].observe(lock_what_is_not_read, "value")
    explorer(
        controls,
        draw,
        lambda bed, instrument, question: (
            f"Run {bed}, looked at with the instrument: {instrument}."
        ),
    )
