"""Checks of notebook 04: the SFT loss, and the same loss from micro-batches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.loss import (
    IGNORE_INDEX,
    accumulated_loss,
    mean_of_means,
    sft_loss,
    token_nll,
    trained_tokens,
)

LOSS, ACCUMULATED = "04.sft_loss", "04.accumulated_loss"
TOLERANCE = 1e-5


def _batch(labels: list[list[int]], vocabulary: int = 5, scale: float = 1.5, seed: int = 0):
    """Logits that require gradients, the same each time, and the labels."""
    labels = torch.tensor(labels)
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(*labels.shape, vocabulary, generator=random)
    return logits.requires_grad_(), labels


# --- the loss -------------------------------------------------------------------------------


def _picked(scores, labels):
    """What ``scores`` says of each token that is trained, at the position before it."""
    trained = labels[:, 1:] != IGNORE_INDEX
    return scores[:, : labels.shape[1] - 1][trained].gather(-1, labels[:, 1:][trained][:, None])


@mistake(LOSS, "The shift is missing: the logits at position t are a forecast of token t+1, but here they are compared with token t. Look at which logits meet which labels.")  # fmt: skip
def _unshifted(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


@mistake(LOSS, "The shift goes the wrong way: each token is compared with the forecast made after it was read. The forecast of token t+1 stands at position t.")  # fmt: skip
def _shifted_back(logits, labels):
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten())


@mistake(LOSS, "Shifted twice: the logits at t are compared with token t+2. The labels come unshifted; one step is enough.")  # fmt: skip
def _shifted_twice(logits, labels):
    return F.cross_entropy(logits[:, :-2].flatten(0, 1), labels[:, 2:].flatten())


@mistake(LOSS, "The mask is ignored: labels of -100 are scored as if they were token 0. Only positions whose label is not -100 may count.")  # fmt: skip
def _not_masked(logits, labels):
    return sft_loss(logits, labels.clamp(min=0))


@mistake(LOSS, "The sum is right, the count is too big: the first token of a row has no forecast, so its label is never scored and must not be counted.")  # fmt: skip
def _over_all_trained_labels(logits, labels):
    return _summed(logits, labels) / (labels != IGNORE_INDEX).sum()


@mistake(LOSS, "Divided by all positions, masked ones included. The mean is over the trained tokens alone: count the targets that are not -100.")  # fmt: skip
def _over_all_positions(logits, labels):
    return token_nll(logits, labels).mean()


@mistake(LOSS, "Divided by the number of all labels, masked ones included. The mean is over the trained tokens alone: count the targets that are not -100.")  # fmt: skip
def _over_all_labels(logits, labels):
    return _summed(logits, labels) / labels.numel()


@mistake(LOSS, "This is the sum over the trained tokens. The loss is their mean: what is it divided by?")  # fmt: skip
def _summed(logits, labels):
    return token_nll(logits, labels).sum()


@mistake(LOSS, "Divided by the number of rows. The loss is a mean per trained token, so a long answer weighs more than a short one.")  # fmt: skip
def _per_row(logits, labels):
    return _summed(logits, labels) / len(labels)


@mistake(LOSS, "A mean of row means: a token in a short answer weighs more than one in a long answer. Sum over the whole batch, count over the whole batch, divide once.")  # fmt: skip
def _mean_of_row_means(logits, labels):
    rows = zip(logits.split(1), labels.split(1), strict=True)
    return torch.stack([sft_loss(*row) for row in rows]).mean()


@mistake(LOSS, "The minus sign is missing: log-probabilities are never positive, and a loss is what training makes smaller.")  # fmt: skip
def _sign_missing(logits, labels):
    return -sft_loss(logits, labels)


@mistake(LOSS, "Token 0 is left out. 0 is an id like any other; only -100 marks a masked label.")  # fmt: skip
def _id_zero_masked(logits, labels):
    return sft_loss(logits, labels.masked_fill(labels == 0, IGNORE_INDEX))


@mistake(LOSS, "With large logits this overflows: a tiny probability is rounded to 0, and its log is infinite. Take the log-probabilities in one step that never forms the probability.")  # fmt: skip
def _softmax_then_log(logits, labels):
    return -_picked(logits.softmax(-1), labels).log().mean()


@mistake(LOSS, "With large logits this overflows: exp becomes infinite, and infinite over infinite is NaN. Take the log-probabilities in one step that never forms the probability.")  # fmt: skip
def _exp_then_log(logits, labels):
    weights = logits.exp()
    return -_picked(weights / weights.sum(-1, keepdim=True), labels).log().mean()


@mistake(LOSS, "Softmax is applied twice: the probabilities go through a function that expects raw logits. Look at what `cross_entropy` or `log_softmax` takes.")  # fmt: skip
def _softmax_twice(logits, labels):
    return sft_loss(logits.softmax(-1), labels)


@mistake(LOSS, "The log is missing: this is the mean probability of the right tokens. The loss is made of log-probabilities.")  # fmt: skip
def _probability(logits, labels):
    return _picked(logits.softmax(-1), labels).mean()


@mistake(LOSS, "The log is missing: this is the mean probability with a minus sign. The loss is made of log-probabilities.")  # fmt: skip
def _negative_probability(logits, labels):
    return -_picked(logits.softmax(-1), labels).mean()


@mistake(LOSS, "The logits are used as if they were log-probabilities. They become ones only after normalising over the vocabulary.")  # fmt: skip
def _raw_logits(logits, labels):
    return -_picked(logits, labels).mean()


@mistake(LOSS, "Normalised over the wrong dimension: the probabilities of one position must add up to 1 over the vocabulary, which is the last dimension.")  # fmt: skip
def _wrong_dimension(logits, labels):
    return -_picked(logits[:, :-1].log_softmax(1), labels).mean()


@mistake(LOSS, "These are bits: the logarithm has base 2. The loss is in nats, with the natural log.")  # fmt: skip
def _base_2(logits, labels):
    return sft_loss(logits, labels) / math.log(2)


@mistake(LOSS, "The logarithm has base 10. The loss is in nats, with the natural log.")  # fmt: skip
def _base_10(logits, labels):
    return sft_loss(logits, labels) / math.log(10)


@mistake(LOSS, "This is the perplexity, exp(loss). The loss itself is asked for.")  # fmt: skip
def _perplexity(logits, labels):
    return sft_loss(logits, labels).exp()


@mistake(LOSS, "With no trained token there is no mean: the result is NaN, as in `F.cross_entropy`. A 0 would look like a perfect fit.")  # fmt: skip
def _zero_for_nothing(logits, labels):
    return _summed(logits, labels) / trained_tokens(labels).clamp(min=1)


def _sft_case(labels: list[list[int]], remark: str, **batch) -> Case:
    size = f"{len(labels)} × {len(labels[0])} × {batch.get('vocabulary', 5)}"
    return Case(
        f"`sft_loss(logits, labels)` with logits of {size} and labels `{labels}`: {remark}",
        lambda: _batch(labels, **batch),
        sft_loss,
        TOLERANCE,
    )


SFT_CASES = (
    _sft_case([[IGNORE_INDEX, IGNORE_INDEX, 2, 3, 1, 4, 2]], "one row, two prompt tokens"),
    _sft_case(
        [
            [IGNORE_INDEX, 1, 3, 2, 4, 2],
            [IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 2, IGNORE_INDEX, IGNORE_INDEX],
        ],
        "answers of five tokens and of one",
        seed=1,
    ),
    _sft_case([[IGNORE_INDEX, IGNORE_INDEX, 0, 3, 0, 1]], "the answer contains token 0", seed=2),
    _sft_case([[2, 1, 4, 3]], "no prompt at all", seed=3),
    _sft_case(
        [[IGNORE_INDEX, IGNORE_INDEX, 1, 3, 2, 4]], "logits in the hundreds", scale=400.0, seed=4
    ),
    _sft_case(
        [[IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX]],
        "nothing is trained",
    ),
)

# --- the same from micro-batches ---------------------------------------------------------------


@mistake(ACCUMULATED, "It is NaN, because one micro-batch has no trained token: its mean is NaN, and NaN × 0 is NaN. Work with sums and counts; never form the mean of a micro-batch.")  # fmt: skip
def _weighted_means(micro_batches):
    means = [sft_loss(*batch) * trained_tokens(batch[1]) for batch in micro_batches]
    return sum(means) / sum(trained_tokens(labels) for _, labels in micro_batches)


@mistake(ACCUMULATED, "This is a mean of means: every micro-batch weighs the same, however many tokens it trains. Sum everything, count everything, divide once.")  # fmt: skip
def _mean_of_means(micro_batches):
    return mean_of_means(micro_batches)


@mistake(ACCUMULATED, "The micro-batches are weighted by their rows. What counts is how many tokens each one trains.")  # fmt: skip
def _weighted_by_rows(micro_batches):
    rows = sum(len(labels) for _, labels in micro_batches)
    return sum(sft_loss(logits, labels) * len(labels) for logits, labels in micro_batches) / rows


@mistake(ACCUMULATED, "The micro-batch means are added up and never averaged: with k micro-batches the gradient would be about k times too big.")  # fmt: skip
def _sum_of_means(micro_batches):
    return sum(sft_loss(*batch) for batch in micro_batches)


@mistake(ACCUMULATED, "The sums are divided by the number of micro-batches. The loss is per trained token: count the tokens.")  # fmt: skip
def _sums_over_batches(micro_batches):
    return _sum_of_sums(micro_batches) / len(micro_batches)


@mistake(ACCUMULATED, "This is the sum over all trained tokens. It still has to be divided by their number.")  # fmt: skip
def _sum_of_sums(micro_batches):
    return sum(_summed(*batch) for batch in micro_batches)


@mistake(ACCUMULATED, "The count is too big: the first token of a row has no forecast, so its label is never scored and must not be counted.")  # fmt: skip
def _over_trained_labels(micro_batches):
    labels = [labels for _, labels in micro_batches]
    return _sum_of_sums(micro_batches) / sum((y != IGNORE_INDEX).sum() for y in labels)


@mistake(ACCUMULATED, "Divided by all positions, masked ones included. Count the targets that are not -100.")  # fmt: skip
def _all_positions(micro_batches):
    return _sum_of_sums(micro_batches) / sum(y[:, 1:].numel() for _, y in micro_batches)


@mistake(ACCUMULATED, "Divided by the number of all labels, masked ones included. Count the targets that are not -100.")  # fmt: skip
def _all_labels(micro_batches):
    return _sum_of_sums(micro_batches) / sum(y.numel() for _, y in micro_batches)


@mistake(ACCUMULATED, "The sum runs over all micro-batches, but the count is that of the last one alone. Both have to be accumulated.")  # fmt: skip
def _count_overwritten(micro_batches):
    return _sum_of_sums(micro_batches) / trained_tokens(micro_batches[-1][1])


@mistake(ACCUMULATED, "Only the last micro-batch is in the result: the ones before it were overwritten.")  # fmt: skip
def _last_alone(micro_batches):
    return sft_loss(*micro_batches[-1])


@mistake(ACCUMULATED, "Only the first micro-batch is in the result: does it return inside the loop?")  # fmt: skip
def _first_alone(micro_batches):
    return sft_loss(*micro_batches[0])


def _accumulated_case(batches: list[list[list[int]]], remark: str) -> Case:
    shown = " and ".join(f"`{labels}`" for labels in batches)
    return Case(
        f"`accumulated_loss(micro_batches)` with labels {shown}: {remark}",
        lambda: ([_batch(labels, seed=seed) for seed, labels in enumerate(batches)],),
        accumulated_loss,
        TOLERANCE,
    )


LONG = [[IGNORE_INDEX, 1, 3, 0, 4, 2], [IGNORE_INDEX, IGNORE_INDEX, 2, 1, 1, 3]]
SHORT = [[IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 2, IGNORE_INDEX, IGNORE_INDEX]]
MIDDLE = [[2, 1, 4, IGNORE_INDEX, IGNORE_INDEX]]
NOTHING = [[IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX]]
ACCUMULATED_CASES = (
    _accumulated_case([LONG, SHORT], "9 trained tokens and 1"),
    _accumulated_case([SHORT, MIDDLE, LONG], "three of different size"),
    _accumulated_case([LONG], "a single micro-batch"),
    _accumulated_case([LONG, NOTHING, SHORT], "one of them trains nothing"),
)

EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            LOSS,
            "The SFT loss",
            sft_loss,
            SFT_CASES,
            hints=(
                "The logits at position t forecast token t+1. Which logits have no target, and "
                "which label has no forecast?",
                "Turn logits into log-probabilities over the vocabulary, then pick at every "
                "position the one of its target (`gather` needs an index that exists, so give the "
                "masked positions any valid one).",
                "Set the masked positions to 0, add everything up, and divide by the number of "
                "targets that are not -100.",
            ),
            why="The sum and the count are kept apart until the last line: that is what makes it "
            "possible to split a batch and still get the same loss. `log_softmax` subtracts the "
            "largest logit before it exponentiates, so no logit is too large. With nothing to "
            "train the result is NaN and not 0, because 0 would look like a perfect fit.",
            shows=(token_nll,),
        ),
        Exercise(
            ACCUMULATED,
            "The same loss from micro-batches",
            accumulated_loss,
            ACCUMULATED_CASES,
            hints=(
                "Compare a micro-batch that trains 9 tokens with one that trains 1: how much "
                "should each token weigh?",
                "Carry two numbers through the loop: a sum of losses, and a count of tokens.",
                "Divide once, after the loop.",
            ),
            why="How a batch is cut is a matter of memory and must not change what is learned. "
            "Every trained token weighs 1/N, with N counted over all micro-batches. A mean of "
            "micro-batch means gives a token in a short micro-batch more weight, and the gradient "
            "then points elsewhere.",
        ),
    )
}
