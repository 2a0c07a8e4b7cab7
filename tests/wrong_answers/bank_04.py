"""Answers to the checks of notebook 04, as students write them."""

import math

import torch
import torch.nn.functional as F

IGNORE_INDEX = -100


def by_cross_entropy(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def by_loops(logits, labels):
    total, count = 0.0, 0
    for row in range(labels.shape[0]):
        for t in range(labels.shape[1] - 1):
            target = labels[row, t + 1].item()
            if target == IGNORE_INDEX:
                continue
            total = total + logits[row, t].logsumexp(0) - logits[row, t, target]
            count += 1
    return total / count if count else logits.sum() * math.nan


def by_boolean_index(logits, labels):
    keep = labels[:, 1:] != IGNORE_INDEX
    chosen = logits[:, :-1][keep].double().log_softmax(-1)
    return -chosen[torch.arange(len(chosen)), labels[:, 1:][keep]].mean()


def unshifted(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def shifted_back(logits, labels):
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten())


def shifted_twice(logits, labels):
    labels = labels[:, 1:]
    return F.cross_entropy(logits[:, :-2].flatten(0, 1), labels[:, 1:].flatten())


def mask_ignored(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].clamp(min=0).flatten())


def mean_over_all_positions(logits, labels):
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none"
    )
    return losses.mean()


def sum_without_mean(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


def sum_over_rows(logits, labels):
    return sum_without_mean(logits, labels) / labels.shape[0]


def mean_of_row_means(logits, labels):
    losses = [by_cross_entropy(x[None], y[None]) for x, y in zip(logits, labels)]
    return torch.stack(losses).mean()


def counts_first_label(logits, labels):
    return sum_without_mean(logits, labels) / (labels != -100).sum()


def sign_missing(logits, labels):
    keep = labels[:, 1:] != IGNORE_INDEX
    chosen = logits[:, :-1][keep].log_softmax(-1)
    return chosen.gather(1, labels[:, 1:][keep][:, None]).mean()


def log_of_softmax(logits, labels):
    keep = labels[:, 1:] != IGNORE_INDEX
    probabilities = logits[:, :-1][keep].softmax(-1)
    return -probabilities.gather(1, labels[:, 1:][keep][:, None]).log().mean()


def softmax_before_cross_entropy(logits, labels):
    return F.cross_entropy(logits[:, :-1].softmax(-1).flatten(0, 1), labels[:, 1:].flatten())


def forgets_log(logits, labels):
    keep = labels[:, 1:] != IGNORE_INDEX
    probabilities = logits[:, :-1][keep].softmax(-1)
    return -probabilities.gather(1, labels[:, 1:][keep][:, None]).mean()


def forgets_softmax(logits, labels):
    keep = labels[:, 1:] != IGNORE_INDEX
    return -logits[:, :-1][keep].gather(1, labels[:, 1:][keep][:, None]).mean()


def zero_is_padding(logits, labels):
    targets = labels[:, 1:]
    keep = targets > 0
    return F.cross_entropy(logits[:, :-1][keep], targets[keep])


def in_bits(logits, labels):
    return by_cross_entropy(logits, labels) / math.log(2)


def perplexity(logits, labels):
    return by_cross_entropy(logits, labels).exp()


def graph_lost_by_item(logits, labels):
    return by_cross_entropy(logits, labels).item()


def graph_lost_by_detach(logits, labels):
    return by_cross_entropy(logits.detach(), labels)


def list_of_losses(logits, labels):
    return [by_cross_entropy(logits, labels)]


def per_token(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")


def labels_changed_in_place(logits, labels):
    labels[labels == IGNORE_INDEX] = IGNORE_INDEX
    labels[:, 0] = IGNORE_INDEX
    result = by_cross_entropy(logits, labels)
    labels.fill_(IGNORE_INDEX)
    return result


def nothing_returned(logits, labels):
    by_cross_entropy(logits, labels)


def guarded_zero(logits, labels):
    count = (labels[:, 1:] != IGNORE_INDEX).sum().clamp(min=1)
    return sum_without_mean(logits, labels) / count


def token_weighted(micro_batches):
    total = sum(sum_without_mean(logits, labels) for logits, labels in micro_batches)
    return total / sum((labels[:, 1:] != IGNORE_INDEX).sum() for _, labels in micro_batches)


def weights_known_first(micro_batches):
    batches = list(micro_batches)
    total = 0
    for _, labels in batches:
        total += int((labels[:, 1:] != IGNORE_INDEX).sum())
    loss = 0.0
    for logits, labels in batches:
        loss = loss + sum_without_mean(logits, labels) / total
    return loss


def all_in_one_list(micro_batches):
    forecasts = torch.cat([logits[:, :-1].flatten(0, 1) for logits, _ in micro_batches])
    return F.cross_entropy(forecasts, torch.cat([y[:, 1:].flatten() for _, y in micro_batches]))


def mean_of_means(micro_batches):
    return torch.stack([by_cross_entropy(*batch) for batch in micro_batches]).mean()


def sum_of_means(micro_batches):
    return sum(by_cross_entropy(*batch) for batch in micro_batches)


def sum_of_sums(micro_batches):
    return sum(sum_without_mean(*batch) for batch in micro_batches)


def sum_over_batches(micro_batches):
    return sum_of_sums(micro_batches) / len(micro_batches)


def weighted_by_rows(micro_batches):
    rows = sum(len(labels) for _, labels in micro_batches)
    return sum(by_cross_entropy(x, y) * len(y) for x, y in micro_batches) / rows


def mean_times_count(micro_batches):
    total, count = 0, 0
    for logits, labels in micro_batches:
        n = (labels[:, 1:] != IGNORE_INDEX).sum()
        total = total + by_cross_entropy(logits, labels) * n
        count = count + n
    return total / count


def counts_every_label(micro_batches):
    return sum_of_sums(micro_batches) / sum(labels.numel() for _, labels in micro_batches)


def counts_first_labels(micro_batches):
    return sum_of_sums(micro_batches) / sum((y != IGNORE_INDEX).sum() for _, y in micro_batches)


def overwrites(micro_batches):
    for logits, labels in micro_batches:
        loss = by_cross_entropy(logits, labels)
    return loss


def returns_in_loop(micro_batches):
    for logits, labels in micro_batches:
        return by_cross_entropy(logits, labels)


def count_overwritten(micro_batches):
    total = 0
    for logits, labels in micro_batches:
        total = total + sum_without_mean(logits, labels)
        count = (labels[:, 1:] != IGNORE_INDEX).sum()
    return total / count


def accumulates_items(micro_batches):
    total, count = 0.0, 0
    for logits, labels in micro_batches:
        total += sum_without_mean(logits, labels).item()
        count += (labels[:, 1:] != IGNORE_INDEX).sum().item()
    return total / count


def empties_the_list(micro_batches):
    result = token_weighted(micro_batches)
    micro_batches.clear()
    return result


WRONG = {
    "04.sft_loss": {
        "no shift": (unshifted, "shift is missing"),
        "shifted the wrong way": (shifted_back, "wrong way"),
        "shifted twice": (shifted_twice, "Shifted twice"),
        "mask ignored": (mask_ignored, "mask is ignored"),
        "mean over all positions": (mean_over_all_positions, "Divided by all positions"),
        "sum": (sum_without_mean, "This is the sum"),
        "divided by the rows": (sum_over_rows, "number of rows"),
        "mean of row means": (mean_of_row_means, "mean of row means"),
        "first label counted": (counts_first_label, "the count is too big"),
        "sign missing": (sign_missing, "minus sign"),
        "softmax, then log": (log_of_softmax, "overflows"),
        "softmax, then cross entropy": (softmax_before_cross_entropy, "Softmax is applied twice"),
        "log forgotten": (forgets_log, "log is missing"),
        "softmax forgotten": (forgets_softmax, "as if they were log-probabilities"),
        "token 0 taken for padding": (zero_is_padding, "Token 0 is left out"),
        "bits": (in_bits, "bits"),
        "perplexity": (perplexity, "perplexity"),
        "item()": (graph_lost_by_item, "plain number: its graph is lost"),
        "detach()": (graph_lost_by_detach, "values are right, but the graph is lost"),
        "a list": (list_of_losses, "of type list"),
        "one loss per token": (per_token, "has the shape (6,)"),
        "labels overwritten": (labels_changed_in_place, "changes its own input (argument 2)"),
        "no return": (nothing_returned, "is a return missing?"),
        "0 where nothing is trained": (guarded_zero, "A 0 would look like a perfect fit"),
    },
    "04.accumulated_loss": {
        "mean of means": (mean_of_means, "mean of means"),
        "sum of means": (sum_of_means, "never averaged"),
        "sum": (sum_of_sums, "sum over all trained tokens"),
        "divided by the micro-batches": (sum_over_batches, "number of micro-batches"),
        "weighted by rows": (weighted_by_rows, "weighted by their rows"),
        "mean times count": (mean_times_count, "NaN × 0"),
        "every label counted": (counts_every_label, "number of all labels"),
        "first labels counted": (counts_first_labels, "The count is too big"),
        "loss overwritten": (overwrites, "Only the last micro-batch"),
        "returned too early": (returns_in_loop, "Only the first micro-batch"),
        "count overwritten": (count_overwritten, "the count is that of the last one"),
        "item()": (accumulates_items, "graph is lost"),
        "input emptied": (empties_the_list, "changes its own input (argument 1)"),
    },
}
RIGHT = {
    "04.sft_loss": {
        "cross entropy": by_cross_entropy,
        "loops": by_loops,
        "boolean index": by_boolean_index,
    },
    "04.accumulated_loss": {
        "two sums": token_weighted,
        "total first": weights_known_first,
        "joined": all_in_one_list,
    },
}
