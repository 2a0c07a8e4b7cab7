"""The explorer of notebook 06: disk space for many tasks, by the size of the model."""

from __future__ import annotations

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, WIDE, explorer
from sftlab.exercises.ex06_why_peft.plots import storage
from sftlab.exercises.sizes import size
from sftlab.lora import lora_parameter_count
from sftlab.memory import shapes

CHOSEN = ("smollm2-135m", "llama-3.2-1b", "llama-3-8b", "llama-3-70b")
TASKS = (1, 2, 5, 8, 9, 10, 11, 12, 15, 20, 50, 100, 200, 500, 1000)
BYTES = 2  # a number in 16 bits, as models and adapters are usually published


def sizes(r: int = 8) -> dict[str, tuple[int, int]]:
    """Shape -> bytes of the model and of one adapter around all of its linear layers but the head."""
    found = {}
    for name in CHOSEN:
        model = shapes.build(name)
        adapter = sum(lora_parameter_count(*w, r) for w in shapes.linear_layers(model).values())
        found[name] = BYTES * shapes.SHAPES[name].parameters, BYTES * adapter
    return found


def store_tasks() -> None:
    """Sliders for the number of tasks and the size of the model."""
    known = sizes()

    def draw(name: str, tasks: int):
        return storage(name, tasks, *known[name], words(name, tasks))

    def words(name: str, tasks: int) -> str:
        base, adapter = known[name]
        return (
            f"{name}, {tasks:,} tasks: {size(tasks * base)} as whole copies, "
            f"{size(base + tasks * adapter)} as one base with an adapter of {size(adapter)} each."
        )

    options = [(f"{name} ({size(base)})", name) for name, (base, _) in known.items()]
    controls = {
        "name": widgets.SelectionSlider(
            options=options, value="llama-3-8b", description="model", style=DESCRIBED, layout=WIDE
        ),
        "tasks": widgets.SelectionSlider(
            options=[(f"{n:,}", n) for n in TASKS], value=50, description="tasks", style=DESCRIBED, layout=WIDE
        ),
    }  # fmt: skip
    explorer(controls, draw, words, continuous=True)
