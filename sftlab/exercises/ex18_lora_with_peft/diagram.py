"""The concept diagram of notebook 18: one budget, spent on three sets of layers."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram
from sftlab.exercises.ex18_lora_with_peft.experiment import BUDGET, SETS
from sftlab.memory.count import lora_config_for
from sftlab.models import load

ALT = (
    "The seven linear layers of a block, four of attention and three of the MLP, in three lines. In the "
    "first line all have adapters of rank 4, in the second only q and v, of rank 21, in the third only the "
    "three of the MLP, of rank 6. All lines have nearly the same number of parameters. Which one learns best?"
)
LAYERS = ("q", "k", "v", "o", "gate", "up", "down")


def draw() -> str:
    """Return the diagram as SVG."""
    model = load("almanac")[0]
    made = Diagram(900, 190, ALT)
    made.text(130, 24, "attention", bold=True)
    made.text(504, 24, "MLP", bold=True)
    for row, name in enumerate(("all linear", "q, v", "MLP")):
        y = 40 + 48 * row
        config = lora_config_for(model, BUDGET, SETS[name])
        made.text(20, y + 24, name, bold=True)
        kinds = set(SETS[name]) if name != "all linear" else {f"{kind}_proj" for kind in LAYERS}
        for k, layer in enumerate(LAYERS):
            with_adapter = f"{layer}_proj" in kinds
            text = f"{layer}  r={config.r}" if with_adapter else layer
            x = 130 + 90 * k + (14 if k > 3 else 0)
            made.box(
                x, y, 76, 38, text, fill="green" if with_adapter else "grey", bold=with_adapter
            )
        made.text(796, y + 24, f"≤ {BUDGET:,}")
    return made.svg()
