"""What a preflight found: findings with their evidence and remedy, as text, JSON and a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from sftlab.formats import ReadingReport

OK, LOOK, BROKEN = "ok", "look", "broken"


@dataclass(frozen=True)
class Finding:
    """The result of one check: its state, the evidence as a figure, and the remedy."""

    guard: str
    state: str
    evidence: str
    remedy: str = ""
    where: tuple[str, ...] = ()  # the first places, one line each


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    order = (BROKEN, LOOK, OK)
    return sorted(findings, key=lambda finding: order.index(finding.state))


def format_findings(findings: Sequence[Finding]) -> str:
    """Return the findings as a plain-text table, with remedy and places below where needed."""
    width = max((len(finding.guard) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:6}  {finding.guard:{width}}  {finding.evidence}")
        lines += [f"{'':6}  {'':{width}}    {place}" for place in finding.where]
        if finding.remedy:
            lines.append(f"{'':6}  {'':{width}}  → {finding.remedy}")
    return "\n".join(lines)


@dataclass
class Inspection:
    """Everything that was found out about a run; ``exit_status`` as in the module's docstring."""

    findings: list[Finding]
    report: ReadingReport
    notes: list[str]  # what was converted and chosen
    lengths: dict[str, int]
    trained: dict[str, int]
    views: list[tuple[str, list[tuple[str, bool]]]] = field(default_factory=list)  # place, tokens
    sizes: list[tuple[int, int]] = field(default_factory=list)  # length, trained tokens

    @property
    def exit_status(self) -> int:
        return int(any(finding.state == BROKEN for finding in self.findings))

    def as_json(self) -> str:
        found = {
            "exit_status": self.exit_status, "file": self.report.path, "rows": self.report.rows,
            "examples": len(self.sizes), "notes": self.notes, "tokens": self.lengths,
            "trained_tokens": self.trained, "findings": [asdict(f) for f in self.findings],
        }  # fmt: skip
        return json.dumps(found, ensure_ascii=True, indent=1)
