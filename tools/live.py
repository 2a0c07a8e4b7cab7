"""The embedded models for web pages: their weights as a script, and the page body that runs them.

The pages are opened from a file as well as from a server, and from a file a browser loads scripts
only: so the weights are a script. They are packed (gzip) and written as text (base64).
"""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
from functools import cache
from typing import Any

from sftlab._internal.paths import DATA
from sftlab.almanac.vocabulary import words_read
from sftlab.chat import render, user
from sftlab.exercises.ex01_base_vs_instruct.experiment import BARE, LIMIT, PAGE, TEMPLATE
from sftlab.exercises.ex01_base_vs_instruct.explorer import KNOWN, OWN, READ
from sftlab.exercises.ex05_chat_template_mismatch.forms import BARE as NO_TEMPLATE
from sftlab.exercises.ex05_chat_template_mismatch.forms import FORMS, RIGHT, TYPED, corrupt
from sftlab.generate import stop_tokens
from sftlab.models import load
from tools import website

TITLE = "Ask both models"
FOLDER = website.TEMPLATES / "live"
# Not the right one, not the bare text, and not one in which the tokenizer itself is another.
CHANGED = [form for form in FORMS if form not in (RIGHT, NO_TEMPLATE, TYPED)]
# Explorers of which the page shows as much.
EXPLORERS = re.compile(r"explore\(\s*.(01\.ask_both|05\.pick_a_form|20\.merge_strength)")
MOVES = 'On the page <a href="live.html">Ask both models</a> it moves, here in the browser.'
BASE, CHAT = DATA / "models" / "almanac-base", DATA / "models" / "almanac-chat"


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode("ascii")


def weights(tokenizer) -> str:
    """Return the script with the weights of both models, the tokenizer and its template."""
    file = {
        "config": json.loads((BASE / "config.json").read_text(encoding="utf-8")),
        "adapter_config": json.loads((CHAT / "adapter_config.json").read_text(encoding="utf-8")),
        "stops": sorted(stop_tokens(tokenizer)),
        "limit": LIMIT,
        "renderings": renderings(tokenizer),
        "words_read": sorted(words_read()),
        "tokenizer": _packed((BASE / "tokenizer.json").read_bytes()),
        "base": _packed((BASE / "model.safetensors").read_bytes()),
        "adapter": _packed((CHAT / "adapter_model.safetensors").read_bytes()),
    }
    return f"window.ALMANAC = {json.dumps(file, ensure_ascii=False)};\n"


def renderings(tokenizer) -> dict[str, list[str]]:
    """Return what stands before and after a prompt, by rendering: notebook 01's, and the forms of 05."""
    place = "PROMPT"
    template = render(tokenizer, user(place), add_generation_prompt=True)
    texts = {BARE: place, TEMPLATE: template, PAGE: f"Q: {place}\nA:"}
    texts |= {form: corrupt(template, FORMS[form]) for form in CHANGED}
    return {name: text.split(place) for name, text in texts.items()}


@cache
def _tokenizer() -> Any:
    return load("almanac")[1]


def body() -> str:
    """Return what the page shows below its title, on which both models answer."""
    tokenizer = _tokenizer()
    text = (FOLDER / "live.html").read_text(encoding="utf-8")
    readings = "".join(
        f'<option value="{"own" if told == OWN else html.escape(both[0])}">{html.escape(told)}</option>'
        for told, both in READ.items()
    )
    changed = "".join(f"<option>{html.escape(form)}</option>" for form in CHANGED)
    readings += f'<optgroup label="both: the template, changed">{changed}</optgroup><option value="yours">both: as written below</option>'
    examples = " ".join(f'<button type="button">{html.escape(p)}</button>' for p in KNOWN)
    before, after = map(html.escape, renderings(tokenizer)[TEMPLATE])
    parts = {
        "before": before,
        "after": after,
        "opening": html.escape(KNOWN[0]),
        "readings": readings,
        "examples": examples,
    }
    for name, part in parts.items():
        text = text.replace(f"{{{{ {name} }}}}", part)
    return text


def files() -> dict[str, str]:
    """Return the scripts that lie beside the page, the weights among them: file name -> text."""
    own = {name: (FOLDER / name).read_text(encoding="utf-8") for name in ("almanac.js", "live.js")}
    return own | {"weights.js": weights(_tokenizer())}
