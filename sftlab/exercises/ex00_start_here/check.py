"""The check of notebook 00: a practice run that also says what -100 is for."""

from __future__ import annotations

import random

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import count_trained

ID = "00.count_trained"


@mistake(ID, "The labels of -100 are counted too: this is the length of the list. Which labels does the loss skip? If you compare them already, look at the sign, and compare with `!=`, not with `is not`.")  # fmt: skip
def _length(labels):
    return len(labels)


@mistake(ID, "The tokens that are *not* trained are counted. Count the others.")
def _untrained(labels):
    return labels.count(IGNORE_INDEX)


@mistake(ID, "Id 0 is left out, but it is a token like any other. Compare with -100, not with 0.")
def _above_zero(labels):
    return sum(label > 0 for label in labels)


@mistake(ID, "Every label but 0 is counted. “Not trained” is -100, and 0 is the id of a token: compare with -100.")  # fmt: skip
def _not_zero(labels):
    return sum(label != 0 for label in labels)


@mistake(ID, "Each id is counted once. A token that occurs twice is trained twice: count positions, not different ids.")  # fmt: skip
def _different_ids(labels):
    return len(set(labels) - {IGNORE_INDEX})


@mistake(ID, "The first label is left out. Go through the whole list.")
def _first_skipped(labels):
    return count_trained(labels[1:])


@mistake(ID, "The last label is left out. Go through the whole list.")
def _last_skipped(labels):
    return count_trained(labels[:-1])


@mistake(ID, "Everything after the first trained token is counted. An untrained token can follow it: look at every label.")  # fmt: skip
def _from_the_first_trained(labels):
    return next((len(labels) - k for k, x in enumerate(labels) if x != IGNORE_INDEX), 0)


@mistake(ID, "Everything from the first trained token to the last is counted, the labels of -100 between them as well. Look at every label.")  # fmt: skip
def _span(labels):
    trained = [k for k, label in enumerate(labels) if label != IGNORE_INDEX]
    return trained[-1] - trained[0] + 1 if trained else 0


@mistake(ID, "It stops at the first -100. Trained tokens can follow it: go through the whole list.")
def _up_to_the_first_untrained(labels):
    return next((k for k, label in enumerate(labels) if label == IGNORE_INDEX), len(labels))


@mistake(ID, "Only the first run of trained tokens is counted. After another -100 more of them can follow: go through the whole list.")  # fmt: skip
def _first_run(labels):
    trained = 0
    for label in labels:
        if label == IGNORE_INDEX and trained:
            break
        trained += label != IGNORE_INDEX
    return trained


@mistake(ID, "Counting from the end, it stops at the first -100. Trained tokens can be before it: go through the whole list.")  # fmt: skip
def _last_run(labels):
    return _up_to_the_first_untrained(labels[::-1])


RETURNS = "It returns before it has looked at every label. Is `return` inside the loop? It belongs after it."  # fmt: skip


@mistake(ID, RETURNS)
def _returned_at_the_first_label(labels):
    for label in labels:
        return int(label != IGNORE_INDEX)


@mistake(ID, RETURNS)
def _returned_at_the_first_label_or_0(labels):
    return count_trained(labels[:1])


@mistake(ID, RETURNS)
def _returned_at_the_first_trained(labels):
    for label in labels:
        if label != IGNORE_INDEX:
            return 1


@mistake(ID, "This is the position of the first trained token. Count the trained tokens.")
def _position(labels):
    return next((k for k, label in enumerate(labels) if label != IGNORE_INDEX), 0)


@mistake(ID, "The number is one too small: one of the trained tokens is not counted. Nothing has to be shifted here.")  # fmt: skip
def _one_too_few(labels):
    return max(0, count_trained(labels) - 1)


@mistake(ID, "The trained ids are added up. Count them instead.")
def _sum_of_ids(labels):
    return sum(label for label in labels if label != IGNORE_INDEX)


@mistake(ID, "The labels are added up, -100 included. Count those that are not -100.")
def _sum_of_labels(labels):
    return sum(labels)


@mistake(ID, "These are the trained ids themselves. How many are there?")
def _ids_themselves(labels):
    return [label for label in labels if label != IGNORE_INDEX]


@mistake(ID, "This says of each label whether it is trained. How many of these are True?")
def _one_by_one(labels):
    return [label != IGNORE_INDEX for label in labels]


@mistake(ID, "This only says whether any token is trained. How many are?")
def _any_at_all(labels):
    return any(label != IGNORE_INDEX for label in labels)


@mistake(ID, "A whole list is compared with -100, and that is never equal. Compare label by label.")
def _list_compared(labels):
    return labels != IGNORE_INDEX


@mistake(ID, "This is the share of trained tokens. Return their number.")
def _share(labels):
    return count_trained(labels) / len(labels)


def _case(rule: str, labels: list[int], remark: str) -> Case:
    return Case(
        f"`count_trained({labels})`: {remark}", lambda: (list(labels),), count_trained, rule=rule
    )


def _draw(rng: random.Random, *_: object) -> tuple:
    ids = [IGNORE_INDEX, rng.randrange(9), rng.randrange(50_000)]
    return ([rng.choice(ids) for _ in range(rng.randint(5, 12))],)


M = IGNORE_INDEX
EXERCISES = {
    ID: Exercise(
        ID,
        "Count the trained tokens",
        count_trained,
        [
            _case("count", [M, M, 7, 3, 1204], "a prompt of two tokens, an answer of three"),
            _case("zero", [M, M, 0, 5, 9], "the answer begins with token 0"),
            _case("repeated", [M, 8, 4, 8, 8], "one token occurs three times"),
            _case("place", [6, 2, M, 9], "the first token is trained"),
            _case("place", [M, 3, 5, M, M], "the last two tokens are not trained"),
            _case("none", [M, M, M], "nothing is trained"),
            _case("none", [], "an empty list"),
        ],
        asks="Return how many tokens are trained, given the list of an example's labels.",
        rules={
            "count": "A label of -100 marks a token that is not trained; any other is a trained one's id.",
            "zero": "Id 0 is a token like any other.",
            "repeated": "An id that occurs several times counts each time.",
            "place": "Trained tokens can be at any position, also the first and the last.",
            "none": "Return 0 if no token is trained, or if the list is empty.",
            "unchanged": "labels stays as it is.",
        },
        draw=_draw,
        hints=(
            "Go through the labels one by one. Which of them does the loss use?",
            ("count", "So each label needs one comparison, and the answer is how often it holds."),
            "In Python, True counts as 1: `sum` over comparisons says how often they hold.",
        ),
        path="Notice first that a single comparison decides for each label whether its token is trained. Then count how often it holds. The "
        "usual wrong turn is to ask whether a label is positive: id 0 is a token too.",
        why="-100 is not a token id, so it can mark “not trained” without taking an id away. Id 0 is an ordinary token.",
    )
}  # fmt: skip
