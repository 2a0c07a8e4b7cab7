"""A notebook as slides, by rule: what stands on which slide, and what is hidden first.

A heading begins a slide. Code is folded, and goes with its output; a prediction, its outcome and a
solution have slides of their own. What does not fit goes on under the same heading.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from sftlab.classroom.catalogue import notebook
from tools import live, polls, presenter, website
from tools.notebook_metadata import CHECK, EXPLORE, REVEAL, START
from tools.presenter import Load
from tools.slide_height import ROOM, TIGHT, parts, slide_height
from tools.slide_text import ITEM, SHOWN, shorten

HEADING = re.compile(r"^(#{1,3}) (.+)$", re.M)
IN_WORDS = "This figure in words: "
LIVE = '<p class="live">A still picture: in JupyterLab it moves.</p>'
LIVE_HERE = f'<p class="live">A still picture. {live.MOVES}</p>'


@dataclass
class Piece:
    """A cell on a slide, with the HTML around it and the pixels that it is likely to take."""

    cell: Any
    height: int
    before: str = ""
    after: str = ""
    words: int = 0  # of running text


@dataclass
class Slide:
    """``part`` is the notebook's heading of the second level that the slide stands under."""

    part: str
    heading: str
    level: int
    kind: str = "plain"
    goes_on: bool = False
    pieces: list[Piece] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load: Load = field(default_factory=Load)

    @property
    def height(self) -> int:
        return sum(piece.height for piece in self.pieces)


class Deck:
    """The slides of a notebook, filled cell by cell."""

    def __init__(self, number: str):
        self.made = website.read(number)
        self.file = notebook(number).name
        self.polls = polls.polls(self.made.cells)
        self.slides: list[Slide] = []
        self.code: list[Piece] = []  # folded, waiting for its output
        self.part = ""
        for cell in self.made.cells:
            self._text(cell) if cell.cell_type == "markdown" else self._run(cell)
        self._leave()
        self._tell_minutes()

    # --- where things go -------------------------------------------------------------------

    def _begin(self, heading: str, level: int, kind: str = "plain", goes_on: bool = False) -> None:
        self._leave()
        self.slides.append(Slide(self.part, heading, level, kind, goes_on))

    def _begin_again(self, kind: str) -> None:
        """A slide of its own under the same heading."""
        now = self.slides[-1]
        self._begin(now.heading, now.level, kind, goes_on=now.goes_on or bool(now.pieces))

    def _leave(self) -> None:
        """Drop a slide that is a heading alone."""
        self._flush()
        if len(self.slides) > 1 and not self.slides[-1].pieces:
            dropped = self.slides.pop()
            self.slides[-1].load += dropped.load

    def _flush(self) -> None:
        """Folded code that had no output stays with what is there already."""
        code, self.code = self.code, []
        if code and self.slides[-1].pieces and self.slides[-1].kind == "plain":
            self.slides[-1].pieces.extend(code)
        elif code:
            self._put(*code)

    def _put(self, *group: Piece) -> None:
        """Put pieces that belong together; if they do not fit, a text that leads to them goes along."""
        now = self.slides[-1]
        needed = sum(piece.height for piece in group)
        # A few lines stay with what they lead to, drawn smaller, and above what is too high anyway.
        both = now.height + needed
        full = both > TIGHT >= needed if now.height < ROOM // 3 else both > ROOM
        if now.pieces and (now.kind != "plain" or full):
            last = now.pieces[-1]
            leads = now.kind == "plain" and last.cell.cell_type == "markdown"
            if leads and len(now.pieces) > 1 and last.height + needed <= ROOM:
                group = (now.pieces.pop(), *group)
            self.slides.append(Slide(now.part, now.heading, now.level, goes_on=True))
        self.slides[-1].pieces.extend(group)

    # --- the kinds of cells ----------------------------------------------------------------

    def _text(self, cell: Any) -> None:
        drawn = cell.get("attachments", {})
        pieces = HEADING.split(cell.source)  # text, then hashes, heading and text in turn
        self._paragraphs(pieces[0], drawn)
        for hashes, heading, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            level = len(hashes)
            self._leave()
            if level < 3:
                self.part = heading if level == 2 else ""
            self._begin(heading, level)
            self._paragraphs(text, drawn)

    def _paragraphs(self, text: str, drawn: dict) -> None:
        if text.strip():
            self._flush()
        for block in filter(str.strip, re.split(r"\n\s*\n(?=\S)", text)):
            shown, said = shorten(block)
            whole = new_markdown_cell(shown)
            fits = slide_height(whole) <= ROOM and presenter.words(shown) <= SHOWN
            parts = [shown] if fits else ITEM.split(shown)
            for cell in (new_markdown_cell(part, attachments=drawn) for part in parts):
                self._put_text(Piece(cell, slide_height(cell), words=presenter.words(cell.source)))
            self.slides[-1].load.words += presenter.words(block)
            if said:
                self.slides[-1].notes.append(presenter.of_text(said))

    def _put_text(self, piece: Piece) -> None:
        """Put a text; where others have been shown before it, on a slide of its own."""
        now = self.slides[-1]
        used = sum(other.words for other in now.pieces)
        if used and used + piece.words > SHOWN and now.kind == "plain":
            self.slides.append(Slide(now.part, now.heading, now.level, goes_on=True))
        self._put(piece)

    def _run(self, cell: Any) -> None:
        tags = cell.metadata.get("tags", [])
        checked = CHECK.search(cell.source)
        if "parameters" in tags or START.search(cell.source) or "show_progress()" in cell.source:
            return
        if asked := polls.predict_calls(cell):
            for id, *_ in asked:
                self._poll(self.polls[id], settled=False)
        elif checked:  # what it says is about a student's own code
            self.slides[-1].notes.append(presenter.of_check(checked[1]))
            self.slides[-1].load += Load(checks=1)
        elif "stub" in tags:
            stub = new_code_cell(cell.source)
            self._put(Piece(stub, slide_height(stub)))
        else:
            self._experiment(cell)
        self.slides[-1].load.lines += cell.source.count("\n") + 1

    def _poll(self, poll: polls.Poll, settled: bool) -> None:
        now = self.slides[-1]
        code, self.code = (self.code, []) if settled else ([], self.code)
        self._begin(f"Prediction {poll.id}", 3, "prediction")
        self._put(Piece(_html(polls.as_html(poll, settled)), 0), *code)
        self.slides[-1].notes.append(presenter.of_poll(poll))
        self.slides[-1].load.predictions += not settled
        # What follows stands under the heading that was left, as its continuation.
        goes_on = now.goes_on or bool(now.pieces)
        self.slides.append(Slide(self.part, now.heading, now.level, goes_on=goes_on))

    def _experiment(self, cell: Any) -> None:
        outputs = [
            part
            for output in cell.outputs
            if not polls.is_outcome(output) and not _words(output)
            for part in _parts(output)
        ]
        shown = [Piece(_shown(output), slide_height(_shown(output))) for output in outputs]
        # An explorer displays itself; a view that its module makes is returned, and stands still.
        displayed = outputs and all(output.output_type == "display_data" for output in outputs)
        moving = bool(EXPLORE.search(cell.source)) and displayed
        if moving:
            here = live.EXPLORERS.search(cell.source)
            shown[-1].after = LIVE_HERE if here else LIVE
        if REVEAL.search(cell.source):
            self._begin_again("solution")
            if len(shown) > 1:  # what the cell tries first
                self._fold(cell.source)
            code, self.code = self.code, []
            self._put(*code, *shown)
        else:
            self._fold(cell.source)
            for piece in shown:
                code, self.code = self.code, []
                self._put(*code, piece)
        self.slides[-1].notes += [presenter.of_figure(w) for w in map(_words, cell.outputs) if w]
        if moving:
            self.slides[-1].notes.append(presenter.of_explorer(self.file))
            self.slides[-1].load.explorers += 1
        for id in polls.told_by(cell):
            self._poll(self.polls[id], settled=True)

    def _fold(self, source: str) -> None:
        """Code that waits for its output; cells that have none are folded together with it."""
        if self.code:
            self.code[-1].after = ""
        opening = "" if self.code else "<details class=code><summary>code</summary>"
        height = 0 if self.code else slide_height(None)
        self.code.append(Piece(new_code_cell(source), height, opening, "</details>"))

    # --- minutes ---------------------------------------------------------------------------

    def _tell_minutes(self) -> None:
        """Each section's time on its first slide, the notebook's on the very first."""
        whole = Load()
        for slide in reversed(self.slides):
            whole += slide.load
        section = Load()
        for slide in reversed(self.slides):
            section += slide.load
            if not slide.goes_on:
                slide.notes.insert(0, presenter.of_section(section))
                section = Load()
        self.slides[0].notes.insert(0, presenter.of_notebook(whole))
        self.load = whole


def _words(output: Any) -> str:
    """The figure in words that an output tells, "" if it tells none."""
    text = output.get("data", {}).get("text/plain", "")
    return text.removeprefix(IN_WORDS) if text.startswith(IN_WORDS) else ""


def _parts(output: Any) -> list[Any]:
    """The output, or several if it is a table that is too high for a slide."""
    split = parts(output.get("data", {}).get("text/html", ""))
    if len(split) == 1:
        return [output]
    return [new_output("display_data", {"text/html": part}) for part in split]


def _html(text: str) -> Any:
    """A cell that shows HTML alone."""
    return _shown(new_output("display_data", {"text/html": text}))


def _shown(output: Any) -> Any:
    """A cell that shows one output, without its source."""
    return new_code_cell(outputs=[output], metadata={"transient": {"remove_source": True}})
