"""The concept diagram of notebook 16: which set of data has which task in a training run."""

from __future__ import annotations

from sftlab.classroom.diagrams import Diagram

ALT = (
    "A training run. Training pairs go into batches, and each batch makes one step of the loop. Every few "
    "steps the validation questions give a loss, which decides whether the weights are kept as the chosen "
    "checkpoint. After the run, other questions, the test questions, give the score of that checkpoint."
)


def draw() -> str:
    """Return the diagram as SVG."""
    made = Diagram(860, 236, ALT)
    rows = (
        (20, "training pairs", "green", "train_loop: batch → loss → step,\nbatch → loss → step, …", "weights, after every step"),
        (98, "validation questions", "grey", "every few steps:\nthe loss on these questions", "chosen checkpoint:\nsaved to disk"),
        (176, "test questions", "blue", "after the run, once", "the score that is reported"),
    )  # fmt: skip
    for y, data, fill, what, result in rows:
        made.box(12, y, 190, 46, data, fill=fill, bold=True)
        made.arrow(204, y + 23, 262, y + 23)
        made.box(266, y, 290, 46, what)
        made.arrow(558, y + 23, 612, y + 23)
        made.box(616, y, 228, 46, result)
    made.arrow(730, 67, 730, 96)
    made.arrow(730, 145, 730, 174)
    return made.svg()
