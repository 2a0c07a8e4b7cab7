"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

from collections import Counter

import torch

from sftlab.classroom.answers import refused, right
from sftlab.loss import IGNORE_INDEX

ID = "00.count_trained"


@right(ID)
def by_loop(labels):
    n = 0
    for label in labels:
        if label == -100:
            continue
        n += 1
    return n


@right(ID)
def length_minus_count(labels):
    return len(labels) - labels.count(-100)


@right(ID)
def by_filter(labels):
    return len(list(filter(lambda label: label != -100, labels)))


@right(ID)
def by_counter(labels):
    counts = Counter(labels)
    counts.pop(IGNORE_INDEX, None)
    return counts.total()


@right(ID)
def by_tensor(labels):
    return (torch.tensor(labels) != IGNORE_INDEX).sum().item()


@refused(ID, "Id 0 is a token")
def truthiness(labels):
    return len([label for label in labels if label and label != IGNORE_INDEX])


@refused(ID, "changes its own input")
def removed(labels):
    while IGNORE_INDEX in labels:
        labels.remove(IGNORE_INDEX)
    return len(labels)


@refused(ID, "is a `return` missing?")
def printed(labels):
    print(sum(label != IGNORE_INDEX for label in labels))
