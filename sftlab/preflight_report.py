"""The findings of a preflight as one HTML page that can be mailed: no network, no other files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from sftlab.errors import WorkbookError
from sftlab.findings import Inspection

BINS = 24
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Preflight of {{ name }}</title>
<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .35rem .7rem; border-bottom: 1px solid #8885 }
.state { font-weight: 600; white-space: nowrap }
.broken { color: #c0392b } .look { color: #a66300 } .ok { color: #1d7a4f }
@media (prefers-color-scheme: dark) { .broken { color: #ff8a7a } .look { color: #f0b454 } .ok { color: #6fd3a4 } }
.where, .remedy { font-size: .92em; overflow-wrap: anywhere }
.tokens { font: 13px/2 ui-monospace, monospace; overflow-wrap: anywhere }
.tokens span { padding: 1px 3px; border-radius: 3px; background: #8882; opacity: .8 }
.tokens .trained { background: #009e7347; border-bottom: 2px solid #009e73; opacity: 1 }
svg { width: 100%; height: auto } rect { fill: #0072b2 } text { font: 11px system-ui, sans-serif; fill: currentColor }
figure { margin: 1rem 0 }
</style>
<h1>Preflight of {{ name }}</h1>
<p>{{ verdict }}</p>
<h2>Findings</h2>
<table><tr><th scope="col">state</th><th scope="col">check</th><th scope="col">what was found</th></tr>
{% for f in findings %}<tr><td class="state {{ f.state }}">{{ f.state }}</td><td>{{ f.guard }}</td>
<td>{{ f.evidence }}{% if f.remedy %}<div class="remedy">→ {{ f.remedy }}</div>{% endif %}
{% if f.where %}<ul class="where">{% for place in f.where %}<li>{{ place }}</li>{% endfor %}</ul>{% endif %}</td></tr>
{% endfor %}</table>
<h2>What was read</h2>
<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% for title, bars, ticks in histograms %}<figure><figcaption>{{ title }}</figcaption>
<svg viewBox="0 0 720 150" role="img" aria-label="{{ title }}">
{% for x, height, count, label in bars %}<rect x="{{ x }}" y="{{ 120 - height }}" width="{{ width }}" height="{{ height }}"><title>{{ label }}: {{ count }} examples</title></rect>{% endfor %}
{% for x, label in ticks %}<text x="{{ x }}" y="140" text-anchor="middle">{{ label }}</text>{% endfor %}
</svg></figure>{% endfor %}
{% if views %}<h2>The first examples, token by token</h2>
<p class="tokens"><span class="trained">trained</span> <span>read, not trained</span></p>
{% for place, tokens in views %}<h3>{{ place }}</h3><p class="tokens">{% for text, trained in tokens
%}<span{% if trained %} class="trained"{% endif %}>{{ text }}</span>{% if "\\n" in text %}<br>{% else %}<wbr>{% endif %}{% endfor %}</p>{% endfor %}{% endif %}
</html>
"""


def write_report(found: Inspection, path: Path) -> None:
    """Write the page: findings, conversions, histograms of lengths, five examples token by token.

    Raises:
        WorkbookError: the file cannot be written.
    """
    count = {state: sum(f.state == state for f in found.findings) for state in ("broken", "look", "ok")}  # fmt: skip
    page = Environment(autoescape=True).from_string(PAGE)
    lengths, trained = [a for a, _ in found.sizes], [b for _, b in found.sizes]
    text = page.render(
        name=Path(found.report.path).name,
        verdict=f"{found.report.rows} rows, {len(found.sizes)} examples: {count['broken']} checks are broken, "
        f"{count['look']} need a look, {count['ok']} are in order.",
        findings=found.findings,
        notes=found.notes,
        histograms=[_histogram("Tokens per example", lengths), _histogram("Trained tokens per example", trained)] if lengths else [],
        width=720 / BINS - 2,
        views=[(place, [(_visible(text), on) for text, on in tokens]) for place, tokens in found.views],
    )  # fmt: skip
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise WorkbookError(f"the report cannot be written to {path}: {error.strerror}") from None


def _visible(token: str) -> str:
    return token.replace("\n", "⏎\n").replace(" ", "·")


def _histogram(title: str, numbers: Sequence[int]) -> tuple[str, list, list]:
    """Return the title, the bars (x, height, count, label) and the ticks (x, label) of a figure."""
    low, high = min(numbers), max(numbers)
    size = max(1, -(-(high - low + 1) // BINS))
    counts = [0] * BINS
    for number in numbers:
        counts[(number - low) // size] += 1
    step = 720 / BINS
    bars = [
        (round(k * step, 1), round(110 * count / max(counts), 1), count, f"{low + k * size} to {low + (k + 1) * size - 1}")
        for k, count in enumerate(counts) if count
    ]  # fmt: skip
    ticks = [(round((k + 0.5) * step, 1), low + k * size) for k in range(0, BINS, 4) if low + k * size <= high]  # fmt: skip
    return title, bars, ticks
