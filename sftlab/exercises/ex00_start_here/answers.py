"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
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
    return (torch.tensor(labels) != IGNORE_INDEX).sum()


@right(ID)
def by_array(labels):
    return np.count_nonzero(np.array(labels) != IGNORE_INDEX)


@refused(ID, "Id 0 is left out")
def truthiness(labels):
    return len([label for label in labels if label and label != IGNORE_INDEX])


@refused(ID, "The rule: Return 0 if no token is trained")
def none_for_nothing(labels):
    return by_loop(labels) or None


@refused(ID, "changes its own input")
def removed(labels):
    while IGNORE_INDEX in labels:
        labels.remove(IGNORE_INDEX)
    return len(labels)


@refused(ID, "Put return in place of print")
def printed(labels):
    print(sum(label != IGNORE_INDEX for label in labels))
