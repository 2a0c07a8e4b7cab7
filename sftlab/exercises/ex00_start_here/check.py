"""The check of notebook 00: a practice run that also says what -100 is for."""

from __future__ import annotations

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import count_trained

ID = "00.count_trained"


@mistake(ID, "That is the length of the row: the -100 labels are counted too. Which labels does the loss skip?")  # fmt: skip
def _length(labels):
    return len(labels)


@mistake(ID, "You counted the tokens that are *not* trained. You want the others.")
def _untrained(labels):
    return labels.count(IGNORE_INDEX)


@mistake(ID, "Id 0 is a token like any other. Compare with -100, not with 0.")
def _above_zero(labels):
    return sum(label > 0 for label in labels)


@mistake(ID, "A token that comes twice is trained twice: count places, not different ids.")
def _different_ids(labels):
    return len(set(labels) - {IGNORE_INDEX})


@mistake(ID, "The first label counts as well: go through the whole row.")
def _first_skipped(labels):
    return count_trained(labels[1:])


@mistake(ID, "You added the ids up. Count them instead.")
def _sum_of_ids(labels):
    return sum(label for label in labels if label != IGNORE_INDEX)


@mistake(ID, "You return the trained ids themselves. How many are there?")
def _ids_themselves(labels):
    return [label for label in labels if label != IGNORE_INDEX]


@mistake(ID, "That is the share of trained tokens. Return their number.")
def _share(labels):
    return count_trained(labels) / len(labels)


def _case(labels: list[int]) -> Case:
    return Case(f"count_trained({labels})", lambda: (list(labels),), count_trained)


EXERCISES = {
    ID: Exercise(
        id=ID,
        title="Count the trained tokens",
        reference=count_trained,
        cases=[
            _case([IGNORE_INDEX, 7, 0, 7, 7]),
            _case([5, IGNORE_INDEX, 9]),
            _case([IGNORE_INDEX, IGNORE_INDEX]),
        ],
        hints=[
            "Go through the labels one by one. Which of them does the loss use?",
            "Everything but -100. In Python, `sum` over a comparison counts how often it holds.",
        ],
        why="-100 is no token id, so it can mark “not trained” without taking an id away. Id 0 is an ordinary token.",
    )
}
