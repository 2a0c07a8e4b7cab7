"""The map of notebook 00: the steps of supervised fine-tuning, and the notebooks about each."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

# step of the pipeline -> fill, and its notebooks with what each is about
STEPS = {
    "conversations": ("grey", {"22": "data quality", "25": "calls, thoughts"}),
    "text and tokens": ("blue", {"14": "chat template", "05": "wrong template"}),
    "labels": ("blue", {"12": "one answer", "15": "many turns"}),
    "loss": ("blue", {"04": "the formula", "03": "the prompt's part"}),
    "training loop": ("green", {"13": "32 pairs", "16": "all of it", "24": "packing"}),
    "tuned model": ("orange", {"01": "what changed", "02": "what pairs teach"}),
}
WEIGHTS = {
    "all weights": ("green", {"06": "why fewer", "19": "costs compared"}),
    "LoRA: a small addition": (
        "green",
        {"17": "the layer", "07": "its size", "08": "its start", "09": "its scale",
         "10": "learning rate", "18": "with PEFT"},
    ),
    "LoRA on a 4-bit base": ("green", {"11": "memory", "21": "training"}),
    "merged": ("orange", {"20": "merging", "26": "a served model"}),
}  # fmt: skip
CLINIC = {"23": "the clinic: when a run looks healthy and is broken"}
ALT = (
    "A map of the workbook. Six steps from left to right: conversations, text and tokens, labels, "
    "loss, training loop, tuned model. Below, the weights that the training loop changes: "
    "all, LoRA, or LoRA on a 4-bit base; LoRA can be merged into the model. Each step names its "
    "notebooks, and notebook 23 spans all steps."
)


def _names(notebooks: dict[str, str]) -> str:
    return "\n".join(f"{number} {about}" for number, about in notebooks.items())


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(1000, 386, ALT)
    width, gap, top = 146, 18, 36
    made.text(12, 24, "From a file to a model that answers", bold=True)
    for place, (step, (fill, notebooks)) in enumerate(STEPS.items()):
        x = 12 + place * (width + gap)
        made.box(x, top, width, 34, step, fill=fill, bold=True, size=12)
        made.text(x + 6, top + 54, _names(notebooks))
        if place:
            made.arrow(x - gap + 1, top + 17, x - 2, top + 17)
    low = 196
    made.text(12, low - 12, "Which weights does the training loop change?", bold=True)
    x = 12
    for (name, (fill, notebooks)), wide in zip(WEIGHTS.items(), (186, 330, 186, 146), strict=True):
        made.box(x, low, wide, 34, name, fill=fill, bold=True, size=12)
        halves = list(notebooks.items())
        made.text(x + 6, low + 54, _names(dict(halves[:3])))
        made.text(x + 170, low + 54, _names(dict(halves[3:])))
        x += wide + 24
    loop = 12 + 4 * (width + gap) + width / 2
    made.arrow(loop, low - 4, loop, top + 100)
    made.arrow(12 + 186 + 24 + 330 + 24 + 186 + 2, low + 17, 12 + 186 + 24 + 330 + 24 + 186 + 22, low + 17)  # fmt: skip
    made.arrow(917, low - 4, 917, top + 100)
    made.box(12, 320, 976, 34, _names(CLINIC), size=12)
    made.text(12, 374, "Numbers are those of the notebooks.", size=11, color="#5f6b76")
    return made.svg()
