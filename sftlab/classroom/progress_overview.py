"""``start`` opens a notebook; ``show_progress`` summarizes all notebooks."""

from __future__ import annotations

import logging
import os
import random
from dataclasses import dataclass
from html import escape

from sftlab.classroom import catalogue, html_cards, progress

# Their messages are irrelevant for students; errors are still shown.
NOISY = (
    "transformers", "huggingface_hub", "bitsandbytes.backends.cpu.ops", "datasets", "peft",
    "matplotlib",  # it warns if the home directory is not writable
)  # fmt: skip


def start(number: str, seed: int = 0, model: str = "almanac") -> None:
    """Begin notebook ``number`` ("12"): set seeds and plot style, and show the open tasks.

    Sets the seeds of Python, NumPy and PyTorch, so that Run All gives the same numbers each time,
    and the style of figures and tables.
    On a model other than the embedded one, shows how long the notebook takes.

    Raises:
        WorkbookError: there is no notebook with this number, or it cannot run on the model.
    """
    catalogue.package(number)  # raises an error for an unknown number
    # transformers resets its logger's level at import, so its environment variable is needed.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    seed_everything(seed)
    import pandas

    from sftlab.classroom.plots import use_style

    use_style()
    pandas.set_option("display.max_colwidth", None)  # a table shows its cells whole
    title = f"{number} · {catalogue.title(number)}"
    lines = [*tally(number).lines(), *catalogue.on_model(number, model)]
    body = "<br>".join(html_cards.inline(line) for line in lines)
    html_cards.show(html_cards.card(title, body), "\n".join([title, *lines]))


def seed_everything(seed: int) -> None:
    """Set the seeds of Python, NumPy and PyTorch."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Tally:
    """Numbers of tasks in one notebook: existing, done, and right."""

    checks_solved: int
    checks: int
    predicted: int
    predictions: int
    right: int
    settled: int  # predictions that were right or wrong

    def lines(self) -> list[str]:
        """Return the tally in words, without lines for checks or predictions that do not exist."""
        lines = []
        if self.predictions:
            shown = f", {self.right} of {self.settled} right so far" if self.settled else ""
            lines.append(f"Predictions: {self.predicted} of {self.predictions} made{shown}")
        if self.checks:
            lines.append(f"Checks: {self.checks_solved} of {self.checks} solved")
        return lines


def tally(number: str, stored: dict | None = None) -> Tally:
    """Count the entries of the progress file for one notebook."""
    stored = progress.load() if stored is None else stored
    own = [entry for id_, entry in stored["predictions"].items() if id_.partition(".")[0] == number]
    checks = catalogue.check_ids(number)
    settled = [entry for entry in own if entry.get("right") is not None]
    return Tally(
        checks_solved=sum(bool(stored["checks"].get(id_, {}).get("solved")) for id_ in checks),
        checks=len(checks),
        predicted=sum("choice" in entry for entry in own),
        predictions=max(len(catalogue.prediction_ids(number)), len(own)),
        right=sum(entry["right"] for entry in settled),
        settled=len(settled),
    )


def show_progress() -> None:
    """Show, for every notebook, the checks solved and the predictions made and right."""
    stored = progress.load()
    rows = []
    for number in catalogue.numbers():
        found = tally(number, stored)
        if number == "00" or not (found.checks or found.predictions):
            continue
        rows.append(
            (
                f"{number} · {catalogue.title(number)}",
                f"{found.checks_solved} of {found.checks}",
                f"{found.predicted} of {found.predictions}",
                f"{found.right} of {found.settled}",
            )
        )
    head = ("notebook", "checks solved", "predictions made", "predictions right")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]
    lines = [
        "   ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in [head, *rows]
    ]
    lines.append(f"Kept in {progress.progress_path().name}.")
    html_cards.show(_table(head, rows), "\n".join(lines))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cell = "padding:.25em .9em;text-align:left;border-bottom:1px solid #8886"
    top = "".join(f'<th scope="col" style="{cell}">{escape(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row" style="{cell};font-weight:normal">{escape(row[0])}</th>'
        + "".join(f'<td style="{cell}">{_done(text)}</td>' for text in row[1:])
        + "</tr>"
        for row in rows
    )
    caption = f"Kept in <code>{escape(progress.progress_path().name)}</code>"
    return (
        f'<table style="border-collapse:collapse"><caption style="caption-side:bottom">{caption}'
        f"</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    )


def _done(text: str) -> str:
    """Return a count as HTML, bold with a check mark if all is done."""
    part, _, whole = text.partition(" of ")
    return f"<b>{text} ✓</b>" if part == whole != "0" else text
