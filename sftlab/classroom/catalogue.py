"""The workbook's notebooks: their titles, and which predictions and checks each one holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sftlab.paths import ROOT

TITLES = {
    "00": "Start here",
    "01": "Base model and instruct model",
    "02": "What a few good examples teach",
    "03": "Loss on the response only",
    "04": "The SFT loss, by hand",
    "05": "The wrong chat template",
    "06": "Why train fewer parameters",
    "07": "Counting LoRA's parameters",
    "08": "Why B starts at zero",
    "09": "α over r",
    "10": "LoRA's learning rate",
    "11": "The memory of QLoRA",
    "12": "Masking the prompt",
    "13": "Before and after SFT",
    "14": "Chat templates, marker by marker",
    "15": "Masking a conversation of many turns",
    "16": "The whole SFT loop",
    "17": "LoRALinear from scratch",
    "18": "LoRA with PEFT",
    "19": "Full fine-tuning against LoRA",
    "20": "Merging LoRA",
    "21": "Fine-tuning a 4-bit base",
    "22": "Data quality against data quantity",
    "23": "A clinic for broken runs",
}
NOTEBOOKS = ROOT / "notebooks"


def notebook(number: str) -> Path | None:
    """The file of a notebook: in the workbook's folder, else in the working folder."""
    for folder in (NOTEBOOKS, Path.cwd()):
        found = sorted(folder.glob(f"{number}_*.ipynb"))
        if found:
            return found[0]
    return None


def title(number: str) -> str:
    """The heading of a notebook without its number; the planned title while it is not written."""
    for heading in re.findall(r"^# (.+)", _text(number, "markdown"), re.MULTILINE):
        return re.sub(r"^\d+ · ", "", heading)
    return TITLES[number]


def prediction_ids(number: str) -> list[str]:
    """The predictions that a notebook asks for, read from its cells; none if it is not there."""
    code = _text(number, "code")
    return list(dict.fromkeys(re.findall(rf"""\bpredict\(\s*["']({number}\.\w+)["']""", code)))


def _text(number: str, kind: str) -> str:
    """The sources of a notebook's cells of one kind, "" where there is none or it cannot be read."""
    path = notebook(number)
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path else []
    except (OSError, ValueError, KeyError):
        return ""
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == kind)
