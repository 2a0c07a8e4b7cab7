"""``docs/findings.md``: what the textbook chapter says and what was measured; ``docs/claims.md``: every claim.

Every measured sentence is taken from the table *What was found* that a notebook stores, and every
verdict follows from the words of that table, which the notebook computes from its numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from sftlab._internal.paths import ROOT
from sftlab.classroom.catalogue import NOTEBOOKS

PATH, CLAIMS = (ROOT / "docs" / f"{name}.md" for name in ("findings", "claims"))
HELD, PART, FAILED, OPEN = "held", "in part", "did not hold", "not settled"


@dataclass(frozen=True)
class Statement:
    """What the chapter says on a subject, and how to read the answer from a notebook's table.

    Attributes:
        says: the chapter's claim in our words.
        rows: the rows of the table that bear on it, from 0.
        verdicts: pairs (pattern, verdict, comment). The first pattern that is found in the rows, their
            cells joined by " | ", decides; without any the verdict is OPEN.
    """

    number: str
    says: str
    rows: Sequence[int]
    verdicts: Sequence[tuple[str, str, str]]


STATEMENTS = (
    Statement("01", "A base model continues a text, an instruct model answers.", (0,), (
        ("answers more than the effects", PART, "weights and chat template have to come together"),)),
    Statement("02", "SFT teaches the format of answers, not facts; a few good pairs do most of it.", (0, 1), (
        ("more often than.*content improves", PART, "facts come from the base; more pairs still improve the content"),
        ("more often than", HELD, "facts come from the base"))),
    Statement("03", "The loss should cover the response alone.", (2, 1), (
        ("worse.*; The question [^|]*within", PART, "the template's tokens cost answers; the question alone changes the loss little at 24 steps"),
        ("worse", HELD, ""), ("better", FAILED, ""))),
    Statement("04", "The SFT loss is a mean over the response tokens.", (1, 2), (
        ("does not change.*mean of means: up to [1-9]", HELD, "if all tokens of a step are counted together"), ("changes", FAILED, ""))),
    Statement("05", "Another template than in training costs answers.", (0,), (
        (r"fewer right[^|]*\|[^|]*\|[^|]*\| SmolLM2: [^|]*within", PART, "a missing line break costs the small model answers; SmolLM2's stay within 5 points"),
        ("fewer right", HELD, "a missing line break does"), ("more right", FAILED, ""))),
    Statement("06", "LoRA saves memory and storage.", (0,), ((r"a file by 9\d%", HELD, ""),)),
    Statement("06", "LoRA forgets less than full fine-tuning.", (1,), (
        ("loss: forgets more; at its share of exact answers: not settled", FAILED, "more at equal held-out loss, in few steps; not settled at equal shares of exact answers"),
        ("forgets more", FAILED, "at equal held-out loss, in few steps"), ("forgets less", HELD, ""))),
    Statement("07", "A change of low rank is enough.", (1,), (
        ("whole change, is not settled", HELD, ""), ("is higher", PART, "some of the loss is in the directions that are cut"))),
    Statement("08", "With B at zero the model starts exactly at the base.", (0,), (
        ("starts at the base", HELD, ""), ("away from", FAILED, ""))),
    Statement("09", "α/r keeps the size of the update steady when the rank changes.", (0,), (
        ("output is steady.*ΔW falls", PART, "the change of the output is steady, the norm of ΔW is not"),
        ("output is steady", HELD, ""), ("", FAILED, ""))),
    Statement("10", "LoRA needs about ten times the learning rate.", (0,), (
        ("higher", PART, "higher; by how much depends on the questions and on what is kept equal"), ("lower", FAILED, ""))),
    Statement("11", "NF4 stores weights better than four-bit integers.", (0, 1), (
        ("larger.*larger.*5.0: ×0", PART, "at these bits per weight; with an offset, at 5.0, it turns round"), ("larger.*larger", HELD, ""), ("smaller", FAILED, ""))),
    Statement("12", "A masked prompt is not trained.", (0, 1), (
        ("loss higher.*share of the gradient.*masked positions: 0", PART, "it has no loss of its own, but what it says changes the loss and the gradient"),)),
    Statement("13", "A handful of pairs turns continuing into answering.", (0,), (
        (r"more.*“Q: … A:” with no example (100|9\d)%", PART, "in the chat template; as “Q: … A:” the base answers without any"), ("more", HELD, ""), ("fewer", FAILED, ""))),
    Statement("14", "A template marks who speaks, so a forged turn is believed.", (0,), (
        ("more short replies; more than without", PART, "its words alone do much of it"), ("more short replies", HELD, ""),)),
    Statement("15", "Train every answer of a conversation, and its end-of-turn token.", (1, 3), (
        ("ended turns lower.*not settled", PART, "the end-of-turn token decides; every answer or the last one is not settled"),
        ("ended turns lower", HELD, ""))),
    Statement("16", "The whole run makes a model that follows instructions.", (2,), (
        (r"240 pairs fewer, 24 pairs fewer \|.*: trained ([5-9]\d|100)%, prompted", PART, "in the template it answers most questions that the base has read; the base, prompted in the layout of its documents, answers more"),
        ("240 pairs not settled[^,]*, 24 pairs fewer", PART, "with 24 pairs it answers fewer questions than the prompted base; with 240 pairs this is not settled"),
        ("240 pairs fewer, 24 pairs fewer", PART, "the base, prompted in the layout of its documents, answers more questions"),
        ("240 pairs fewer", FAILED, ""), ("240 pairs not settled", OPEN, ""), ("240 pairs more", HELD, ""))),
    Statement("17", "A LoRA layer written by hand equals the library's.", (2,), (("equals", HELD, ""),)),
    Statement("18", "A small rank on q and v is enough.", (0, 3), (
        (r"is higher.*is higher.*exactly right: [^|;(]*\(-[^)]* to \+", PART, "for new facts the same number of parameters does better elsewhere; after learning to answer the loss is higher too, exact answers not settled"),
        ("is higher.*is higher", PART, "for new facts and for learning to answer the same number of parameters does better elsewhere"), ("is lower", HELD, ""))),
    Statement("19", "LoRA costs far less memory, at similar quality.", (1, 4), (
        ("saves less.*not settled", PART, "less with longer sequences; a difference in quality is not settled"),)),
    Statement("20", "A merged model gives the same answers, at no cost.", (0, 3, 1), (
        ("changed no answer.*longer.*more entries stay", HELD, "in float32; in bfloat16 some entries do not move"), ("changed no answer", PART, "in float32; the time is not settled"), ("changed", FAILED, ""))),
    Statement("21", "QLoRA trains a 4-bit base as well as a 16-bit one.", (1,), (
        ("documents [^|]*is higher.*test, [^|]*(not settled|the same)", PART, "no difference on the task is settled; at equal test loss a little more is forgotten"),
        ("documents [^|]*(is lower|not settled).*test, [^|]*(not settled|the same|lower)", HELD, ""),
        ("test, [^|]*higher", FAILED, ""))),
    Statement("22", "Quality beats quantity: bad pairs spoil a set.", (0, 1), (
        (r"^[^|]*answers fall.*answers rise \|", PART, "200 bad of 700 do; more good pairs help as well"),
        ("^[^|]*answers fall", HELD, ""), ("^[^|]*answers rise", FAILED, ""))),
)  # fmt: skip


class _Rows(HTMLParser):
    """The cells of a table, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.text: str | None = None

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.text = ""

    def handle_data(self, data: str) -> None:
        if self.text is not None:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self.text is not None:
            self.rows[-1].append(self.text.strip())
            self.text = None


def found(number: str) -> list[list[str]]:
    """Return the rows of a notebook's last table of claims: claim, measured, control, where it stops.

    Raises:
        ValueError: the notebook stores no such table.
    """
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    for cell in reversed(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        for output in cell.get("outputs", []):
            page = "".join(output.get("data", {}).get("text/html", ""))
            if "<th>claim</th>" in page or "where it stops" in page:
                table = _Rows()
                table.feed(page)
                return [row[-4:] for row in table.rows[1:] if len(row) >= 4]
    raise ValueError(f"{path.name} stores no table of claims")


def verdict(statement: Statement, rows: Sequence[Sequence[str]]) -> tuple[str, str]:
    """Return the verdict on a statement and its comment."""
    words = [" | ".join(rows[k]) for k in statement.rows]
    for pattern, word, comment in statement.verdicts:
        if re.search(pattern, "; ".join(words)):
            return word, comment
    return OPEN, ""


def entry(statement: Statement, rows: Sequence[Sequence[str]], comment: str) -> str:
    """Return a statement as an item of a list: what the chapter says, its first row's numbers and control."""
    (path,) = NOTEBOOKS.glob(f"{statement.number}_*.ipynb")
    claim, measured, control = rows[statement.rows[0]][:3]
    told = f" *{comment[0].upper()}{comment[1:]}.*" if comment else ""
    return "\n".join([
        f"- **{statement.says}**{told} ([{statement.number}](../notebooks/{path.name}))  ",
        f"  {claim}: **{shortened(measured)}**. *Control*: {shortened(control)}.",
    ])  # fmt: skip


def shortened(cell: str, most: int = 35) -> str:
    """Return the first parts of a cell, those that fit; the others are on the page of claims."""
    first, *others = cell.split("; ")
    told = first
    for part in others:
        if len(told) + len(part) > most:
            break
        told += f"; {part}"
    return told


def page() -> str:
    """Return the text of ``docs/findings.md``: the statements by verdict, those that failed first."""
    by_verdict: dict[str, list[str]] = {word: [] for word in (FAILED, PART, OPEN, HELD)}
    for statement in STATEMENTS:
        rows = found(statement.number)
        word, comment = verdict(statement, rows)
        by_verdict[word].append(entry(statement, rows, comment))
    total = ", ".join(f"{len(some)} {word}" for word, some in by_verdict.items() if some)
    lines = [
        "# What this workbook found",
        "",
        f"A chapter on supervised fine-tuning makes {len(STATEMENTS)} statements that can be tested on a small model. Here: {total}.",
        "The sentences are those of the notebooks' tables *What was found*, and the verdicts follow from their words. Round brackets are 95% intervals. [Every claim](claims.md)",
        "has where it stops holding. Most were measured on one model of 3 million parameters.",
        "",
    ]  # fmt: skip
    for word, some in by_verdict.items():
        if some:
            lines += [f"## {word.capitalize()}", "", *some, ""]
    return "\n".join(lines)


def claims_page() -> str:
    """Return the text of ``docs/claims.md``: the table of claims of every notebook that has one."""
    lines = ["# Every claim", ""]
    total = 0
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        with suppress(ValueError):
            rows = found(path.name[:2])
            total += len(rows)
            title = _title(path)
            lines += [f"## [{title}](../notebooks/{path.name})", "", *_table(rows), ""]
    lines[1:1] = [
        "",
        f"The {total} claims of the notebooks' tables *What was found*, each with its numbers, its control, and where it stops holding. Round",
        "brackets are 95% intervals; the notebook names their unit. What they say about a chapter on supervised fine-tuning: [findings](findings.md).",
    ]  # fmt: skip
    return "\n".join(lines)


def _title(path: Path) -> str:
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"]
    return "".join(first).splitlines()[0].removeprefix("# ")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [["claim", "measured", "control", "where it stops holding"], ["---"] * 4, *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells]


def update_findings(folder: Path = PATH.parent) -> bool:
    """Write both pages anew. True if that changed one; a copy without its folder gets none."""
    if not folder.is_dir():
        return False
    changed = False
    for path, text in ((PATH, page()), (CLAIMS, claims_page())):
        path = folder / path.name
        changed |= not path.is_file() or path.read_text(encoding="utf-8") != text
        path.write_text(text, encoding="utf-8")
    return changed


if __name__ == "__main__":
    print("written anew" if update_findings() else "unchanged")
