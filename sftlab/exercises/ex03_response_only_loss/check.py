"""The check of notebook 03: which part of a loss falls on the response."""

from __future__ import annotations

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.loss import IGNORE_INDEX, response_loss_share

ID = "03.response_loss_share"


@mistake(ID, "Off by one: losses[:, t] is the loss of token t + 1, so its label is labels[:, t + 1]. Compare with labels[:, 1:].")  # fmt: skip
def _unshifted(losses, labels):
    return (losses[labels[:, :-1] != IGNORE_INDEX].sum() / losses.sum()).item()


@mistake(ID, "That is the prompt's share. The response is where the label is *not* -100.")
def _prompt_share(losses, labels):
    return 1 - response_loss_share(losses, labels)


@mistake(ID, "You divided two means: that compares a response token with an average token. The share of the total is a quotient of sums.")  # fmt: skip
def _of_means(losses, labels):
    return (losses[labels[:, 1:] != IGNORE_INDEX].mean() / losses.mean()).item()


@mistake(ID, "That is the response's share of the *tokens*. Here each token weighs as much as its loss.")  # fmt: skip
def _counted(losses, labels):
    return (labels[:, 1:] != IGNORE_INDEX).float().mean().item()


@mistake(ID, "You averaged the shares of the rows. A batch's loss is one sum: add over all rows first, divide once.")  # fmt: skip
def _mean_of_rows(losses, labels):
    response = labels[:, 1:] != IGNORE_INDEX
    return ((losses * response).sum(1) / losses.sum(1)).mean().item()


@mistake(ID, "You divided by the prompt's loss. A share divides by the whole: prompt and response together.")  # fmt: skip
def _to_prompt(losses, labels):
    response = labels[:, 1:] != IGNORE_INDEX
    return (losses[response].sum() / losses[~response].sum()).item()


@mistake(ID, "Token 0 is a response token like any other. Masked is -100 and nothing else: compare with IGNORE_INDEX.")  # fmt: skip
def _above_zero(losses, labels):
    return (losses[labels[:, 1:] > 0].sum() / losses.sum()).item()


@mistake(ID, "That is in percent. Return a share from 0 to 1.")
def _percent(losses, labels):
    return 100 * response_loss_share(losses, labels)


@mistake(ID, "That is the response's loss in nats. Divide it by the loss of all tokens.")
def _nats(losses, labels):
    return losses[labels[:, 1:] != IGNORE_INDEX].sum().item()


@mistake(ID, "That is the mean loss of a response token, the SFT loss. Asked for is which part of the whole it makes up.")  # fmt: skip
def _mean_loss(losses, labels):
    return losses[labels[:, 1:] != IGNORE_INDEX].mean().item()


@mistake(ID, "Only the first row was counted. The batch may have more.")
def _first_row(losses, labels):
    return response_loss_share(losses[:1], labels[:1])


@mistake(ID, "That is one number per row. The batch has one loss, and one share of it falls on responses.")  # fmt: skip
def _per_row(losses, labels):
    response = labels[:, 1:] != IGNORE_INDEX
    return (losses * response).sum(1) / losses.sum(1)


def _case(describe: str, losses: list[list[float]], labels: list[list[int]]) -> Case:
    return Case(
        describe,
        lambda: (torch.tensor(losses), torch.tensor(labels)),
        response_loss_share,
        1e-5,
    )


M = IGNORE_INDEX
CASES = (
    _case("one row: three prompt tokens, two of the response", [[3.0, 2.0, 0.6, 0.4]], [[M, M, M, 7, 2]]),
    _case("two rows of unequal length; the padding has a loss of 0",
          [[4.0, 1.0, 1.0, 2.0, 0.5], [1.0, 3.0, 1.0, 0.0, 0.0]], [[M, M, M, 8, 9, 2], [M, M, 5, 2, M, M]]),
    _case("the response contains token 0", [[2.0, 1.0, 0.5, 0.25]], [[M, M, 0, 0, 2]]),
    _case("the first label is set: nothing forecasts the first token", [[1.5, 0.5, 2.0]], [[4, M, 6, 2]]),
    _case("no prompt", [[0.7, 0.2]], [[M, 4, 2]]),
)  # fmt: skip

EXERCISES = {
    ID: Exercise(
        id=ID,
        title="The response's share of the loss",
        reference=response_loss_share,
        cases=CASES,
        hints=[
            "Two sums: the losses of response tokens, and all losses. What tells which tokens are the response's?",
            "labels has one position more than per_token_loss, because nothing forecasts the first token. Which of its positions is left over?",
            "A boolean tensor picks entries: `per_token_loss[mask].sum()`.",
        ],
        why="A full-sequence loss is one sum over prompt and response, so a share of it is a quotient of sums. The labels are one position "
        "longer than the losses: entry t of the losses belongs to label t + 1, here as everywhere.",
    ),
}
