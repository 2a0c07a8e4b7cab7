"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
import torch

from sftlab.classroom.answers import equivalent, refused, right

LABELS, SPLIT, STRENGTH = "23.label_errors", "23.split_gap", "23.update_strength"
FIRST, LEARNED = "23.first_loss_ratio", "23.learned"


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
    trained = [(i, x) for i, x in zip(input_ids, labels, strict=True) if x >= 0]
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


# --- a gradient ------------------------------------------------------------------------------------
def gradient(combine, logits, pieces):
    leaf = logits.clone().requires_grad_(True)
    parts = [(leaf[a:b], labels) for a, b, labels in pieces]
    (found,) = torch.autograd.grad(combine(parts), leaf)
    return found


@right(SPLIT)
def by_autograd(combine, logits, labels):
    whole = gradient(combine, logits, [(0, len(logits), labels)])
    split = gradient(combine, logits, [(i, i + 1, y[None]) for i, y in enumerate(labels)])
    return torch.linalg.norm(split - whole) / torch.linalg.norm(whole)


@right(SPLIT)
def cleared_in_between(combine, logits, labels):
    x = logits.detach().clone()
    x.requires_grad = True
    combine([(x, labels)]).backward()
    whole = x.grad.clone()
    x.grad = None
    combine([(x[i : i + 1], labels[i : i + 1]) for i in range(x.shape[0])]).backward()
    return float((x.grad - whole).pow(2).sum().sqrt() / whole.pow(2).sum().sqrt())


@right(SPLIT)
def with_numpy_norms(combine, logits, labels):
    found = []
    for size in (logits.size(0), 1):
        leaf = torch.nn.Parameter(logits.clone())
        combine(list(zip(leaf.split(size), labels.split(size)))).backward()
        found.append(leaf.grad.numpy().ravel())
    return np.linalg.norm(found[1] - found[0]) / np.linalg.norm(found[0])


@right(SPLIT)
def chunks_of_the_batch(combine, logits, labels):
    copies = [logits.detach().clone().requires_grad_() for _ in range(2)]
    n = len(labels)
    combine([(copies[0], labels)]).backward()
    combine([*zip(copies[1].chunk(n), labels.chunk(n), strict=True)]).backward()
    whole, split = (c.grad for c in copies)
    return ((split - whole).norm() / whole.norm()).item()


@refused(SPLIT, "Expected: 0.0, got: 0.3")
def without_the_batch_dimension(combine, logits, labels):
    leaf = logits.clone().requires_grad_()
    combine([(leaf, labels)]).backward()
    other = logits.clone().requires_grad_()
    combine([(a[:-1], y[:-1]) for a, y in zip(other.split(1), labels.split(1), strict=True)])
    combine([(a[:, 1:], y[:, 1:]) for a, y in zip(other.split(1), labels.split(1), strict=True)]).backward()  # fmt: skip
    return ((other.grad - leaf.grad).norm() / leaf.grad.norm()).item()


@refused(SPLIT, "changes its own input (argument 2")
def logits_scaled(combine, logits, labels):
    found = by_autograd(combine, logits, labels)
    logits.mul_(2)
    return found


@refused(SPLIT, "RuntimeError")
def without_a_leaf(combine, logits, labels):
    combine([(logits, labels)]).backward()
    return logits.grad.norm()


# --- weights ---------------------------------------------------------------------------------------
@right(STRENGTH)
def by_least_squares(served, base, A, B, scale):
    update = (scale * B @ A).reshape(-1, 1)
    change = (served.float() - base).reshape(-1, 1)
    return torch.linalg.lstsq(update, change).solution.item()


@right(STRENGTH)
def by_a_trace(served, base, A, B, scale):
    update = scale * torch.matmul(B, A)
    change = served.to(torch.float32) - base
    return torch.trace(change @ update.T) / torch.trace(update @ update.T)


@right(STRENGTH)
def with_numpy_arrays(served, base, A, B, scale):
    served, base, A, B = (t.float().numpy() for t in (served, base, A, B))
    update = scale * (B @ A)
    return np.vdot(served - base, update) / np.vdot(update, update)


@right(STRENGTH)
def flat(served, base, A, B, scale):
    u = torch.einsum("or,ri->oi", B, A).flatten() * scale
    return torch.dot(served.float().flatten() - base.flatten(), u) / torch.dot(u, u)


@refused(STRENGTH, "RuntimeError")
def factors_exchanged(served, base, A, B, scale):
    update = scale * (A @ B)
    return ((served - base) * update).sum() / update.square().sum()


@refused(STRENGTH, "Expected: 2.75, got: 3")
def whole_times(served, base, A, B, scale):
    return round(flat(served, base, A, B, scale).item())


@refused(STRENGTH, "changes its own input (argument 1")
def subtracted_in_place(served, base, A, B, scale):
    update = scale * (B @ A)
    served.sub_(base)
    return (served.float() * update).sum() / update.square().sum()


@refused(STRENGTH, "It prints, but it returns nothing")
def shown(served, base, A, B, scale):
    print(flat(served, base, A, B, scale))


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
    SPLIT,
    "Logits and labels are cut in the same way, so there are as many parts of each.",
    "without `strict=` in `zip(leaf.split(size), labels.split(size), strict=True)`",
    "`True` becomes `False`",
)
equivalent(
    LEARNED,
    "Each question has one reply, so there are as many replies as pairs.",
    "without `strict=` in `zip(replies, pairs, strict=True)`",
    "`True` becomes `False`",
)
