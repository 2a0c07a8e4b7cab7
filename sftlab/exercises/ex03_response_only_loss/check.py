"""The check of notebook 03: which part of a loss falls on the response."""

from __future__ import annotations

import random

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import tensor
from sftlab.loss import IGNORE_INDEX, response_loss_share

ID = "03.response_loss_share"


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
    ID: Exercise(
        ID,
        "The response's share of the loss",
        response_loss_share,
        CASES,
        asks="Return which share of the loss of a batch falls on response tokens: a number from 0 to 1.\n\n"
        "per_token_loss: tensor (batch, length - 1), the loss of every token after the first of its sequence. labels: tensor (batch, length).",
        rules={
            "share": "Each token weighs as much as its loss: the share is a quotient of two sums of losses.",
            "shift": "per_token_loss[:, t] is the loss of token t + 1, whose label is labels[:, t + 1]. The first label of a sequence belongs to no loss.",
            "mask": "A label of -100 is outside the response. Any other label belongs to it, 0 as well, wherever it is in the sequence.",
            "batch": "There is one share for the whole batch; it is not the mean of the sequences' shares. The losses of a sequence without a response belong to the whole, too.",
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
        "longer than the losses: entry t of the losses belongs to label t + 1, here as everywhere.",
    ),
}  # fmt: skip
