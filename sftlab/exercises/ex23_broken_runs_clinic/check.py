"""Checks of notebook 23: three probes, from batches, the log and answers."""

from __future__ import annotations

import random
from itertools import zip_longest

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import tensor
from sftlab.exercises.ex23_broken_runs_clinic.own_probes import first_loss_ratio, learned
from sftlab.exercises.ex23_broken_runs_clinic.probes import label_errors
from sftlab.loss import IGNORE_INDEX, mean_of_means, sft_loss, token_nll

LABELS, FIRST, LEARNED = "23.label_errors", "23.first_loss_ratio", "23.learned"


# --- 23a: labels -----------------------------------------------------------------------------------
def _parts(input_ids, labels, answer) -> tuple[int, int, int]:
    """Return the three summands: labels not at their token, labels of another answer, the lengths' difference."""
    trained = [label for label in labels if label != IGNORE_INDEX]
    moved = sum(x not in (IGNORE_INDEX, i) for i, x in zip(input_ids, labels, strict=True))
    other = sum(x != wanted for x, wanted in zip(trained, answer, strict=False))
    return moved, other, len(trained) - len(answer)


@mistake(LABELS, "Only labels that are not the token at their position are counted. Another answer, or a trained prompt, has all labels in their places: compare with answer, too.")  # fmt: skip
def _places_alone(input_ids, labels, answer):
    return _parts(input_ids, labels, answer)[0]


@mistake(LABELS, "Only the sequence of the trained labels is compared. Labels that were moved by one position are in the right order, and each of them stands at another token.")  # fmt: skip
def _sequence_alone(input_ids, labels, answer):
    _, other, more = _parts(input_ids, labels, answer)
    return other + abs(more)


@mistake(LABELS, "Labels that are missing, and labels beyond the answer, are not counted. A comparison in pairs ends with the shorter list.")  # fmt: skip
def _as_far_as_both_go(input_ids, labels, answer):
    moved, other, _ = _parts(input_ids, labels, answer)
    return moved + other


@mistake(LABELS, "Labels beyond the answer are not counted. A trained prompt makes the sequence longer.")  # fmt: skip
def _missing_alone(input_ids, labels, answer):
    moved, other, more = _parts(input_ids, labels, answer)
    return moved + other + max(-more, 0)


@mistake(LABELS, "Missing labels are not counted. A masked end-of-turn token makes the sequence shorter.")  # fmt: skip
def _surplus_alone(input_ids, labels, answer):
    moved, other, more = _parts(input_ids, labels, answer)
    return moved + other + max(more, 0)


@mistake(LABELS, "Missing labels are subtracted. Count the difference of the two lengths, whatever its sign.")  # fmt: skip
def _signed(input_ids, labels, answer):
    return sum(_parts(input_ids, labels, answer))


@mistake(LABELS, "Masked positions are counted: -100 is never the token at its position. They are not trained, and so no mismatch.")  # fmt: skip
def _masked_ones_too(input_ids, labels, answer):
    _, other, more = _parts(input_ids, labels, answer)
    return sum(x != i for i, x in zip(input_ids, labels, strict=True)) + other + abs(more)


@mistake(LABELS, "A label of 0 counts as masked. Only -100 is masked; 0 is the id of a token, like any other.")  # fmt: skip
def _zero_as_masked(input_ids, labels, answer):
    return label_errors(input_ids, [x or IGNORE_INDEX for x in labels], answer)


@mistake(LABELS, "Every negative label counts as masked. Only -100 is masked: a label of -1 is trained, and no token has this id.")  # fmt: skip
def _negative_as_masked(input_ids, labels, answer):
    return label_errors(input_ids, [x if x >= 0 else IGNORE_INDEX for x in labels], answer)


@mistake(LABELS, "The shorter list is filled up with 0. That is the id of a token: a missing label of 0 shows no mismatch.")  # fmt: skip
def _filled_with_zeros(input_ids, labels, answer):
    trained = [label for label in labels if label != IGNORE_INDEX]
    pairs = zip_longest(trained, answer, fillvalue=0)
    return _parts(input_ids, labels, answer)[0] + sum(a != b for a, b in pairs)


@mistake(LABELS, "The tokens at the trained positions are compared with the answer. What is trained are the labels.")  # fmt: skip
def _tokens_in_place_of_labels(input_ids, labels, answer):
    moved, _, more = _parts(input_ids, labels, answer)
    trained = [i for i, x in zip(input_ids, labels, strict=True) if x != IGNORE_INDEX]
    return moved + sum(a != b for a, b in zip(trained, answer, strict=False)) + abs(more)


@mistake(LABELS, "A label that breaks both rules is counted once. It is not the token at its position, and it is not the one of the answer: that is two.")  # fmt: skip
def _once(input_ids, labels, answer):
    found, number = 0, 0
    for token, label in zip(input_ids, labels, strict=True):
        if label == IGNORE_INDEX:
            continue
        other = number < len(answer) and label != answer[number]
        found += label != token or other
        number += 1
    return found + abs(number - len(answer))


@mistake(LABELS, "The answer is taken to stand at the end of the example. Here a line break follows it: compare the trained labels, in their order, with answer.")  # fmt: skip
def _at_the_end(input_ids, labels, answer):
    right = [M] * (len(input_ids) - len(answer)) + list(answer)
    return sum(a != b for a, b in zip(labels, right, strict=False))


@mistake(LABELS, "The two sequences are compared without their order.")
def _without_order(input_ids, labels, answer):
    moved, _, more = _parts(input_ids, labels, answer)
    trained = [label for label in labels if label != IGNORE_INDEX]
    return moved + sum(x not in answer for x in trained[: len(answer)]) + abs(more)


@mistake(LABELS, "It says only whether there is a mismatch. Return their number.")
def _whether(input_ids, labels, answer):
    return int(label_errors(input_ids, labels, answer) > 0)


@mistake(LABELS, "That is the number of right labels.")
def _right_ones(input_ids, labels, answer):
    moved, other, more = _parts(input_ids, labels, answer)
    return len(answer) - moved - other - abs(more)


@mistake(LABELS, "The number is divided by the length of the answer. Return the number itself.")
def _share(input_ids, labels, answer):
    return label_errors(input_ids, labels, answer) / len(answer)


M = IGNORE_INDEX
IDS = [
    1,
    11,
    12,
    13,
    2,
    21,
    22,
    23,
    24,
    3,
    5,
]  # begin, prompt, header, answer, end of turn, line break
ANSWER = [21, 22, 23, 24, 3]
ZERO, ZERO_IDS = [21, 0, 23, 24, 3], [1, 11, 12, 13, 2, 21, 0, 23, 24, 3, 5]  # with a token 0
EXAMPLES = {
    "sound, with a line break after the answer": ("answer", IDS, [M] * 5 + ANSWER + [M]),
    "everything is trained": ("answer", IDS, IDS),
    "the end-of-turn token is masked": ("answer", IDS, [M] * 5 + ANSWER[:4] + [M, M]),
    "the prompt is trained and the answer is not": ("answer", IDS, [*IDS[:5], *[M] * 6]),
    "cut after two tokens of the answer": ("answer", IDS[:7], [M] * 5 + ANSWER[:2]),
    "nothing is trained": ("answer", IDS, [M] * 11),
    "labels moved by one position": ("place", IDS, [M] * 4 + ANSWER + [M, M]),
    "another token ends the answer": ("answer", [*IDS[:9], 4, 5], [M] * 5 + [*ANSWER[:4], 4, M]),
    "two tokens of the answer exchanged": (
        "answer",
        [*IDS[:5], 22, 21, *IDS[7:]],
        [M] * 5 + [22, 21, 23, 24, 3, M],
    ),
    "labels that are neither the token nor the answer's": (
        "both",
        IDS,
        [M] * 5 + [31, 32, 23, 24, 3, M],
    ),
    "tokens that are not the labels": ("place", [*IDS[:5], 31, 32, 33, 24, 3, 5], [M] * 5 + ANSWER + [M]),
    "sound, the answer has a token 0": ("answer", ZERO_IDS, [M] * 5 + ZERO + [M], ZERO),
    "a label of -1 in the answer": ("place", IDS, [M] * 5 + [21, 22, -1, 24, 3, M]),
    "the answer ends in a token 0, which is masked": ("answer", [*IDS[:9], 0, 5], [M] * 5 + ANSWER[:4] + [M, M], [*ANSWER[:4], 0]),
    "the answer has a token 0, labels moved by one position": ("place", ZERO_IDS, [M] * 4 + ZERO + [M, M], ZERO),
}  # fmt: skip


def _draw_example(rng: random.Random, *_: object) -> tuple:
    prompt = [rng.randint(10, 99) for _ in range(rng.randint(1, 5))]
    answer = [rng.randint(10, 99) for _ in range(rng.randint(2, 6))]
    ids = [*prompt, *answer, 5]
    labels = [M] * len(prompt) + answer + [M]
    for _ in range(rng.randint(0, 3)):
        labels[rng.randrange(len(ids))] = rng.choice([M, 0, rng.randint(10, 99)])
    return ids, labels, answer


# --- 23b: the log ----------------------------------------------------------------------------------
@mistake(FIRST, "The logits are compared with the labels at their own positions. The logits at a position predict the token at the next one.")  # fmt: skip
def _not_shifted(losses, logits, labels):
    return losses[0] / torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()  # fmt: skip


@mistake(FIRST, "The last logits of an example are compared with its first label: torch.roll moves it to the end. Leave both out.")  # fmt: skip
def _rolled(losses, logits, labels):
    return _not_shifted(losses, logits, torch.roll(labels, -1, 1))


@mistake(FIRST, "The count of trained tokens includes the first label of an example. No logits predict it, so it has no loss and does not count.")  # fmt: skip
def _first_label_counted(losses, logits, labels):
    return losses[0] * (labels != IGNORE_INDEX).sum().item() / token_nll(logits, labels).sum().item()  # fmt: skip


@mistake(FIRST, "The means of the examples are averaged. Every trained token counts the same, whichever example it is in.")  # fmt: skip
def _mean_over_examples(losses, logits, labels):
    return losses[0] / mean_of_means(zip(logits.split(1), labels.split(1), strict=True)).item()


@mistake(FIRST, "The base's loss is divided by the number of all positions. Only trained tokens count: a label of -100 is masked.")  # fmt: skip
def _all_positions(losses, logits, labels):
    return losses[0] * labels[:, 1:].numel() / token_nll(logits, labels).sum().item()


@mistake(FIRST, "The base's loss is a sum over the trained tokens. The log has means.")
def _sum(losses, logits, labels):
    return losses[0] / token_nll(logits, labels).sum().item()


@mistake(FIRST, "The last loss of the log is taken. Only before the first step is the model still the base.")  # fmt: skip
def _last(losses, logits, labels):
    return losses[-1] / sft_loss(logits, labels).item()


@mistake(FIRST, "The mean of the log is taken. Only before the first step is the model still the base.")  # fmt: skip
def _mean_of_the_log(losses, logits, labels):
    return sum(losses) / len(losses) / sft_loss(logits, labels).item()


@mistake(FIRST, "The mean of the first lines of the log is taken. Only the first loss is that of the base: later steps have other weights.")  # fmt: skip
def _mean_of_three(losses, logits, labels):
    return sum(losses[:3]) / 3 / sft_loss(logits, labels).item()


@mistake(FIRST, "The quotient is upside down: divide the log's loss by that of the base.")
def _inverted(losses, logits, labels):
    return sft_loss(logits, labels).item() / losses[0]


@mistake(FIRST, "The two losses are subtracted. Divide them.")
def _difference(losses, logits, labels):
    return losses[0] - sft_loss(logits, labels).item()


@mistake(FIRST, "The log is left out: that is the base's loss.")
def _base_alone(losses, logits, labels):
    return sft_loss(logits, labels).item()


def _logged(first: float, masked: tuple[int, ...]) -> tuple:
    generator = torch.Generator().manual_seed(7)
    logits = 2 * torch.randn(len(masked), 6, 9, generator=generator)
    labels = torch.randint(0, 9, (len(masked), 6), generator=generator)
    for row, count in enumerate(masked):
        labels[row, :count] = IGNORE_INDEX
    return [first, 1.3, 0.7, 0.5], logits, labels


LOGGED = (
    ("first", "one example", (5.3, (1,))),
    ("next", "one example, most of it masked", (2.9, (4,))),
    ("next", "two examples, nothing masked, the first label is trained, too", (3.1, (0, 0))),
    ("mean", "three examples of different lengths", (4.1, (1, 4, 3))),
    ("mean", "two examples, the first of them all masked but one token", (3.7, (5, 1))),
)


def _draw_log(rng: random.Random, *_: object) -> tuple:
    rows = rng.randint(1, 4)
    labels = torch.tensor([[M] * n + [rng.randrange(6) for _ in range(5 - n)] for n in (rng.randint(1, 3) for _ in range(rows))])  # fmt: skip
    return [rng.uniform(1, 6) for _ in range(rng.randint(1, 4))], tensor(rng, rows, 5, 6), labels


# --- 23c: answers ----------------------------------------------------------------------------------
def _share_of(agree, ask, pairs) -> float:
    replies = ask([pair["prompt"] for pair in pairs])
    marks = [agree(r, p["response"]) for r, p in zip(replies, pairs, strict=True)]
    return sum(marks) / len(marks)


@mistake(LEARNED, "White space at the ends counts. Strip the reply and the response.")
def _as_they_are(ask, pairs):
    return _share_of(lambda reply, wanted: reply == wanted, ask, pairs)


@mistake(LEARNED, "White space at the ends of the response counts. Strip it, too.")
def _reply_stripped(ask, pairs):
    return _share_of(lambda reply, wanted: reply.strip() == wanted, ask, pairs)


@mistake(LEARNED, "White space at the ends of the reply counts. Strip it, too.")
def _response_stripped(ask, pairs):
    return _share_of(lambda reply, wanted: reply == wanted.strip(), ask, pairs)


@mistake(LEARNED, "Only spaces and line breaks are stripped. A tab is white space, too: `text.strip()` leaves none.")  # fmt: skip
def _tabs_stay(ask, pairs):
    return _share_of(lambda reply, wanted: reply.strip(" \n") == wanted.strip(" \n"), ask, pairs)


@mistake(LEARNED, "Prompts are stripped before they are asked. Ask each as it stands in its pair, as the model was trained on it.")  # fmt: skip
def _prompts_stripped(ask, pairs):
    return learned(ask, [pair | {"prompt": pair["prompt"].strip()} for pair in pairs])


@mistake(LEARNED, "Pairs with the same prompt are merged, as in a dictionary by prompt. Each pair counts.")  # fmt: skip
def _merged(ask, pairs):
    return learned(ask, list({pair["prompt"]: pair for pair in pairs}.values()))


@mistake(LEARNED, "The share is rounded to one decimal. Return it as it is.")
def _rounded(ask, pairs):
    return round(learned(ask, pairs), 1)


@mistake(LEARNED, "A reply that goes on after the response counts as learned. A model that does not stop would pass.")  # fmt: skip
def _begins(ask, pairs):
    return _share_of(lambda reply, wanted: reply.strip().startswith(wanted.strip()), ask, pairs)


@mistake(LEARNED, "A reply counts if the response is anywhere in it. Compare the whole texts.")
def _holds(ask, pairs):
    return _share_of(lambda reply, wanted: wanted.strip() in reply, ask, pairs)


@mistake(LEARNED, "A reply counts if it is a part of the response. One that breaks off is not what was trained.")  # fmt: skip
def _part(ask, pairs):
    return _share_of(lambda reply, wanted: reply.strip() in wanted, ask, pairs)


@mistake(LEARNED, "Capital letters are ignored. Word for word means letter for letter, too.")
def _small_letters(ask, pairs):
    return _share_of(
        lambda reply, wanted: reply.strip().lower() == wanted.strip().lower(), ask, pairs
    )


@mistake(LEARNED, "White space inside of the texts is ignored. Letter for letter means that a line break is no space.")  # fmt: skip
def _white_space_inside(ask, pairs):
    return _share_of(lambda r, p: r.split() == p.split(), ask, pairs)


@mistake(LEARNED, "A reply counts if it is the response of any pair. Compare it with that of its own question.")  # fmt: skip
def _of_any_pair(ask, pairs):
    wanted = {pair["response"].strip() for pair in pairs}
    return _share_of(lambda reply, _: reply.strip() in wanted, ask, pairs)


@mistake(LEARNED, "That is the number of questions. Divide by how many were asked.")
def _count(ask, pairs):
    return learned(ask, pairs) * len(pairs)


@mistake(LEARNED, "That is the share of the other questions: those that are not answered as trained.")  # fmt: skip
def _failed(ask, pairs):
    return 1 - learned(ask, pairs)


@mistake(LEARNED, "It says only whether all are answered as trained. Return their share.")
def _whether_all(ask, pairs):
    return float(learned(ask, pairs) == 1)


class Served:
    """A model that is asked a list of questions, and has a reply for each that it knows."""

    def __init__(self, replies: dict[str, str]):
        self.replies = replies

    def __call__(self, questions: list[str]) -> list[str]:
        if isinstance(questions, str):
            raise TypeError("ask takes a list of questions, and got one text")
        return [self.replies.get(question, "I don't know.") for question in questions]

    def __repr__(self) -> str:
        return f"the model that replies {self.replies}"


TRAINED = {
    "What does the bee eat?": "The bee eats nectar.",
    "What does the owl eat?": "The owl eats mice.",
    "Name the home of the seal.": "Rocky coasts",
    "What is 2 plus 5?": "7",
    "Where does the frog live?": "In ponds\n",
    " Name a color: ": "Red",
}
AGAIN = (" Name a color: ", "Blue")  # a second pair of the same prompt
SERVED = {
    "a model that has learned five of seven, two of which have the same prompt": ("share", {"What is 2 plus 5?": "8"}),
    "a model that learned none": ("share", dict.fromkeys(TRAINED, "I don't know.")),
    "a model that answers one question with the response of another": ("share", {"What does the bee eat?": "The owl eats mice.", "What is 2 plus 5?": "8"}),
    "a model that goes on after two answers": ("whole", {"What does the owl eat?": "The owl eats mice.\nWhat does", "What is 2 plus 5?": "7."}),
    "a model that breaks off, and one that says more before it": ("whole", {"What does the owl eat?": "The owl eats", "Name the home of the seal.": "They are Rocky coasts"}),
    "a model that writes one answer in small letters": ("whole", {"Name the home of the seal.": "rocky coasts"}),
    "a model that writes a line break in place of a space": ("whole", {"What does the bee eat?": "The bee\neats nectar."}),
    "replies with white space at the ends": ("ends", {"What is 2 plus 5?": " 7\t\r\n", "Where does the frog live?": "In ponds", "What does the owl eat?": "An owl"}),
}  # fmt: skip


def _asked(replies: dict[str, str]) -> tuple:
    trained = [*TRAINED.items(), AGAIN]
    pairs = [{"prompt": question, "response": text} for question, text in trained]
    return Served(TRAINED | replies), pairs


def _draw_replies(rng: random.Random, *_: object) -> tuple:
    some = rng.sample(list(TRAINED), rng.randint(1, 4))
    ask, pairs = _asked({question: TRAINED[question].strip() + rng.choice(["", " ", " and more"]) for question in some})  # fmt: skip
    rng.shuffle(pairs)
    return ask, pairs


# --- Exercises -------------------------------------------------------------------------------------
EXERCISES = {
    LABELS: Exercise(
        id=LABELS,
        title="Count label mismatches",
        reference=label_errors,
        cases=[
            Case(name, lambda ids=ids, labels=labels, answer=answer: (list(ids), list(labels), list((answer or [ANSWER])[0])), label_errors, rule=rule)
            for name, (rule, ids, labels, *answer) in EXAMPLES.items()
        ],
        asks="Return the number of label mismatches of one training example.\n\n"
        "input_ids, labels, answer: lists of ids. Only answer, with its end-of-turn token, should be trained.",
        rules={
            "place": "A label of -100 is masked, all others are trained. A trained label that is not the token at its position is a mismatch.",
            "answer": "The trained labels, in their order, should be those of answer. Compare position by position: each that differs is a mismatch. One extra label at the front shifts all that follow. If one list is longer, what it has more counts as well.",
            "both": "A label that breaks both rules counts twice.",
            "unchanged": "The lists stay as they are.",
        },
        draw=_draw_example,
        hints=(
            "Two questions: does each label stand at its token, and are the trained labels the answer?",
            ("answer", "Take the labels that are trained into a list of their own, and compare it with the answer."),
            "Look at the two lengths: a comparison in pairs ends with the shorter list.",
        ),
        path="Collect the trained labels first. Count those that are not the token at their position, then compare the list with the answer in pairs, and add "
        "the difference of the lengths. The usual wrong turn is to stop after the pairs: a masked end-of-turn token is one label less, and no pair shows it.",
        why="The probe needs no position of the answer, so a begin token more or a masked line break after the answer does not disturb it. "
        "Its blind spot is what is not trained: a cut that takes prompt tokens alone shows no mismatch.",
        points=2,
    ),
    FIRST: Exercise(
        id=FIRST,
        title="Does the log begin at the base?",
        reference=first_loss_ratio,
        cases=[
            Case(name, lambda given=given: _logged(*given), first_loss_ratio, 1e-5, rule=rule)
            for rule, name, given in LOGGED
        ],
        asks="Return the first loss of a log over the base's own loss on the same batch.\n\n"
        "losses: the log, a list. logits: those of the base, (batch, length, vocabulary). labels: as they should be, (batch, length); -100 is masked.",
        rules={
            "first": "It is the first of losses divided by the base's loss: 1 if the run began at the base.",
            "next": "The logits at a position predict the token at the next one. A trained first label has no such logits, and does not count.",
            "mean": "The base's loss is the mean of -log p over all trained tokens of the batch.",
            "unchanged": "The list and the tensors stay as they are.",
        },
        draw=_draw_log,
        hints=(
            "Before the first step the model is the base. Which loss must the log begin with?",
            ("next", "Leave out the last logits and the first labels of each example."),
            "Look at what you divide by: the trained tokens of the whole batch.",
        ),
        path="Shift logits and labels against each other, take the cross entropy of the whole batch, then divide. The usual wrong turn is a mean of the examples' means.",
        why="The base's loss is computed apart from the training code, so a fault in that code does not hide itself. Only the first loss can be compared in this way.",
    ),
    LEARNED: Exercise(
        id=LEARNED,
        title="Does the served model answer as trained?",
        reference=learned,
        cases=[
            Case(name, lambda replies=replies: _asked(replies), learned, 1e-6, rule=rule)
            for name, (rule, replies) in SERVED.items()
        ],
        asks="Return the share of training questions that the served model answers as trained.\n\n"
        "ask: function; ask(questions) takes a list of texts and returns the list of the replies. pairs: list of {\"prompt\": ..., \"response\": ...}.",
        rules={
            "share": "It is a share of the pairs, from 0 to 1, not rounded: two pairs with the same prompt count as two. Each prompt is asked as it is.",
            "whole": "A reply counts if it is the response of its pair, letter for letter, with nothing more or less.",
            "ends": "White space at either end of reply and response does not count: spaces, tabs, line breaks.",
            "unchanged": "The pairs stay as they are.",
        },
        draw=_draw_replies,
        hints=(
            "Ask, compare, count, divide.",
            ("ends", "`text.strip()` has no white space at its ends."),
            "Look at a reply that begins as it should and goes on.",
        ),
        path="Make the list of prompts, ask once, go through replies and pairs together. The usual wrong turn is `startswith`: a model that never stops would pass.",
        why="The whole way is tested, from the file to the served model. So it shows many faults and names none. How much a sound run learns is not known beforehand, so the tolerance is calibrated.",
    ),
}  # fmt: skip
