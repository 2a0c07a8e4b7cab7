"""Answers to the check of notebook 03, as students write them."""

import torch

IGNORE_INDEX = -100


def by_where(per_token_loss, labels):
    targets = labels[:, 1:]
    kept = torch.where(targets == IGNORE_INDEX, torch.zeros_like(per_token_loss), per_token_loss)
    return float(kept.sum() / per_token_loss.sum())


def by_product(per_token_loss, labels):
    mask = labels[:, 1:].ne(IGNORE_INDEX).float()
    return ((per_token_loss * mask).sum() / per_token_loss.sum()).item()


def by_loops(per_token_loss, labels):
    response = total = 0.0
    for losses, row in zip(per_token_loss.tolist(), labels.tolist(), strict=True):
        for loss, label in zip(losses, row[1:], strict=True):
            total += loss
            response += loss if label != IGNORE_INDEX else 0.0
    return response / total


def unshifted(losses, labels):
    return (losses[labels[:, :-1] != IGNORE_INDEX].sum() / losses.sum()).item()


def prompt(losses, labels):
    return (losses[labels[:, 1:] == IGNORE_INDEX].sum() / losses.sum()).item()


def of_means(losses, labels):
    return (losses[labels[:, 1:] != IGNORE_INDEX].mean() / losses.mean()).item()


def tokens(losses, labels):
    mask = labels[:, 1:] != IGNORE_INDEX
    return mask.sum().item() / mask.numel()


def averaged(losses, labels):
    mask = labels[:, 1:] != IGNORE_INDEX
    return sum((row[m].sum() / row.sum()).item() for row, m in zip(losses, mask)) / len(losses)


def over_prompt(losses, labels):
    mask = labels[:, 1:] != IGNORE_INDEX
    return (losses[mask].sum() / losses[~mask].sum()).item()


def positive(losses, labels):
    return (losses[labels[:, 1:] > 0].sum() / losses.sum()).item()


def percent(losses, labels):
    return 100 * by_product(losses, labels)


def nats(losses, labels):
    return losses[labels[:, 1:] != IGNORE_INDEX].sum().item()


def mean_loss(losses, labels):
    return losses[labels[:, 1:] != IGNORE_INDEX].mean().item()


def one_row(losses, labels):
    return by_product(losses[0:1], labels[0:1])


def per_row(losses, labels):
    mask = labels[:, 1:] != IGNORE_INDEX
    return (losses * mask).sum(dim=1) / losses.sum(dim=1)


def same_length(losses, labels):
    return (losses[labels != IGNORE_INDEX].sum() / losses.sum()).item()


def a_tensor(losses, labels):
    return losses[labels[:, 1:] != IGNORE_INDEX].sum() / losses.sum()


def in_place(losses, labels):
    total = losses.sum().item()
    losses[labels[:, 1:] == IGNORE_INDEX] = 0
    return losses.sum().item() / total


RIGHT = {
    "03.response_loss_share": {"where": by_where, "product": by_product, "loops": by_loops},
}

WRONG = {
    "03.response_loss_share": {
        "not shifted": (unshifted, "Off by one"),
        "the prompt's": (prompt, "prompt's share"),
        "means": (of_means, "divided two means"),
        "tokens": (tokens, "share of the *tokens*"),
        "mean of rows": (averaged, "averaged the shares"),
        "over the prompt": (over_prompt, "divided by the prompt's loss"),
        "token 0": (positive, "Token 0"),
        "percent": (percent, "in percent"),
        "nats": (nats, "in nats"),
        "mean": (mean_loss, "the SFT loss"),
        "first row": (one_row, "Only the first row"),
        "per row": (per_row, "one number per row"),
        "mask as long as labels": (same_length, "IndexError"),
        "a tensor": (a_tensor, "is a tensor"),
        "in place": (in_place, "changes its own input"),
    },
}
