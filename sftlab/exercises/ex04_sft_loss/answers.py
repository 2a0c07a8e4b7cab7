"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
from functools import reduce

import torch
import torch.nn.functional as F

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.loss import IGNORE_INDEX

NLL, LOSS, ACCUMULATED = "04.token_nll", "04.sft_loss", "04.accumulated_loss"


@right(NLL)
def nll_by_cross_entropy(logits, labels):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")


@right(NLL)
def nll_by_gather(logits, labels):
    targets = labels[:, 1:]
    chosen = logits[:, :-1].log_softmax(-1).gather(2, targets.clamp(min=0)[..., None])[..., 0]
    return torch.where(targets == IGNORE_INDEX, torch.zeros_like(chosen), -chosen)


@right(NLL)
def nll_by_logsumexp(logits, labels):
    logits, targets = logits[:, :-1].double(), labels[:, 1:]
    kept = (targets != IGNORE_INDEX).double()
    own = torch.take_along_dim(logits, (targets * kept.long())[:, :, None], dim=2).squeeze(2)
    return (logits.logsumexp(2) - own) * kept


@right(NLL)
def nll_by_loops(logits, labels):
    rows = []
    for row, targets in zip(logits, labels, strict=True):
        found = []
        for t, target in enumerate(targets[1:].tolist()):
            nothing = row[t].sum() * 0
            found.append(nothing if target == IGNORE_INDEX else -row[t].log_softmax(0)[target])
        rows.append(torch.stack(found))
    return torch.stack(rows)


@refused(NLL, "because training calls backward()")
def nll_as_lists(logits, labels):
    return nll_by_cross_entropy(logits, labels).tolist()


@refused(NLL, "changes its own input (argument 2")
def nll_labels_overwritten(logits, labels):
    result = nll_by_cross_entropy(logits, labels)
    labels[labels == IGNORE_INDEX] = 0
    return result


@right(LOSS)
def by_cross_entropy(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@right(LOSS)
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


@right(LOSS)
def by_boolean_index(logits, labels):
    keep = labels[:, 1:] != IGNORE_INDEX
    chosen = logits[:, :-1][keep].double().log_softmax(-1)
    return -chosen[torch.arange(len(chosen)), labels[:, 1:][keep]].mean()


@right(LOSS)
def by_moved_labels(logits, labels):
    """The labels move one place to the left, as libraries do it; none is left for the last."""
    moved = F.pad(labels, (0, 1), value=IGNORE_INDEX)[:, 1:]
    return torch.nn.NLLLoss(ignore_index=IGNORE_INDEX)(
        logits.log_softmax(-1).transpose(1, 2), moved
    )


@right(LOSS)
def by_one_hot(logits, labels):
    targets = labels[:, 1:]
    kept = (targets != IGNORE_INDEX).unsqueeze(-1)
    hot = F.one_hot(targets.clamp(min=0), logits.shape[-1]) * kept
    return -torch.einsum("btv,btv->", logits[:, :-1].log_softmax(-1), hot.float()) / kept.sum()


@right(LOSS)
def by_early_return(logits, labels):
    """log p is the logit less the logsumexp; nothing to train is a case of its own."""
    logits, targets = logits[:, :-1], labels[:, 1:]
    keep = targets != IGNORE_INDEX
    if not keep.any():
        return torch.tensor(math.nan)
    own = logits[keep].take_along_dim(targets[keep][:, None], dim=1)
    return (logits[keep].logsumexp(1) - own.squeeze(1)).mean()


@refused(LOSS, "of type float")
def graph_lost_by_item(logits, labels):
    return by_cross_entropy(logits, labels).item()


@refused(LOSS, "values are right, but the graph is lost")
def graph_lost_by_detach(logits, labels):
    return by_cross_entropy(logits.detach(), labels)


@refused(LOSS, "of type list")
def a_list(logits, labels):
    return [by_cross_entropy(logits, labels)]


@refused(LOSS, "has the shape (1,)")
def a_list_of_one(logits, labels):
    return by_cross_entropy(logits, labels).reshape(1)


@refused(LOSS, "changes its own input (argument 2")
def labels_overwritten(logits, labels):
    result = by_cross_entropy(logits, labels)
    labels.fill_(IGNORE_INDEX)
    return result


@refused(LOSS, "is a return missing?")
def nothing_returned(logits, labels):
    by_cross_entropy(logits, labels)


equivalent(NLL, "any valid id will do, because its entry is set to 0", "`0` becomes `1`")
equivalent(
    NLL,
    "the text leaves the precision open, and the cases come in float32",
    "`forecasts.dtype == torch.float64` becomes `forecasts.dtype != torch.float64`",
    "`forecasts if forecasts.dtype == torch.float64 else forecasts.float()` becomes `forecasts`",
    "`forecasts if forecasts.dtype == torch.float64 else forecasts.float()` becomes `forecasts.float()`",
    "`torch.float64` becomes `torch.float32`",
)


def summed(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


def trained(labels):
    return (labels[:, 1:] != IGNORE_INDEX).sum()


@right(ACCUMULATED)
def two_sums(micro_batches):
    total = sum(summed(logits, labels) for logits, labels in micro_batches)
    return total / sum(trained(labels) for _, labels in micro_batches)


@right(ACCUMULATED)
def total_known_first(micro_batches):
    total = 0
    for _, labels in micro_batches:
        total += int(trained(labels))
    loss = 0.0
    for logits, labels in micro_batches:
        loss = loss + summed(logits, labels) / torch.tensor(total)
    return loss


@right(ACCUMULATED)
def joined(micro_batches):
    predictions = torch.cat([logits[:, :-1].flatten(0, 1) for logits, _ in micro_batches])
    return F.cross_entropy(predictions, torch.cat([y[:, 1:].flatten() for _, y in micro_batches]))


@right(ACCUMULATED)
def by_weights(micro_batches):
    """Each mean weighs as much as its tokens; a micro-batch without any is passed over."""
    counts = torch.tensor([trained(labels) for _, labels in micro_batches])
    if not counts.any():
        return torch.tensor(math.nan)
    weights = (counts / counts.sum()).tolist()
    pairs = zip(weights, micro_batches, strict=True)
    return torch.stack([w * by_cross_entropy(*batch) for w, batch in pairs if w]).sum()


@right(ACCUMULATED)
def running_mean(micro_batches):
    def step(so_far, batch):
        mean, seen = so_far
        count = trained(batch[1])
        change = summed(*batch) - count * mean
        return (mean + change / (seen + count) if seen + count else mean), seen + count

    mean, seen = reduce(step, micro_batches, (torch.tensor(0.0), torch.tensor(0)))
    return mean if seen else mean * math.nan


@refused(ACCUMULATED, "The rule: Micro-batches can differ")
def joined_as_they_are(micro_batches):
    logits, labels = (torch.cat(parts) for parts in zip(*micro_batches, strict=True))
    return by_cross_entropy(logits, labels)


@refused(ACCUMULATED, "its gradient with respect to the input is not")
def graph_to_the_last_alone(micro_batches):
    *others, last = micro_batches
    total = sum(summed(logits.detach(), labels) for logits, labels in others) + summed(*last)
    return total / sum(trained(labels) for _, labels in micro_batches)


@refused(ACCUMULATED, "training calls backward()")
def items_added(micro_batches):
    total, count = 0.0, 0
    for logits, labels in micro_batches:
        total += summed(logits, labels).item()
        count += trained(labels).item()
    return total / count


@refused(ACCUMULATED, "The rule: Logits in the hundreds")
def softmax_and_then_log(micro_batches):
    total = count = 0
    for logits, labels in micro_batches:
        keep = labels[:, 1:] != IGNORE_INDEX
        chosen = logits[:, :-1][keep].softmax(-1).gather(1, labels[:, 1:][keep][:, None])
        total, count = total - chosen.log().sum(), count + keep.sum()
    return total / count


@refused(ACCUMULATED, "changes its own input (argument 1")
def list_emptied(micro_batches):
    result = two_sums(micro_batches)
    micro_batches.clear()
    return result
