"""Answers to the check of notebook 00, as students write them."""

from collections import Counter


def by_loop(labels):
    n = 0
    for label in labels:
        if label == -100:
            continue
        n += 1
    return n


def positive_ids(labels):
    n = 0
    for label in labels:
        if label > 0:
            n += 1
    return n


def skips_the_first(labels):
    return len([labels[i] for i in range(1, len(labels)) if labels[i] != -100])


def share(labels):
    return sum(x != -100 for x in labels) / len(labels)


RIGHT = {
    "00.count_trained": {
        "loop": by_loop,
        "length minus count": lambda labels: len(labels) - labels.count(-100),
        "filter": lambda labels: len(list(filter(lambda x: x != -100, labels))),
    }
}

WRONG = {
    "00.count_trained": {
        "length": (lambda labels: len(labels), "length of the row"),
        "the untrained ones": (lambda labels: sum(x == -100 for x in labels), "*not* trained"),
        "only positive ids": (positive_ids, "Id 0 is a token"),
        "truthiness": (
            lambda labels: len([x for x in labels if x and x != -100]),
            "Id 0 is a token",
        ),
        "different ids": (
            lambda labels: len(Counter(x for x in labels if x != -100)),
            "comes twice",
        ),
        "first skipped": (skips_the_first, "first label counts"),
        "sum of ids": (lambda labels: sum(filter(lambda x: x != -100, labels)), "added the ids"),
        "the list itself": (lambda labels: [x for x in labels if x != -100], "How many"),
        "share": (share, "share of trained"),
    }
}
