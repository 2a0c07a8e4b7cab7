"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
import torch

from sftlab.classroom.answers import equivalent, refused, right

LABELS, FIRST, LEARNED = "23.label_errors", "23.first_loss_ratio", "23.learned"


# --- labels ----------------------------------------------------------------------------------------
@right(LABELS)
def in_one_loop(input_ids, labels, answer):
    wrong, number = 0, 0
    for token, label in zip(input_ids, labels):
        if label == -100:
            continue
        if label != token:
            wrong += 1
        if number >= len(answer) or label != answer[number]:
            wrong += 1
        number += 1
    return wrong + max(0, len(answer) - number)


@right(LABELS)
def with_the_longer_list(input_ids, labels, answer):
    trained = [(i, x) for i, x in zip(input_ids, labels, strict=True) if x != -100]
    moved = sum(i != x for i, x in trained)
    return moved + sum(a != b for a, b in zip_longest([x for _, x in trained], answer))


@right(LABELS)
def with_numpy(input_ids, labels, answer):
    ids, y, wanted = map(np.array, (input_ids, labels, answer))
    trained = y[y != -100]
    n = min(len(trained), len(wanted))
    moved = ((y != ids) & (y != -100)).sum()
    return moved + (trained[:n] != wanted[:n]).sum() + abs(len(trained) - len(wanted))


@right(LABELS)
def with_torch(input_ids, labels, answer):
    ids, y = torch.tensor(input_ids), torch.tensor(labels)
    mask = y.ne(-100)
    trained = y[mask].tolist()
    other = [a for a, b in zip(trained, answer) if a != b]
    return (y[mask] != ids[mask]).sum() + len(other) + abs(len(trained) - len(answer))


@refused(LABELS, "changes its own input (argument 2")
def masked_ones_removed(input_ids, labels, answer):
    found = with_numpy(input_ids, labels, answer)
    while -100 in labels:
        labels.remove(-100)
    return found


@refused(LABELS, "It prints, but it returns nothing")
def printed(input_ids, labels, answer):
    print(in_one_loop(input_ids, labels, answer))


@refused(LABELS, "Expected: 0, got: 5")
def of_the_end(input_ids, labels, answer):
    return sum(a != b for a, b in zip(labels[-len(answer) :], answer, strict=False))


@refused(LABELS, "argument 2 is longer")
def strict_pairs(input_ids, labels, answer):
    trained = [label for label in labels if label != -100]
    return sum(a != b for a, b in zip(answer, trained, strict=True))


# --- the log ---------------------------------------------------------------------------------------
@right(FIRST)
def by_cross_entropy(losses, logits, labels):
    wanted = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    )
    return losses[0] / wanted


@right(FIRST)
def by_log_softmax(losses, logits, labels):
    total, count = 0.0, 0
    for row, wanted in zip(logits.log_softmax(-1), labels, strict=True):
        for t in range(len(wanted) - 1):
            if wanted[t + 1] != -100:
                total, count = total - row[t, wanted[t + 1]].item(), count + 1
    return losses[0] * count / total


@right(FIRST)
def with_a_mask(losses, logits, labels):
    mask = labels[:, 1:] != -100
    p = torch.softmax(logits[:, :-1], -1)[mask]
    return np.float64(losses[0]) / -p[torch.arange(len(p)), labels[:, 1:][mask]].log().mean().item()


@right(FIRST)
def with_logsumexp(losses, logits, labels):
    x, y = logits[:, :-1], labels[:, 1:]
    own = x.gather(2, y.clamp(min=0)[..., None])[..., 0]
    nll = (x.logsumexp(-1) - own) * y.ne(-100)
    return losses[0] / (nll.sum() / y.ne(-100).sum())


@refused(FIRST, "changes its own input (argument 1")
def popped(losses, logits, labels):
    first = losses.pop(0)
    return by_cross_entropy([first], logits, labels)


@refused(FIRST, "of type list")
def every_step(losses, logits, labels):
    return [float(by_cross_entropy([loss], logits, labels)) for loss in losses]


@refused(FIRST, "It prints, but it returns nothing")
def first_printed(losses, logits, labels):
    print(by_cross_entropy(losses, logits, labels))


# --- answers ---------------------------------------------------------------------------------------
@right(LEARNED)
def asked_at_once(ask, pairs):
    replies = ask([pair["prompt"] for pair in pairs])
    return sum(r.strip() == p["response"].strip() for r, p in zip(replies, pairs)) / len(pairs)


@right(LEARNED)
def asked_one_by_one(ask, pairs):
    found = 0
    for pair in pairs:
        (reply,) = ask([pair["prompt"]])
        if reply.strip() == pair["response"].strip():
            found += 1
    return found / len(pairs)


@right(LEARNED)
def mean_with_numpy(ask, pairs):
    wanted = np.array([pair["response"].strip() for pair in pairs])
    return (np.char.strip(ask([pair["prompt"] for pair in pairs])) == wanted).mean()


@right(LEARNED)
def mean_with_torch(ask, pairs):
    questions, wanted = zip(*((p["prompt"], p["response"].strip()) for p in pairs), strict=True)
    same = [*map(str.__eq__, map(str.strip, ask(list(questions))), wanted)]
    return torch.tensor(same, dtype=torch.float32).mean()


@refused(LEARNED, "TypeError")
def one_text(ask, pairs):
    return sum(ask(p["prompt"])[0].strip() == p["response"].strip() for p in pairs) / len(pairs)


@refused(LEARNED, "changes its own input (argument 2")
def stripped_in_place(ask, pairs):
    for pair in pairs:
        pair["response"] = pair["response"].strip()
    return asked_at_once(ask, pairs)


@refused(LEARNED, "It prints, but it returns nothing")
def share_printed(ask, pairs):
    print(asked_at_once(ask, pairs))


# --- changes that no valid input shows -------------------------------------------------------------
equivalent(
    LABELS,
    "Ids and labels are equally long; the other pairs end with the shorter list, which is counted by the lengths.",
    "without `strict=` in `zip(input_ids, labels, strict=True)`",
    "without `strict=` in `zip(trained, answer, strict=False)`",
    "`zip(trained, answer, strict=False)` becomes `zip(answer, trained, strict=False)`",
    "`True` becomes `False`",
)
equivalent(
    LEARNED,
    "Each question has one reply, so there are as many replies as pairs.",
    "without `strict=` in `zip(replies, pairs, strict=True)`",
    "`True` becomes `False`",
)
