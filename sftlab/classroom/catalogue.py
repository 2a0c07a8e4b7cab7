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


QUESTIONS = {
    "00": "How does this workbook work, and where do I stand?",
    "01": "What does a base model do with a bare question?",
    "02": "Do a few good examples teach facts, or only form?",
    "03": "What changes if the prompt is trained as well?",
    "04": "What exactly is added up, and divided by what?",
    "05": "How much does a wrong template cost?",
    "06": "What does training few parameters save, and what does it protect?",
    "07": "How many parameters does LoRA train?",
    "08": "Why does B start at zero, and A not?",
    "09": "What does α/r keep steady?",
    "10": "Why does LoRA want a larger learning rate?",
    "11": "How does a 70B model fit into 40 GB?",
    "12": "Which tokens are trained, and what does masking really do?",
    "13": "How few pairs turn continuing into answering?",
    "14": "What does a chat template insert?",
    "15": "Which tokens of a long conversation are trained?",
    "16": "How do the parts make a model that follows instructions?",
    "17": "What is inside a LoRA layer?",
    "18": "What share of a real model does LoRA train?",
    "19": "What do both ways cost in memory, time and quality?",
    "20": "Is merging exact, and what does it save?",
    "21": "Can a model be tuned that does not fit in 16 bit?",
    "22": "What do a few bad examples do?",
    "23": "Which runs look healthy and are broken?",
}
TABLE_START, TABLE_END = "<!-- notebooks: begin -->", "<!-- notebooks: end -->"


def readme_table() -> str:
    """The README's table of notebooks, with links to those that are there."""
    lines = ["| | notebook | what you find out |", "|---|---|---|"]
    for number in TITLES:
        found = sorted(NOTEBOOKS.glob(f"{number}_*.ipynb"))
        name = title(number)
        name = f"[{name}](notebooks/{found[0].name})" if found else f"{name} *(in preparation)*"
        lines.append(f"| {number} | {name} | {QUESTIONS[number]} |")
    return "\n".join(lines)


def update_readme(path: Path = ROOT / "README.md") -> bool:
    """Write the table into the README between its two marks. True if that changed the file."""
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(TABLE_START)
    _, _, after = rest.partition(TABLE_END)
    wanted = f"{before}{TABLE_START}\n{readme_table()}\n{TABLE_END}{after}"
    path.write_text(wanted, encoding="utf-8")
    return wanted != text
