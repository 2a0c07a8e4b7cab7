"""One page on a finished run, to be passed on with its model: Markdown, and HTML that can be mailed.

    python -m sftlab certificate my_run.json      # after  python -m sftlab train my_run.json

It says what was trained, on what, how well it answers held-out questions, which checks passed, and
the SHA-256 of every file, so that whoever gets the model can tell whether it is the one described.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment

from sftlab.chat import user
from sftlab.errors import WorkbookError
from sftlab.fetch import file_checksum
from sftlab.findings import BROKEN, OK, Finding, worst_first
from sftlab.formats import DataConfig, ReadingReport, read_conversations
from sftlab.generate import answer
from sftlab.models import RECORD, load, read_record, result_folder
from sftlab.pipeline import load_start
from sftlab.preflight import inspect
from sftlab.preflight_report import PAGE
from sftlab.settings import read_run
from sftlab.statistics import share_interval

NAME = "certificate"
STYLE = PAGE.partition("<style>")[2].partition("</style>")[0]
HTML = (
    '<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">\n'
    "<title>{{ title }}</title>\n<style>" + STYLE + "</style>\n<h1>{{ title }}</h1>\n<p>{{ verdict }}</p>\n"
    "{% for heading, rows in sections %}<h2>{{ heading }}</h2>\n<table>\n"
    '{% for name, value in rows %}<tr><th scope="row">{{ name }}</th><td class="where">{{ value }}</td></tr>\n'
    "{% endfor %}</table>\n{% endfor %}</html>\n"
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """A measured figure with its 95% interval."""

    name: str
    value: float
    low: float
    high: float
    unit: str  # what varies, such as "of 60 held-out questions"

    def __str__(self) -> str:
        return f"{self.value:.3g} (95% interval {self.low:.3g} to {self.high:.3g}), {self.unit}"


@dataclass(frozen=True)
class Certificate:
    """The content of the page."""

    title: str
    verdict: str
    sections: list[tuple[str, list[tuple[str, str]]]]

    def markdown(self) -> str:
        lines = [f"# {self.title}", "", self.verdict]
        for heading, rows in self.sections:
            lines += ["", f"## {heading}", "", "| | |", "|---|---|"]
            lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
        return "\n".join([*lines, ""])

    def html(self) -> str:
        page = Environment(autoescape=True).from_string(HTML)
        return page.render(title=self.title, verdict=self.verdict, sections=self.sections)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def certificate(
    folder: str | Path,
    findings: Iterable[Finding] = (),
    scores: Sequence[Score] = (),
    exported: Iterable[str | Path] = (),
) -> Certificate:
    """Return the certificate of a saved result.

    Args:
        folder: as ``results.save_result`` or ``export.export_model`` wrote it, or the output of a
            run.
        findings: those of the preflight, and any others.
        exported: further folders that hold the same model, such as an export.

    Raises:
        WorkbookError: the folder holds no result of this package.
    """
    folder = result_folder(Path(folder).expanduser())
    record = read_record(folder)
    if not record:
        raise WorkbookError(
            f"{folder} has no {RECORD}, so nothing is known of its run; give the folder of a run that "
            "is finished"
        )
    found = worst_first(findings)
    count = {state: sum(f.state == state for f in found) for state in (BROKEN, OK)}
    open_ = len(found) - sum(count.values())
    verdict = "No check was made." if not found else (
        f"{count[OK]} of {len(found)} checks passed, {open_} need a look, {count[BROKEN]} failed. "
        + ("Do not serve this model." if count[BROKEN] else f"{len(scores)} scores were measured.")
    )  # fmt: skip
    base, data = record["base"], record.get("data", {})
    sections = [
        ("What was trained", [
            ("base", base["name"]),
            *((key.replace("_", " "), base[key]) for key in ("licence", "weights_sha256", "adapter_sha256") if key in base),
            ("kind", record["kind"]),
            *_rows(record.get("settings", {})),
            *_rows(record.get("history", {})),
        ]),
        ("On what", [(key, str(value)) for key, value in data.items()] or [("data", "not recorded")]),
        ("Scores", [(score.name, str(score)) for score in scores] or [("none", "nothing was measured on held-out questions")]),
        ("Checks", [(f"{f.state}: {f.guard}", f.evidence) for f in found] or [("none", "no check was made")]),
        ("Files", [(f"{place.name}/{path.name}", f"sha256 {file_checksum(path)}")
                   for place in (folder, *map(Path, exported)) for path in sorted(place.iterdir())
                   if path.is_file() and path.stem != NAME]),
        ("Versions", [(name, str(number)) for name, number in record["versions"].items()]),
    ]  # fmt: skip
    title = f"Certificate: {Path(data.get('file', folder.name)).stem} on {base['name']}"
    return Certificate(title, verdict, sections)


def _rows(settings: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Return nested settings as rows with names such as "train, seed"."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{before}, {key}" if before else key.replace("_", " ")
        if isinstance(value, Mapping):
            rows += _rows(value, name)
        elif value is not None:
            rows.append((name, f"{value:.4g}" if isinstance(value, float) else str(value)))
    return rows


def write_certificate(page: Certificate, folder: str | Path) -> tuple[Path, Path]:
    """Write the page as Markdown and HTML into a folder; return both paths.

    Raises:
        WorkbookError: they cannot be written.
    """
    paths = Path(folder) / f"{NAME}.md", Path(folder) / f"{NAME}.html"
    try:
        for path, text in zip(paths, (page.markdown(), page.html()), strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WorkbookError(
            f"the certificate cannot be written to {folder} ({error.strerror or error}): free some "
            "space or choose another folder"
        ) from None
    return paths


def held_out_scores(model, tokenizer, path: str | Path, max_new_tokens: int = 64) -> list[Score]:
    """Return how often the model answers held-out questions exactly, and how often it stops.

    Args:
        path: a file of questions with answers, in any format of conversations.

    Raises:
        WorkbookError: a row cannot be read, or has no answer.
    """
    report = ReadingReport(str(path))
    talks = [talk.messages for talk in read_conversations(path, DataConfig(), report)]
    report.raise_if_refused()
    asked = [user(talk[0]["content"]) if len(talk) == 2 else talk[:-1] for talk in talks]
    replies = answer(model, tokenizer, asked, max_new_tokens=max_new_tokens)
    right = [r.stopped and r.text.strip() == talk[-1]["content"].strip() for r, talk in zip(replies, talks, strict=True)]  # fmt: skip
    unit = f"of {len(talks)} held-out questions"
    return [
        Score(name, sum(hits) / len(talks), *share_interval(sum(hits), len(talks)), unit)
        for name, hits in (("answered exactly", right), ("stopped by itself", [r.stopped for r in replies]))
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the certificate of a finished run; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sftlab certificate", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("config", type=Path, help="the run's file")
    chosen = parser.parse_args(arguments)
    try:
        run = read_run(chosen.config)
        trained, tokenizer = load(run.output)
        scores = held_out_scores(trained, tokenizer, run.heldout) if run.heldout else []
        model, tokenizer = load_start(run)
        found = inspect(model, tokenizer, run.data, run, run.heldout, progress=False)
        page = certificate(run.output, found.findings, scores)
        print(page.verdict, *write_certificate(page, run.output), sep="\n")
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
