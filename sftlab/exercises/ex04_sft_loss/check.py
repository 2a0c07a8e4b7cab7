"""Checks of notebook 04: the loss of each token, their mean, and the same mean from micro-batches."""

from __future__ import annotations

import math
import random
from functools import reduce

import torch
import torch.nn.functional as F

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.drawing import batch
from sftlab.loss import (
    IGNORE_INDEX,
    accumulated_loss,
    mean_of_means,
    sft_loss,
    token_nll,
    trained_tokens,
)

NLL, LOSS, ACCUMULATED = "04.token_nll", "04.sft_loss", "04.accumulated_loss"
TOLERANCE = 1e-5
M = IGNORE_INDEX


def _batch(
    labels: list[list[int]],
    vocabulary: int = 5,
    scale: float = 1.5,
    seed: int = 0,
    graph: bool = False,
):
    """Return logits, the same each time, and the labels."""
    labels = torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(*labels.shape, vocabulary, generator=generator)
    return logits.requires_grad_(graph), labels


# --- the loss of each token ------------------------------------------------------------------


def _picked(scores, labels):
    """What ``scores`` says of each token that is trained, at the position before it."""
    trained = labels[:, 1:] != IGNORE_INDEX
    return scores[:, : labels.shape[1] - 1][trained].gather(-1, labels[:, 1:][trained][:, None])


def _entries(scores, targets):
    """What ``scores`` (batch, n, vocabulary) says of each target (batch, n); 0 where it is -100."""
    found = scores.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return found.where(targets != IGNORE_INDEX, 0.0)


UNSHIFTED = "The shift is missing: the logits at position t predict token t + 1, but here they are compared with token t."  # fmt: skip
BACK = "The shift goes the wrong way: each token is compared with a prediction made after it was read. The prediction of token t + 1 is at position t."  # fmt: skip
SIGN = "The minus sign is missing: log-probabilities are never positive, and a loss is what training makes smaller."  # fmt: skip
ZERO = "Token 0 is left out. 0 is an id like any other; only -100 stands for a masked label."
RAW = "The logits are used as if they were log-probabilities. They become that only after normalizing over the vocabulary."  # fmt: skip
DIMENSION = "Normalized over the wrong dimension: the probabilities of one position add up to 1 over the vocabulary, which is the last dimension."  # fmt: skip
BITS = "These are bits: the logarithm has base 2. The loss is in nats, with the natural logarithm."
UNDERFLOW = "With large logits this fails: a tiny probability is rounded to 0, and its log is infinite. Compute the log-probabilities in one step that never forms the probability."  # fmt: skip
OVERFLOW = "With large logits this overflows: exp becomes infinite, and infinite over infinite is NaN. Compute the log-probabilities in one step that never forms the probability."  # fmt: skip
EPSILON = "A small number is added inside the logarithm: it hides how improbable a token is. Compute the log-probabilities in one step."  # fmt: skip
NOT_MASKED = "The mask is ignored: labels of -100 count as if they were token 0. Only positions whose label is not -100 count."  # fmt: skip


@mistake(NLL, UNSHIFTED)
def _nll_unshifted(logits, labels):
    return -_entries(logits.log_softmax(-1), labels)


@mistake(NLL, UNSHIFTED)
def _nll_unshifted_and_cut(logits, labels):
    return -_entries(logits.log_softmax(-1), labels)[:, :-1]


@mistake(NLL, BACK)
def _nll_shifted_back(logits, labels):
    return -_entries(logits[:, 1:].log_softmax(-1), labels[:, :-1])


@mistake(NLL, "There is one entry too many: the logits at the last position predict a token that is not in the sequence. Cut them off.")  # fmt: skip
def _nll_one_too_many(logits, labels):
    return F.pad(token_nll(logits, labels), (0, 1))


@mistake(NLL, "There is an entry for the first token, but no logits predict it: the result is one position shorter than labels.")  # fmt: skip
def _nll_first_token_too(logits, labels):
    return F.pad(token_nll(logits, labels), (1, 0))


@mistake(NLL, NOT_MASKED)
def _nll_not_masked(logits, labels):
    return token_nll(logits, labels.clamp(min=0))


@mistake(NLL, "The mask is not shifted with the labels: an entry is 0 where the label *before* its target is -100.")  # fmt: skip
def _nll_mask_unshifted(logits, labels):
    found = token_nll(logits, labels.clamp(min=0))
    return found.where(labels[:, :-1] != IGNORE_INDEX, 0.0)


@mistake(NLL, "The masked positions were removed, and all sequences joined in one row. Keep every position, with 0 where nothing is trained.")  # fmt: skip
def _nll_trained_alone(logits, labels):
    return token_nll(logits, labels)[labels[:, 1:] != IGNORE_INDEX]


@mistake(NLL, "This is the mean. Here every token keeps its own number; the mean follows in 4b.")
def _nll_mean(logits, labels):
    return sft_loss(logits, labels)


@mistake(NLL, SIGN)
def _nll_sign_missing(logits, labels):
    return -token_nll(logits, labels)


@mistake(NLL, ZERO)
def _nll_id_zero_masked(logits, labels):
    return token_nll(logits, labels.masked_fill(labels == 0, IGNORE_INDEX))


@mistake(NLL, "The log is missing: these are probabilities. The loss is made of log-probabilities.")
def _nll_probabilities(logits, labels):
    return _entries(logits[:, :-1].softmax(-1), labels[:, 1:])


@mistake(NLL, "The log is missing: these are probabilities, subtracted from 1. The loss is made of log-probabilities.")  # fmt: skip
def _nll_one_less_probability(logits, labels):
    probabilities = _entries(logits[:, :-1].softmax(-1), labels[:, 1:])
    return (1 - probabilities).where(labels[:, 1:] != IGNORE_INDEX, 0.0)


@mistake(NLL, RAW)
def _nll_raw_logits(logits, labels):
    return -_entries(logits[:, :-1], labels[:, 1:])


@mistake(NLL, DIMENSION)
def _nll_wrong_dimension(logits, labels):
    return -_entries(logits[:, :-1].log_softmax(1), labels[:, 1:])


@mistake(NLL, BITS)
def _nll_base_2(logits, labels):
    return token_nll(logits, labels) / math.log(2)


@mistake(NLL, UNDERFLOW)
def _nll_softmax_then_log(logits, labels):
    return -_entries(logits[:, :-1].softmax(-1).log(), labels[:, 1:])


@mistake(NLL, EPSILON)
def _nll_epsilon(logits, labels):
    return -_entries((logits[:, :-1].softmax(-1) + 1e-8).log(), labels[:, 1:])


@mistake(NLL, OVERFLOW)
def _nll_exp_then_log(logits, labels):
    weights = logits[:, :-1].exp()
    return -_entries((weights / weights.sum(-1, keepdim=True)).log(), labels[:, 1:])


# --- the loss -------------------------------------------------------------------------------


@mistake(LOSS, UNSHIFTED)
def _unshifted(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


@mistake(LOSS, UNSHIFTED)
def _both_cut_at_the_end(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, :-1].flatten())


@mistake(LOSS, BACK)
def _shifted_back(logits, labels):
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten())


@mistake(LOSS, "Shifted twice: the logits at position t are compared with token t + 2. The labels come unshifted; one step is enough.")  # fmt: skip
def _shifted_twice(logits, labels):
    return F.cross_entropy(logits[:, :-2].flatten(0, 1), labels[:, 2:].flatten())


@mistake(LOSS, "The labels are rolled, so the last logits of a sequence are compared with its first token. They have no label: cut both off.")  # fmt: skip
def _rolled(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.roll(-1, 1).flatten())


FLATTENED = "The batch is flattened and only then shifted, so the last logits of a sequence are compared with the first token of the next one. Shift within each sequence."  # fmt: skip


@mistake(LOSS, FLATTENED)
def _flattened_then_shifted(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1)[:-1], labels.flatten()[1:])


@mistake(LOSS, FLATTENED)
def _flattened_then_rolled(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten().roll(-1))


@mistake(LOSS, "The last token of each sequence is left out, often the end-of-turn token. Its prediction stands one position before it and counts.")  # fmt: skip
def _last_label_left_out(logits, labels):
    return F.cross_entropy(logits[:, :-2].flatten(0, 1), labels[:, 1:-1].flatten())


@mistake(LOSS, "Positions and vocabulary are mixed up: `reshape` and `view` keep the order of the numbers in memory. To exchange two dimensions, transpose them.")  # fmt: skip
def _reshaped(logits, labels):
    rows, length, vocabulary = logits.shape
    return F.cross_entropy(logits[:, :-1].reshape(rows, vocabulary, length - 1), labels[:, 1:])


@mistake(LOSS, "The labels are smoothed: other tokens than the right one have a share in the loss. The loss asks for the right token's probability alone.")  # fmt: skip
def _label_smoothing(logits, labels):
    predicted = logits[:, :-1].flatten(0, 1)
    return F.cross_entropy(predicted, labels[:, 1:].flatten(), label_smoothing=0.1)


@mistake(LOSS, "Everything from the first trained token on counts: masked labels after it are taken for token 0. Look at each label by itself.")  # fmt: skip
def _gaps_trained(logits, labels):
    begun = (labels[:, 1:] != IGNORE_INDEX).int().cummax(1).values.bool()
    nll = token_nll(logits, labels.clamp(min=0))
    return nll[begun].mean()


@mistake(LOSS, "The mask is not shifted with the labels: a position is masked where the label *before* its target is -100.")  # fmt: skip
def _mask_unshifted(logits, labels):
    nll, mask = token_nll(logits, labels.clamp(min=0)), labels[:, :-1] != IGNORE_INDEX
    return nll[mask].mean()


@mistake(LOSS, NOT_MASKED)
def _not_masked(logits, labels):
    return sft_loss(logits, labels.clamp(min=0))


@mistake(LOSS, "The sum is right, but the count is too large: no logits predict the first token of a sequence, so its label is never scored and must not be counted.")  # fmt: skip
def _over_all_trained_labels(logits, labels):
    return _summed(logits, labels) / (labels != IGNORE_INDEX).sum()


@mistake(LOSS, "The sum is divided by the number of all positions, masked ones included. The mean is over the trained tokens alone.")  # fmt: skip
def _over_all_positions(logits, labels):
    return token_nll(logits, labels).mean()


@mistake(LOSS, "The sum is divided by the number of all labels, masked ones included. The mean is over the trained tokens alone.")  # fmt: skip
def _over_all_labels(logits, labels):
    return _summed(logits, labels) / labels.numel()


PER_TOKEN = "This is one number for each position. The loss is one number: the mean over the trained tokens."  # fmt: skip


@mistake(LOSS, PER_TOKEN)
def _per_token(logits, labels):
    return token_nll(logits, labels)


@mistake(LOSS, PER_TOKEN)
def _per_token_in_one_row(logits, labels):
    return token_nll(logits, labels).flatten()


SUM = "This is the sum over the trained tokens. The loss is their mean: what is it divided by?"


@mistake(LOSS, SUM)
def _summed(logits, labels):
    return token_nll(logits, labels).sum()


@mistake(LOSS, SUM)
def _summed_or_nan(logits, labels):
    return sft_loss(logits, labels) * trained_tokens(labels)


@mistake(LOSS, "The sum is divided by the number of sequences. The loss is a mean per trained token, so a long answer weighs more than a short one.")  # fmt: skip
def _per_sequence(logits, labels):
    return _summed(logits, labels) / len(labels)


@mistake(LOSS, "The means of the sequences are averaged: a token in a short answer weighs more than one in a long answer. Sum over the whole batch, count over the whole batch, divide once.")  # fmt: skip
def _mean_of_sequence_means(logits, labels):
    rows = zip(logits.split(1), labels.split(1), strict=True)
    return torch.stack([sft_loss(*row) for row in rows]).mean()


@mistake(LOSS, "Only the first sequence is in the result. The mean is over all of the batch.")
def _first_sequence(logits, labels):
    return sft_loss(logits[:1], labels[:1])


@mistake(LOSS, "The tokens whose loss isn't 0 are counted. A token that is predicted with certainty has the loss 0, and counts.")  # fmt: skip
def _nonzero_losses_counted(logits, labels):
    terms = token_nll(logits, labels)
    return terms.sum() / (terms != 0).sum()


@mistake(LOSS, SIGN)
def _sign_missing(logits, labels):
    return -sft_loss(logits, labels)


@mistake(LOSS, ZERO)
def _id_zero_masked(logits, labels):
    return sft_loss(logits, labels.masked_fill(labels == 0, IGNORE_INDEX))


@mistake(LOSS, UNDERFLOW)
def _softmax_then_log(logits, labels):
    return -_picked(logits.softmax(-1), labels).log().mean()


@mistake(LOSS, EPSILON)
def _epsilon(logits, labels):
    return -(_picked(logits.softmax(-1), labels) + 1e-8).log().mean()


@mistake(LOSS, OVERFLOW)
def _exp_then_log(logits, labels):
    weights = logits.exp()
    return -_picked(weights / weights.sum(-1, keepdim=True), labels).log().mean()


@mistake(LOSS, "Softmax is applied twice: the probabilities are given to a function that expects raw logits. Look at what `cross_entropy` or `log_softmax` takes.")  # fmt: skip
def _softmax_twice(logits, labels):
    return sft_loss(logits.softmax(-1), labels)


@mistake(LOSS, "The log is missing: this is the mean probability of the right tokens. The loss is made of log-probabilities.")  # fmt: skip
def _probability(logits, labels):
    return _picked(logits.softmax(-1), labels).mean()


@mistake(LOSS, "The log is missing: this is the mean probability with a minus sign. The loss is made of log-probabilities.")  # fmt: skip
def _negative_probability(logits, labels):
    return -_picked(logits.softmax(-1), labels).mean()


@mistake(LOSS, RAW)
def _raw_logits(logits, labels):
    return -_picked(logits, labels).mean()


@mistake(LOSS, DIMENSION)
def _wrong_dimension(logits, labels):
    return -_picked(logits[:, :-1].log_softmax(1), labels).mean()


@mistake(LOSS, BITS)
def _base_2(logits, labels):
    return sft_loss(logits, labels) / math.log(2)


@mistake(LOSS, "This is the perplexity, exp(loss). Return the loss itself.")
def _perplexity(logits, labels):
    return sft_loss(logits, labels).exp()


@mistake(LOSS, "With no trained token there is no mean: the result is NaN, as in `F.cross_entropy`. A 0 would look like a perfect fit.")  # fmt: skip
def _zero_for_nothing(logits, labels):
    return _summed(logits, labels) / trained_tokens(labels).clamp(min=1)


def _nll_case(rule: str, labels: list[list[int]], remark: str, **how) -> Case:
    size = f"{len(labels)} × {len(labels[0])} × {how.get('vocabulary', 5)}"
    return Case(
        f"`token_nll(logits, labels)` with logits of {size} and labels `{labels}`: {remark}",
        lambda: _batch(labels, **how),
        token_nll,
        TOLERANCE,
        rule=rule,
    )


def _sft_case(rule: str, labels: list[list[int]], remark: str, **how) -> Case:
    size = f"{len(labels)} × {len(labels[0])} × {how.get('vocabulary', 5)}"
    return Case(
        f"`sft_loss(logits, labels)` with logits of {size} and labels `{labels}`: {remark}",
        lambda: _batch(labels, **how),
        sft_loss,
        TOLERANCE,
        rule=rule,
    )


UNEQUAL = [[M, 1, 3, 2, 4, 2], [M, M, M, 2, M, M]]
SFT_CASES = (
    _sft_case("mean", [[M, M, 2, 3, 1, 4, 2]], "two tokens of prompt, five of response"),
    _sft_case("shift", [[2, 1, 4, 3]], "no prompt at all", seed=3),
    _sft_case("shift", [[M, 2, 3], [4, 0, 1]], "the second sequence has no prompt", seed=8),
    _sft_case("mask", [[M, M, 0, 3, 0, 1]], "the answer contains token 0", seed=2),
    _sft_case("mask", [[M, 1, 3, M, M, 4, 2]], "two answers and a prompt between them", seed=6),
    _sft_case("mean", UNEQUAL, "answers of five tokens and of one", vocabulary=7, seed=1),
    _sft_case("gradient", UNEQUAL, "logits that require gradients", seed=1, graph=True),
    _sft_case("large", [[M, M, 1, 3, 2, 4]], "logits in the hundreds", scale=400.0, seed=4),
    _sft_case(
        "mean",
        [[M, 2, 0, 1, 2, 0]],
        "large logits, so one token has the loss 0",
        vocabulary=3,
        scale=400.0,
        seed=1,
    ),
    _sft_case("none", [[M, M, M, M]], "nothing is trained"),
)


NLL_CASES = (
    _nll_case("shift", [[2, 1, 4, 3]], "no prompt at all", seed=3),
    _nll_case("mask", [[M, M, 0, 3, 0, 1]], "the answer contains token 0", seed=2),
    _nll_case("mask", [[M, 1, 3, M, M, 4, 2]], "two answers and a prompt between them", seed=6),
    _nll_case("mask", UNEQUAL, "answers of five tokens and of one", vocabulary=7, seed=1),
    _nll_case("large", [[M, M, 1, 3, 2, 4]], "logits in the hundreds", scale=400.0, seed=4),
    _nll_case("mask", [[M, M, M, M]], "nothing is trained"),
    _nll_case("gradient", UNEQUAL, "logits that require gradients", seed=1, graph=True),
)


def _draw_batch(rng: random.Random, *_: object) -> tuple:
    return batch(rng, rng.randint(3, 11))


# --- the same from micro-batches ---------------------------------------------------------------


@mistake(ACCUMULATED, "This is NaN because one micro-batch has no trained token: its mean is NaN, and NaN × 0 is NaN. Work with sums and counts; never compute the mean of a micro-batch.")  # fmt: skip
def _weighted_means(micro_batches):
    means = [sft_loss(*batch) * trained_tokens(batch[1]) for batch in micro_batches]
    return sum(means) / sum(trained_tokens(labels) for _, labels in micro_batches)


def _that_train(micro_batches):
    return [batch for batch in micro_batches if trained_tokens(batch[1])]


MEANS = "The means of the micro-batches are averaged, so each micro-batch weighs the same, however many tokens it trains. Sum everything, count everything, divide once."  # fmt: skip


@mistake(ACCUMULATED, MEANS)
def _mean_of_means(micro_batches):
    return mean_of_means(micro_batches)


@mistake(ACCUMULATED, MEANS)
def _mean_of_those_that_train(micro_batches):
    return torch.stack([sft_loss(*batch) for batch in micro_batches]).nanmean()


@mistake(ACCUMULATED, "The micro-batches are averaged two at a time, so the last one weighs half of all. Sum everything, count everything, divide once.")  # fmt: skip
def _averaged_in_pairs(micro_batches):
    losses = [sft_loss(*batch) for batch in _that_train(micro_batches)]
    return reduce(lambda so_far, loss: (so_far + loss) / 2, losses or [torch.tensor(math.nan)])


@mistake(ACCUMULATED, "The means of the sequences are averaged: a token in a short answer weighs more than one in a long answer. Sum everything, count everything, divide once.")  # fmt: skip
def _mean_of_all_sequences(micro_batches):
    rows = [
        row for batch in micro_batches for row in zip(*(t.split(1) for t in batch), strict=True)
    ]
    return torch.stack([sft_loss(*row) for row in rows]).nanmean()


SEQUENCES = "The micro-batches are weighted by their number of sequences. What counts is how many tokens each one trains."  # fmt: skip


@mistake(ACCUMULATED, SEQUENCES)
def _weighted_by_sequences(micro_batches):
    rows = sum(len(labels) for _, labels in micro_batches)
    return sum(sft_loss(logits, labels) * len(labels) for logits, labels in micro_batches) / rows


@mistake(ACCUMULATED, SEQUENCES)
def _weighted_by_sequences_where_any_train(micro_batches):
    return _weighted_by_sequences(_that_train(micro_batches) or micro_batches)


@mistake(ACCUMULATED, "The micro-batches are weighted by their size, masked tokens included. What counts is how many tokens each one trains.")  # fmt: skip
def _weighted_by_size(micro_batches):
    size = sum(y.numel() for _, y in micro_batches)
    return sum(sft_loss(logits, y) * y.numel() for logits, y in micro_batches) / size


@mistake(ACCUMULATED, "The means of the micro-batches are added up and never averaged: with k micro-batches the gradient is about k times too large.")  # fmt: skip
def _sum_of_means(micro_batches):
    return sum(sft_loss(*batch) for batch in micro_batches)


@mistake(ACCUMULATED, "The sum is divided by the number of micro-batches. The loss is per trained token: count the tokens.")  # fmt: skip
def _sums_over_batches(micro_batches):
    return _sum_of_sums(micro_batches) / len(micro_batches)


UNDIVIDED = "This is the sum over all trained tokens. It still has to be divided by their number."


@mistake(ACCUMULATED, UNDIVIDED)
def _sum_of_sums(micro_batches):
    return sum(_summed(*batch) for batch in micro_batches)


@mistake(ACCUMULATED, UNDIVIDED)
def _sum_of_sums_or_nan(micro_batches):
    return accumulated_loss(micro_batches) * sum(trained_tokens(y) for _, y in micro_batches)


@mistake(ACCUMULATED, ZERO)
def _id_zero_left_out(micro_batches):
    return accumulated_loss([(x, y.masked_fill(y == 0, IGNORE_INDEX)) for x, y in micro_batches])


@mistake(ACCUMULATED, "The count is too large: no logits predict the first token of a sequence, so its label is never scored and must not be counted.")  # fmt: skip
def _over_trained_labels(micro_batches):
    labels = [labels for _, labels in micro_batches]
    return _sum_of_sums(micro_batches) / sum((y != IGNORE_INDEX).sum() for y in labels)


@mistake(ACCUMULATED, "The sum is divided by the number of all positions, masked ones included. Count the trained tokens alone.")  # fmt: skip
def _all_positions(micro_batches):
    return _sum_of_sums(micro_batches) / sum(y[:, 1:].numel() for _, y in micro_batches)


@mistake(ACCUMULATED, "The sum is divided by the number of all labels, masked ones included. Count the trained tokens alone.")  # fmt: skip
def _all_labels(micro_batches):
    return _sum_of_sums(micro_batches) / sum(y.numel() for _, y in micro_batches)


@mistake(ACCUMULATED, "The sum runs over all micro-batches, but the count is that of the last one alone. Accumulate both.")  # fmt: skip
def _count_overwritten(micro_batches):
    return _sum_of_sums(micro_batches) / trained_tokens(micro_batches[-1][1])


@mistake(ACCUMULATED, "The count runs over all micro-batches, but the sum is that of the last one alone. Accumulate both.")  # fmt: skip
def _sum_overwritten(micro_batches):
    return _summed(*micro_batches[-1]) / sum(trained_tokens(y) for _, y in micro_batches)


@mistake(ACCUMULATED, "Only the last micro-batch is in the result: the ones before it were overwritten.")  # fmt: skip
def _last_alone(micro_batches):
    return sft_loss(*micro_batches[-1])


@mistake(ACCUMULATED, "Only the first micro-batch is in the result: does the function return inside the loop?")  # fmt: skip
def _first_alone(micro_batches):
    return sft_loss(*micro_batches[0])


@mistake(
    ACCUMULATED, "The shift is missing: the logits at position t predict token t + 1, as in 4b."
)
def _unshifted_too(micro_batches):
    return F.cross_entropy(
        torch.cat([logits.flatten(0, 1) for logits, _ in micro_batches]),
        torch.cat([labels.flatten() for _, labels in micro_batches]),
    )


@mistake(ACCUMULATED, "Each micro-batch is flattened and only then shifted, so the last logits of a sequence are compared with the first token of the next one. Shift within each sequence.")  # fmt: skip
def _flattened_before_the_shift(micro_batches):
    flat = [(logits.flatten(0, 1)[None], y.flatten()[None]) for logits, y in micro_batches]
    return accumulated_loss(flat)


@mistake(ACCUMULATED, "The micro-batches are joined and only then shifted, so the last logits of each are compared with the first token of the next.")  # fmt: skip
def _joined_before_the_shift(micro_batches):
    logits = torch.cat([logits.flatten(0, 1) for logits, _ in micro_batches])
    labels = torch.cat([labels.flatten() for _, labels in micro_batches])
    return sft_loss(logits[None], labels[None])


@mistake(ACCUMULATED, "If no micro-batch has a trained token, there is no mean: the result is NaN, as in 4b. A 0 would look like a perfect fit.")  # fmt: skip
def _zero_if_all_are_empty(micro_batches):
    count = sum(trained_tokens(labels) for _, labels in micro_batches)
    return _sum_of_sums(micro_batches) / count.clamp(min=1)


def _accumulated_case(rule: str, batches: list[list[list[int]]], remark: str, **how) -> Case:
    shown = " and ".join(f"`{labels}`" for labels in batches)
    return Case(
        f"`accumulated_loss(micro_batches)` with labels {shown}: {remark}",
        lambda: ([_batch(labels, seed=seed, **how) for seed, labels in enumerate(batches)],),
        accumulated_loss,
        TOLERANCE,
        rule=rule,
    )


FIVE, ONE = [[M, 1, 3, 0, 4, 2]], [[M, M, M, 2, M, M]]
NINE = [*FIVE, [M, M, 2, 1, 1, 3]]
NO_PROMPT = [[2, 1, 4, 3, M, M], [4, 0, 1, M, M, M]]
NOTHING = [[M, M, M, M, M, M]]
ACCUMULATED_CASES = (
    _accumulated_case("whole", [FIVE, ONE], "5 trained tokens and 1"),
    _accumulated_case("whole", [NINE, ONE], "9 trained tokens in two sequences, and 1"),
    _accumulated_case("whole", [FIVE], "a single micro-batch"),
    _accumulated_case("shift", [FIVE, NO_PROMPT], "two sequences have no prompt"),
    _accumulated_case("lengths", [ONE, [[M, 4, 1]], NINE], "three of different size and length"),
    _accumulated_case("gradient", [FIVE, ONE], "logits that require gradients", graph=True),
    _accumulated_case("large", [FIVE, ONE], "logits in the hundreds", scale=400.0),
    _accumulated_case("empty", [FIVE, NOTHING, ONE], "one of them trains nothing"),
    _accumulated_case("none", [NOTHING, NOTHING], "none of them trains anything"),
)


def _draw_batches(rng: random.Random, *_: object) -> tuple:
    vocabulary = rng.randint(3, 11)
    return ([batch(rng, vocabulary) for _ in range(rng.randint(2, 4))],)


SHIFT = "The logits at position t predict token t + 1. Nothing predicts the first token."
LARGE = "Logits in the hundreds or thousands give a finite result."
NAN = "Without any trained token the result is NaN, as in PyTorch."
EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            NLL,
            "The loss of each token",
            token_nll,
            NLL_CASES,
            asks="Return the negative log-probability of each label, in nats (natural logarithm).\n\n"
            "logits: (batch, length, vocabulary). labels: (batch, length), ids, not shifted.",
            rules={
                "shift": "Entry t is about token t + 1. Shape (batch, length - 1).",
                "mask": "An entry is 0 where the label of its token is -100. Id 0 is an id like others.",
                "large": LARGE,
                "gradient": "The result keeps its graph, because training calls backward().",
                "unchanged": "logits and labels stay as they are.",
            },
            draw=_draw_batch,
            hints=(
                "Bring logits and labels into line first: which logits belong to the label at position 3?",
                ("shift", "So both tensors lose one position: the logits at the end, the labels at the beginning."),
                "`log_softmax` over the vocabulary, then `gather` at each position the value of its target. `gather` needs an index that exists: "
                "give the masked positions any valid one, and set their entries to 0 afterwards.",
            ),
            path="Draft 1: `logits.log_softmax(-1)` turns scores into log-probabilities over the vocabulary. Draft 2: cut off the last logits and "
            "the first labels, so that entry t of one belongs to entry t of the other. Draft 3: `gather` the log-probability of each target; a label "
            "of -100 is no index, so put 0 in its place. Draft 4: set those entries to 0, and turn the sign. The usual wrong turn is `softmax` "
            "followed by `log`, which gives −∞ where a probability is rounded to 0.",
            why="`log_softmax` subtracts the largest logit before it exponentiates, so no logit is too large. Half precision would lose "
            "digits in the sum over the vocabulary, so it is computed in float32 at least.",
        ),
        Exercise(
            LOSS,
            "The SFT loss",
            sft_loss,
            SFT_CASES,
            asks="Return the mean negative log-probability of the trained tokens of a batch, in nats.\n\n"
            "logits, labels: as in 4a.",
            rules={
                "shift": SHIFT,
                "mask": "Labels of -100 do not count. Any other label does, id 0 as well.",
                "mean": "One mean over all trained tokens of the batch: no sum, no mean of sequences.",
                "large": LARGE,
                "none": NAN,
                "gradient": "The result is a scalar tensor with its graph: training calls backward().",
                "unchanged": "logits and labels stay as they are.",
            },
            draw=_draw_batch,
            hints=(
                "`token_nll` of 4a gives the terms. What is left is a sum and a count.",
                ("mean", "So count the labels that 4a scores: those that aren't -100, without the first label of each sequence."),
                "Or look at what `F.cross_entropy` ignores, and which shift it needs.",
            ),
            path="Take the terms of 4a: masked positions are 0 there, so their sum is right already. Count the labels that aren't -100, after the "
            "shift. Divide. The usual wrong turn is a mean too early: over all positions, or sequence by sequence.",
            why="The sum and the count are kept apart until the last line: that is what makes it "
            "possible to split a batch and still get the same loss. With nothing to train the "
            "result is NaN and not 0, because 0 would look like a perfect fit.",
            shows=(trained_tokens,),
        ),
        Exercise(
            ACCUMULATED,
            "The same loss from micro-batches",
            accumulated_loss,
            ACCUMULATED_CASES,
            asks="Return the loss of a batch that was split into micro-batches: what 4b gives for the whole.\n\n"
            "micro_batches: a list of (logits, labels), at least one, each as in 4a.",
            rules={
                "whole": "Each trained token weighs the same, whichever micro-batch it is in.",
                "shift": SHIFT,
                "lengths": "Micro-batches can differ in their number of sequences and in length.",
                "large": LARGE,
                "empty": "A micro-batch without a trained token changes nothing.",
                "none": NAN,
                "gradient": "The result is a scalar tensor with its graph to every micro-batch: training calls backward().",
                "unchanged": "The list and the tensors in it stay as they are.",
            },
            draw=_draw_batches,
            hints=(
                "Compare a micro-batch that trains 9 tokens with one that trains 1: how much should each token weigh?",
                ("whole", "So carry two numbers through the loop: a sum of losses, and a count of tokens."),
                "Divide once, after the loop. A division inside it forms the mean of a micro-batch.",
            ),
            path="Write the loss of the whole batch as one fraction. The sum above and the count below can both be collected piece by piece; the "
            "fraction cannot. So the loop adds to two numbers, and the division comes last. The usual wrong turn is to call the loss of 4b "
            "for each micro-batch and average: that is right only if all train equally many tokens.",
            why="How a batch is split is a matter of memory and must not change what is learned. "
            "Every trained token weighs 1/N, with N counted over all micro-batches. A mean of "
            "micro-batch means gives a token in a short micro-batch more weight, and the gradient "
            "then points in another direction.",
        ),
    )
}  # fmt: skip
