"""The check of notebook 00: a practice run that also says what -100 is for."""

from __future__ import annotations

from sftlab.classroom.checking import Case, Exercise
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import count_trained

MISTAKES = (
    (len, "That is the length of the row: the -100 labels are counted too. Which labels does the loss skip?"),
    (lambda labels: labels.count(IGNORE_INDEX), "You counted the tokens that are *not* trained. You want the others."),
    (lambda labels: sum(x > 0 for x in labels), "Id 0 is a token like any other. Compare with -100, not with 0."),
    (lambda labels: sum(bool(x) and x != IGNORE_INDEX for x in labels), "Id 0 is a token like any other. Compare with -100, not with 0."),
    (lambda labels: len({x for x in labels if x != IGNORE_INDEX}), "A token that comes twice is trained twice: count places, not different ids."),
    (lambda labels: sum(x != IGNORE_INDEX for x in labels[1:]), "The first label counts as well: go through the whole row."),
    (lambda labels: sum(x for x in labels if x != IGNORE_INDEX), "You added the ids up. Count them instead."),
    (lambda labels: [x for x in labels if x != IGNORE_INDEX], "You return the trained ids themselves. How many are there?"),
    (lambda labels: sum(x != IGNORE_INDEX for x in labels) / max(1, len(labels)), "That is the share of trained tokens. Return their number."),
)  # fmt: skip

EXERCISES = {
    "00.count_trained": Exercise(
        id="00.count_trained",
        title="Count the trained tokens",
        reference=count_trained,
        cases=[
            Case(
                "count_trained([-100, 7, 0, 7, 7])",
                lambda: ([IGNORE_INDEX, 7, 0, 7, 7],),
                count_trained,
                MISTAKES,
            ),
            Case(
                "count_trained([5, -100, 9])",
                lambda: ([5, IGNORE_INDEX, 9],),
                count_trained,
                MISTAKES,
            ),
            Case(
                "count_trained([-100, -100])",
                lambda: ([IGNORE_INDEX, IGNORE_INDEX],),
                count_trained,
                MISTAKES,
            ),
        ],
        hints=[
            "Go through the labels one by one. Which of them does the loss use?",
            "Everything but -100. In Python, `sum` over a comparison counts how often it holds.",
        ],
        why="-100 is no token id, so it can mark “not trained” without taking an id away. Id 0 is an ordinary token.",
    )
}
