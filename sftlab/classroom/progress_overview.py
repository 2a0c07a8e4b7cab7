"""``start`` opens a notebook, ``show_progress`` sums all of them up."""

from __future__ import annotations

import logging
import os
import random
from dataclasses import dataclass
from html import escape

from sftlab.classroom import catalogue, html_cards, progress

# They report what is no concern of a student; errors still come through.
NOISY = (
    "transformers", "huggingface_hub", "bitsandbytes.backends.cpu.ops", "datasets", "peft",
    "matplotlib",  # it remarks on a home that it cannot write to
)  # fmt: skip


def start(number: str, seed: int = 0, model: str = "almanac") -> None:
    """Begin notebook ``number`` ("12"): seed everything, set the plot style, show what is to do.

    Seeds Python, NumPy and PyTorch, so that Run All gives the same numbers each time. On a model
    other than the embedded one it says how long the notebook takes.

    Raises:
        WorkbookError: there is no notebook of that number, or it cannot run on the model.
    """
    catalogue.package(number)  # raises for a number that is none
    # transformers sets its logger's level at import, so its own variable is what lasts.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    seed_everything(seed)
    from sftlab.classroom.plots import use_style

    use_style()
    title = f"{number} · {catalogue.title(number)}"
    lines = [*tally(number).lines(), *catalogue.on_model(number, model)]
    body = "<br>".join(html_cards.inline(line) for line in lines)
    html_cards.show(html_cards.card(title, body), "\n".join([title, *lines]))


def seed_everything(seed: int) -> None:
    """Give Python, NumPy and PyTorch the same start."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Tally:
    """What is done in one notebook, and what there is to do."""

    checks_solved: int
    checks: int
    predicted: int
    predictions: int
    right: int
    settled: int  # predictions whose result has been shown

    def lines(self) -> list[str]:
        """The tally in words; a notebook without checks or predictions leaves the line out."""
        lines = []
        if self.predictions:
            shown = f", {self.right} of {self.settled} right so far" if self.settled else ""
            lines.append(f"Predictions: {self.predicted} of {self.predictions} made{shown}")
        if self.checks:
            lines.append(f"Checks: {self.checks_solved} of {self.checks} solved")
        return lines


def tally(number: str, stored: dict | None = None) -> Tally:
    """Count what the progress file holds for one notebook."""
    stored = progress.load() if stored is None else stored
    own = [entry for id_, entry in stored["predictions"].items() if id_.partition(".")[0] == number]
    checks = catalogue.exercises(number)
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
    """The board: for every notebook that is there, checks solved and predictions made and right."""
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
    """Counts in bold, with a tick, where nothing is left to do."""
    part, _, whole = text.partition(" of ")
    return f"<b>{text} ✓</b>" if part == whole != "0" else text
