"""The checks of notebook 03: labels for chosen parts, and the response's share of a loss."""

from __future__ import annotations

import itertools
import random

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import tensor
from sftlab.loss import IGNORE_INDEX, response_loss_share
from sftlab.masking import Spans, training_labels

LABELS, ID = "03.training_labels", "03.response_loss_share"

# --- training_labels -----------------------------------------------------------------------


@mistake(LABELS, "The first token has a label. No earlier token predicts it, so its label is -100 even if its part is trained.")  # fmt: skip
def _first_kept(input_ids, spans, train):
    labels = [IGNORE_INDEX] * len(input_ids)
    for name in train:
        for start, end in spans[name]:
            labels[start:end] = input_ids[start:end]
    return labels


@mistake(LABELS, "The parts in train are masked and the others are trained. It is the other way round.")  # fmt: skip
def _other_way_round(input_ids, spans, train):
    return training_labels(input_ids, spans, set(spans) - set(train))


@mistake(LABELS, "The last token of each span is masked. The end is exclusive: labels[start:end] is the whole span.")  # fmt: skip
def _end_cut(input_ids, spans, train):
    cut = {name: [(start, end - 1) for start, end in spans[name]] for name in spans}
    return training_labels(input_ids, cut, train)


@mistake(LABELS, "One token after each span is trained too. The end is exclusive: labels[start:end] is the whole span.")  # fmt: skip
def _end_included(input_ids, spans, train):
    longer = {
        name: [(a, min(b + 1, len(input_ids))) for a, b in found] for name, found in spans.items()
    }
    return training_labels(input_ids, longer, train)


@mistake(LABELS, "Only the first span of each part is trained. A part may stand in several places.")
def _first_span(input_ids, spans, train):
    return training_labels(input_ids, {name: spans[name][:1] for name in spans}, train)


@mistake(LABELS, "Only the last span of each part is trained. A part may stand in several places.")
def _last_span(input_ids, spans, train):
    return training_labels(input_ids, {name: spans[name][-1:] for name in spans}, train)


@mistake(LABELS, "Only the response is trained. Which parts are trained is said by train.")
def _response_alone(input_ids, spans, train):
    return training_labels(input_ids, spans, set(train) & {"response"})


@mistake(LABELS, "The response is trained whatever train says. That is the first step: now train the parts that train names.")  # fmt: skip
def _response_always(input_ids, spans, train):
    return training_labels(input_ids, spans, {"response"})


@mistake(LABELS, "Every token is trained. Tokens outside the spans to train have the label -100.")
def _everything_trained(input_ids, spans, train):
    return training_labels(input_ids, {"all": [(0, len(input_ids))]}, {"all"})


@mistake(LABELS, "The labels are shifted by one position. They stay in line with input_ids; the loss shifts them.")  # fmt: skip
def _shifted_labels(input_ids, spans, train):
    return [*training_labels(input_ids, spans, train)[1:], IGNORE_INDEX]


@mistake(LABELS, "Masked tokens have the label 0, but 0 is the id of a token. The loss leaves out -100 only.")  # fmt: skip
def _masked_with_zero(input_ids, spans, train):
    return [0 if label == IGNORE_INDEX else label for label in training_labels(input_ids, spans, train)]  # fmt: skip


@mistake(LABELS, "Only the trained tokens are returned. The result has one label for each token of input_ids.")  # fmt: skip
def _trained_alone(input_ids, spans, train):
    return [label for label in training_labels(input_ids, spans, train) if label != IGNORE_INDEX]


def _labels_case(rule: str, remark: str, ids: list[int], spans: Spans, train: set[str]) -> Case:
    return Case(
        f"`training_labels({ids}, {spans}, {train})`: {remark}",
        lambda: (list(ids), {name: list(found) for name, found in spans.items()}, set(train)),
        training_labels,
        rule=rule,
    )


_SPANS: Spans = {"template": [(0, 2), (5, 7)], "question": [(2, 5)], "response": [(7, 10)]}
_IDS = [1, 11, 7, 23, 0, 2, 13, 31, 0, 2]
LABELS_CASES = (
    _labels_case("train", "the response", _IDS, _SPANS, {"response"}),
    _labels_case("train", "response and question", _IDS, _SPANS, {"response", "question"}),
    _labels_case("train", "nothing", _IDS, _SPANS, set()),
    _labels_case("spans", "the template stands in two places", _IDS, _SPANS, {"template"}),
    _labels_case("spans", "all parts", _IDS, _SPANS, {"template", "question", "response"}),
    _labels_case("spans", "a part without a place", [3, 4, 5], {"question": [], "response": [(1, 3)]}, {"question"}),
    _labels_case("spans", "a token in no part", [3, 4, 5, 6], {"response": [(2, 3)]}, {"response"}),
    _labels_case("first", "the response begins at the first token", [3, 4, 5], {"response": [(0, 3)]}, {"response"}),
)  # fmt: skip


def _draw_labels(rng: random.Random, *_: object) -> tuple:
    names = ["template", "question", "response"]
    edges = sorted(rng.sample(range(1, 14), 5))
    edges = [0, *edges, 14]
    spans: Spans = {name: [] for name in names}
    for k, (start, end) in enumerate(itertools.pairwise(edges)):
        spans[names[k % 3]].append((start, end))
    ids = [rng.randrange(50) for _ in range(14)]
    return ids, spans, set(rng.sample(names, rng.randint(1, 2)))


# --- response_loss_share -------------------------------------------------------------------


def _response(labels):
    return labels[:, 1:] != IGNORE_INDEX


@mistake(ID, "The labels are not shifted: per_token_loss[:, t] is the loss of token t + 1, so it belongs to labels[:, t + 1].")  # fmt: skip
def _unshifted(losses, labels):
    return losses[labels[:, :-1] != IGNORE_INDEX].sum() / losses.sum()


@mistake(ID, "The labels are shifted twice: per_token_loss[:, t] belongs to labels[:, t + 1], one position later, not two.")  # fmt: skip
def _shifted_twice(losses, labels):
    return losses[:, :-1][labels[:, 2:] != IGNORE_INDEX].sum() / losses.sum()


@mistake(ID, "The losses are shifted as well, so the first loss is in neither sum. per_token_loss begins with the second token already: shift only the labels.")  # fmt: skip
def _losses_shifted_too(losses, labels):
    return losses[:, 1:][labels[:, 2:] != IGNORE_INDEX].sum() / losses[:, 1:].sum()


@mistake(ID, "The last token of each sequence is left out of both sums. Only the first token has no loss.")  # fmt: skip
def _last_token_left_out(losses, labels):
    return losses[:, :-1][labels[:, 1:-1] != IGNORE_INDEX].sum() / losses[:, :-1].sum()


@mistake(ID, "The labels themselves are used as a mask, so -100 counts as True and 0 as False. Compare them with -100.")  # fmt: skip
def _labels_as_mask(losses, labels):
    return losses[labels[:, 1:].bool()].sum() / losses.sum()


@mistake(ID, "A sequence without a response is left out. Its losses belong to the whole, so divide by the loss of *all* tokens.")  # fmt: skip
def _without_response_left_out(losses, labels):
    kept = _response(labels).any(1)
    if not kept.any():
        return 0.0
    return response_loss_share(losses[kept], labels[kept])


@mistake(ID, "This is the prompt's share. The response is where the label is *not* -100.")
def _prompt_share(losses, labels):
    return losses[~_response(labels)].sum() / losses.sum()


@mistake(ID, "Two means are divided: that compares a response token with an average token. The share of the total is a quotient of sums.")  # fmt: skip
def _of_means(losses, labels):
    return losses[_response(labels)].mean() / losses.mean()


@mistake(ID, "This is the response's share of the *tokens*. Here each token weighs as much as its loss.")  # fmt: skip
def _counted(losses, labels):
    return _response(labels).float().mean()


@mistake(ID, "The shares of the sequences are averaged. The loss of a batch is one sum: add over all sequences first, divide once.")  # fmt: skip
def _mean_of_sequences(losses, labels):
    return ((losses * _response(labels)).sum(1) / losses.sum(1)).mean()


@mistake(ID, "The response's loss is divided by the prompt's. A share divides by the whole, prompt and response together.")  # fmt: skip
def _to_prompt(losses, labels):
    return losses[_response(labels)].sum() / losses[~_response(labels)].sum()


@mistake(ID, "The quotient is upside down: this is the whole loss divided by the response's.")
def _upside_down(losses, labels):
    return losses.sum() / losses[_response(labels)].sum()


@mistake(ID, "Token 0 is left out, but it is a response token like any other. Only -100 is outside the response.")  # fmt: skip
def _above_zero(losses, labels):
    return losses[labels[:, 1:] > 0].sum() / losses.sum()


@mistake(ID, "Everything after the first response token is counted. A later prompt, or padding, has labels of -100 too: go by the label of each token.")  # fmt: skip
def _from_the_first_on(losses, labels):
    return losses[_response(labels).int().cumsum(1) > 0].sum() / losses.sum()


@mistake(ID, "Without any response token this is NaN: the mean of no values. The share is 0 then.")
def _mean_times_count(losses, labels):
    response = losses[_response(labels)]
    return response.mean() * len(response) / losses.sum()


@mistake(ID, "Every token counts as part of the response, so the share is always 1. Compare the labels with -100.")  # fmt: skip
def _everything(losses, labels):
    return 1.0


@mistake(ID, "This is in percent. Return a share from 0 to 1.")
def _percent(losses, labels):
    return 100 * response_loss_share(losses, labels)


@mistake(ID, "This is the response's loss in nats. Divide it by the loss of all tokens.")
def _nats(losses, labels):
    return losses[_response(labels)].sum()


@mistake(ID, "This is the mean loss of a response token, the SFT loss. The share says which part of the whole loss falls on the response.")  # fmt: skip
def _mean_loss(losses, labels):
    return losses[_response(labels)].mean()


@mistake(ID, "The response's loss is divided by the number of all tokens. Divide it by their loss.")
def _by_number_of_tokens(losses, labels):
    return losses[_response(labels)].sum() / losses.numel()


@mistake(ID, "Only the first sequence is in the result. The batch may have more.")
def _first_sequence(losses, labels):
    return response_loss_share(losses[:1], labels[:1])


@mistake(ID, "Only the last sequence is in the result: the ones before it were overwritten.")
def _last_sequence(losses, labels):
    return response_loss_share(losses[-1:], labels[-1:])


@mistake(ID, "This is one number for each sequence. The batch has one loss, and one share of it falls on responses.")  # fmt: skip
def _for_each_sequence(losses, labels):
    return (losses * _response(labels)).sum(1) / losses.sum(1)


def _case(rule: str, remark: str, losses: list[list[float]], labels: list[list[int]]) -> Case:
    return Case(
        f"`response_loss_share(tensor({losses}), tensor({labels}))`: {remark}",
        lambda: (torch.tensor(losses), torch.tensor(labels)),
        response_loss_share,
        1e-5,
        rule=rule,
    )


M = IGNORE_INDEX
CASES = (
    _case("share", "three tokens of prompt, two of response", [[3.0, 2.0, 0.5, 0.7]], [[M, M, M, 7, 2]]),
    _case("shift", "the first label is set", [[1.5, 0.5, 2.0]], [[4, M, 6, 2]]),
    _case("mask", "the response contains token 0", [[2.0, 1.0, 0.5, 0.25]], [[M, M, 0, 0, 2]]),
    _case("mask", "two responses", [[1.3, 0.7, 2.9, 0.4, 1.1]], [[M, M, 5, M, 7, 2]]),
    _case("mask", "padding after the response", [[1.9, 0.7, 0.3, 0.6]], [[M, M, 5, M, M]]),
    _case("batch", "two sequences with unequal losses", [[4.0, 1.0, 1.5, 2.0], [0.9, 0.3, 0.2, 0.1]], [[M, M, M, 8, 2], [M, M, 6, 5, 2]]),
    _case("batch", "the first sequence has no response", [[0.9, 0.4], [1.3, 0.8]], [[M, M, M], [M, M, 4]]),
    _case("ends", "no prompt", [[0.7, 0.2]], [[M, 4, 2]]),
    _case("ends", "no response", [[0.7, 0.2, 1.1]], [[M, M, M, M]]),
)  # fmt: skip


def _draw(rng: random.Random, *_: object) -> tuple:
    rows, length = rng.randint(2, 3), rng.randint(5, 8)
    ids = [[rng.choice([M, rng.randrange(50)]) for _ in range(length)] for _ in range(rows)]
    ids[0][2] = 7  # not all of them -100
    return tensor(rng, rows, length - 1).abs() + 0.1, torch.tensor(ids)


EXERCISES = {
    LABELS: Exercise(
        LABELS,
        "Labels for the parts that are trained",
        training_labels,
        LABELS_CASES,
        asks="Return the labels of one example as a list: which of its tokens carry the loss.\n\n"
        'input_ids: list of ids. spans: name of a part -> its places as (start, end), such as {"template": [(0, 3), (12, 17)], …}. train: set of names of parts.',
        rules={
            "train": "A token of a part in train has its own id as its label; any other has -100.",
            "spans": "A part has several places, one, or none; ends are exclusive. A token may be in no part.",
            "first": "The first token always has the label -100: no earlier token predicts it.",
            "unchanged": "input_ids, spans and train stay as they are.",
        },
        draw=_draw_labels,
        hints=(
            "Begin with a list of -100 for every token. Then which of them change?",
            ("spans", "A slice of a list can be replaced by another slice: a[start:end] = …"),
            "Look at the very first token last.",
        ),
        path="Begin with a list in which nothing is trained. Write step 1 for the response alone, then loop over the names in train and over the places of each. "
        "At the end the first label is set to -100. The usual wrong turn is to mask what is not wanted, part by part: tokens that belong to no part are then trained.",
        why="Starting from -100 makes untrained the default: a token is trained only because a span says so. The labels are not shifted, because the loss does that.",
    ),
    ID: Exercise(
        ID,
        "The response's share of the loss",
        response_loss_share,
        CASES,
        asks="Return the response tokens' share of the loss of a batch, from 0 to 1.\n\n"
        "per_token_loss: tensor (batch, length - 1), the loss of every token after the first of its sequence. labels: tensor (batch, length).",
        rules={
            "share": "Each token weighs as much as its loss: the share is a quotient of two sums of losses.",
            "shift": "per_token_loss[:, t] belongs to labels[:, t + 1]; the first label belongs to no loss.",
            "mask": "A label of -100 is outside the response; any other, 0 as well, belongs to it.",
            "batch": "One share for the whole batch; a sequence without a response counts as well.",
            "ends": "Without a prompt the share is 1, without a response it is 0.",
            "unchanged": "per_token_loss and labels stay as they are.",
        },
        draw=_draw,
        hints=(
            "There are two sums: the losses of response tokens, and all losses. What tells which tokens are in the response?",
            ("shift", "So labels has one position more than per_token_loss. Which one is left over?"),
            "A comparison with -100 gives a tensor of True and False. It picks entries of another tensor of the same shape, or is multiplied with it.",
        ),
        path="Notice first that the two tensors differ in length by one, and bring them into line. Then mark the response tokens, add their losses, "
        "add all losses, and divide once. The usual wrong turn is to divide means or to average over sequences: both change the weight of a token.",
        why="A full-sequence loss is one sum over prompt and response, so a share of it is a quotient of sums. The labels are one position "
        "longer than the losses: entry t of the losses belongs to label t + 1.",
    ),
}  # fmt: skip
