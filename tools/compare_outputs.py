"""What a notebook shows against what is stored: words exactly, numbers within a stated tolerance.

A pytest plugin for nbval (the top-level conftest.py loads it): under ``pytest --nbval`` every cell
with outputs is compared, in this way in place of nbval's own.

- Words, and whole numbers, are equal. So are the outcomes of predictions and the states of checks.
- A number with a decimal point or an exponent may differ by one in the last digit that is shown: a
  last bit of the computation can turn its rounding.
- In a cell tagged ``within-5%`` every number may differ by 5% of itself, a share (a number before a
  percent sign) by 5 points. Its sign may not change, unless both round to zero.
- In a cell tagged ``numbers-vary`` numbers are there and are not compared: measured time and memory.
- A number with a unit of time ("3.1 s", "2,400 tokens/s") is nowhere compared, nor is a picture; its
  description is.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

NUMBER = re.compile(r"(?:(?<![\w)\].])[-+−])?(?<![\w.])\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")
TIME = re.compile(
    r"\s?(?:s|ms|µs|min|h|seconds?|minutes?|hours?|(?:tokens|steps|times|answers)/s)\b"
)
WITHIN = re.compile(r"within-(\d+(?:\.\d+)?)%")
VARY = "numbers-vary"
SECTIONS = ("text/plain", "text/html")  # of an output, what is read
FLOOR = 1e-12  # so that 0.1 + 0.2 is 0.3


@dataclass(frozen=True)
class Tolerance:
    """How far the numbers of a cell may move: ``share`` of themselves, or anywhere."""

    share: float = 0.0
    any_number: bool = False

    def __str__(self) -> str:
        if self.any_number:
            return "words alone are compared"
        if self.share:
            return f"numbers within {self.share:.3g} of themselves, shares within {self.share * 100:.3g} points"
        return "whole numbers equal, others within one in the last digit shown"


def tolerance_of(tags: Sequence[str]) -> Tolerance:
    """The tolerance that a cell's tags state.

    Raises:
        ValueError: two tolerances, or one that is no share.
    """
    stated = [float(found[1]) / 100 for tag in tags if (found := WITHIN.fullmatch(tag))]
    odd = [tag for tag in tags if tag.startswith("within-") and not WITHIN.fullmatch(tag)]
    if odd or len(stated) > 1 or any(not 0 < share < 1 for share in stated):
        raise ValueError(
            f"the tags {', '.join(tags)} state no tolerance: one such as within-5% does"
        )
    return Tolerance(stated[0] if stated else 0.0, VARY in tags)


def difference(stored: str, fresh: str, tolerance: Tolerance = Tolerance()) -> str | None:
    """The first difference between two texts that counts, in a sentence; None if there is none."""
    words, numbers = _parts(stored)
    new_words, new_numbers = _parts(fresh)
    for place, (old, new) in enumerate(zip(words, new_words, strict=False)):
        if old != new:
            return f"stored {_around(words, numbers, place)}, now {_around(new_words, new_numbers, place)}"
        if place < min(len(numbers), len(new_numbers)):
            after = words[place + 1]
            if TIME.match(after) or tolerance.any_number:
                continue
            if not agree(
                numbers[place], new_numbers[place], tolerance.share, after.startswith("%")
            ):
                return (
                    f"stored {_around(words, numbers, place)}, now "
                    f"{_around(new_words, new_numbers, place)}: {numbers[place]} against {new_numbers[place]}"
                )
    if len(words) != len(new_words):
        return f"stored {len(numbers)} numbers, now {len(new_numbers)}"
    return None


def agree(stored: str, fresh: str, share: float = 0.0, percent: bool = False) -> bool:
    """Whether two printed numbers are the same, within ``share`` and the rounding of the last digit."""
    old, new = _value(stored), _value(fresh)
    whole = not re.search(r"[.e]", stored + fresh)
    unit = 0.0 if whole else min(_unit(stored), _unit(fresh))
    if old * new < 0 and min(abs(old), abs(new)) > unit:
        return False  # another sign is another result
    room = share * 100 if percent else share * abs(old)
    return abs(old - new) <= max(room, unit) + FLOOR * abs(old)


def _value(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def _unit(text: str) -> float:
    """One in the last digit shown: 0.01 for "3.14", 1e-8 for "2.5e-07", 1 for "20"."""
    mantissa, _, exponent = text.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def _parts(text: str) -> tuple[list[str], list[str]]:
    """The words between the numbers, and the numbers: one more of the former."""
    text = re.sub(r"\s+", " ", text).strip()  # columns are as wide as their numbers
    return NUMBER.split(text), NUMBER.findall(text)


def _around(words: list[str], numbers: list[str], place: int) -> str:
    """A few words about a place, for a message."""
    number = numbers[place] if place < len(numbers) else ""
    after = words[place + 1] if place + 1 < len(words) else ""
    return repr(f"…{words[place][-60:]}{number}{after[:30]}…")


def texts(outputs: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """What can be read in a cell's outputs: (where, text) one after another."""
    for output in outputs:
        kind = output["output_type"]
        if kind == "stream":
            yield output["name"], output["text"]
        elif kind == "error":
            yield "error", f"{output['ename']}: {output['evalue']}"
        else:
            data = output.get("data", {})
            if said := output.get("metadata", {}).get("sftlab"):
                yield "outcome or state", json.dumps(said, sort_keys=True, ensure_ascii=False)
            for section in SECTIONS:
                if section in data:
                    yield (
                        section,
                        visible(data[section]) if section == "text/html" else data[section],
                    )
            yield from ((kind, "") for kind in sorted(data) if kind not in SECTIONS)


def visible(page: str) -> str:
    """The text of a piece of HTML, as a reader sees it."""
    return html.unescape(
        re.sub(
            r"<(?!br|/?(?:tr|li|p|div|td|th))[^>]*>",
            "",
            re.sub(r"<(?:br|/?(?:tr|li|p|div|td|th))\b[^>]*>", " ", page),
        )
    )


def compare(stored: Sequence[Any], fresh: Sequence[Any], tolerance: Tolerance) -> str | None:
    """The first difference between a cell's stored outputs and those of a run; None if there is none."""
    old, new = list(texts(stored)), list(texts(fresh))
    for (where, before), (now_where, now) in zip(old, new, strict=False):
        if where != now_where:
            return f"stored {where}, now {now_where}"
        if found := difference(before, now, tolerance):
            return f"{where}: {found}"
    if len(old) != len(new):
        more = (old if len(old) > len(new) else new)[min(len(old), len(new))]
        there = "stored and no longer there" if len(old) > len(new) else "not stored"
        return f"{more[0]}, {there}: {more[1][:200]!r}"
    return None


# --- nbval ---------------------------------------------------------------------------------------
REMEDY = (
    "If the new output is meant, store it: make notebooks. If a number moves from machine to machine, "
    "its cell's tag says how far: see tools/compare_outputs.py."
)


def _noting_updates(runtest):
    """nbval passes over what a display is updated to: note it."""

    def wrapped(self) -> None:
        receive, self.messages = self.parent.get_kernel_message, []

        def get_kernel_message(*arguments, **named):
            message = receive(*arguments, **named)
            self.messages.append(message)
            return message

        self.parent.get_kernel_message = get_kernel_message
        try:
            runtest(self)
        finally:
            self.parent.get_kernel_message = receive

    return wrapped


def updated(outputs: Sequence[Any], messages: Sequence[dict]) -> Sequence[Any]:
    """A cell's displays as they stand in the end. The last message is the one that ends the cell."""
    cell = messages[-1]["parent_header"].get("msg_id") if messages else None
    own = [m for m in messages if m["parent_header"].get("msg_id") == cell]
    ids = [
        m["content"].get("transient", {}).get("display_id")
        for m in own
        if m["msg_type"] in ("display_data", "execute_result")
    ]
    last = {
        m["content"]["transient"]["display_id"]: m["content"]["data"]
        for m in own
        if m["msg_type"] == "update_display_data"
    }
    displays = [one for one in outputs if one["output_type"] in ("display_data", "execute_result")]
    for display, id in zip(displays, ids, strict=True):
        display["data"] = last.get(id, display["data"])
    return outputs


def _compare_outputs(self, test, ref, skip_compare=None) -> bool:
    """In place of nbval's: ``test`` is what the cell shows now, ``ref`` what is stored."""
    from tools.publish import tidy

    test = updated(test, self.messages)
    tolerance = tolerance_of(self.cell.metadata.get("tags", []))
    self.user_properties.append(("compared", bool(ref)))
    found = compare(ref, tidy(test), tolerance)
    self.comparison_traceback = [f"{found}\n({tolerance})\n{REMEDY}"] if found else []
    return not found


def pytest_configure(config) -> None:
    if config.pluginmanager.hasplugin("nbval"):
        from nbval.plugin import IPyNbCell

        IPyNbCell.compare_outputs = _compare_outputs
        IPyNbCell.runtest = _noting_updates(IPyNbCell.runtest)


def pytest_terminal_summary(terminalreporter) -> None:
    """How many cells were compared in each notebook."""
    counts: dict[str, list[int]] = {}
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if report.when == "call" and ".ipynb" in report.nodeid:
            row = counts.setdefault(report.nodeid.partition("::")[0], [0, 0])
            row[0] += any(name == "compared" and value for name, value in report.user_properties)
            row[1] += 1
    if counts:
        terminalreporter.section("cells compared with what is stored")
        for name, (compared, cells) in sorted(counts.items()):
            terminalreporter.line(f"{name:<44}{compared:4} of {cells} cells")
        compared, cells = (sum(row[i] for row in counts.values()) for i in (0, 1))
        terminalreporter.line(f"{len(counts)} notebooks: {compared} of {cells} cells compared")
