"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import torch

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.statistics import paired_difference

GROUPS, MISMATCH, READY = "26.groups", "26.template_mismatch", "26.ready"


@right(GROUPS)
def by_flooding(questions, alike):
    found = [None] * len(questions)
    for start in range(len(questions)):
        waiting = [start] if found[start] is None else []
        while waiting:
            here = waiting.pop()
            found[here] = start
            waiting += [
                k
                for k in range(len(questions))
                if found[k] is None and k != here and alike(questions[here], questions[k])
            ]
    return found


@right(GROUPS)
def by_parents(questions, alike):
    parent = list(range(len(questions)))

    def root(k):
        return k if parent[k] == k else root(parent[k])

    for a in range(len(questions)):
        for b in range(a + 1, len(questions)):
            if alike(questions[a], questions[b]):
                low, high = sorted((root(a), root(b)))
                parent[high] = low
    return tuple(root(k) for k in range(len(questions)))


@right(GROUPS)
def by_sets(questions, alike):
    sets = []
    for k, question in enumerate(questions):
        touching = [s for s in sets if any(alike(questions[j], question) for j in s)]
        sets = [s for s in sets if s not in touching] + [set().union({k}, *touching)]
    return [min(s) for k in range(len(questions)) for s in sets if k in s]


@right(GROUPS)
def until_nothing_changes(questions, alike):
    found = np.arange(len(questions))
    for _ in questions:
        for a in range(len(questions)):
            for b in range(len(questions)):
                if a != b and alike(questions[a], questions[b]):
                    found[a] = found[b] = min(found[a], found[b])
    return found


@refused(GROUPS, "a set, which has no order")
def a_set(questions, alike):
    return set(by_flooding(questions, alike))


@refused(GROUPS, "IndexError")
def from_the_first(questions, alike):
    questions[0]
    return by_flooding(questions, alike)


@refused(GROUPS, "changes its own input")
def emptied(questions, alike):
    found = by_flooding(questions, alike)
    questions.clear()
    return found


def _end(labels):
    last = max(n for n, label in enumerate(labels) if label != -100)
    while labels[last] != -100:
        last -= 1
    return last + 1


@right(MISMATCH)
def by_index(input_ids, labels, served):
    trained = input_ids[: _end(labels)]
    for n in range(max(len(trained), len(served))):
        if n >= len(trained) or n >= len(served) or trained[n] != served[n]:
            return n
    return None


@right(MISMATCH)
def by_runs(input_ids, labels, served):
    runs = [(kept, len(list(each))) for kept, each in groupby(label != -100 for label in labels)]
    while not runs[-1][0]:
        runs.pop()
    end = sum(length for _, length in runs[:-1])
    trained = input_ids[:end]
    if trained == served:
        return None
    same = [a == b for a, b in zip(trained, served, strict=False)]
    return same.index(False) if False in same else len(same)


@right(MISMATCH)
def by_torch(input_ids, labels, served):
    trained = torch.tensor(input_ids[: _end(labels)])
    served = torch.tensor(served)
    if torch.equal(trained, served):
        return None
    n = min(len(trained), len(served))
    return (trained[:n] == served[:n]).int().cumprod(0).sum()


@right(MISMATCH)
def by_prefixes(input_ids, labels, served):
    trained = input_ids[: _end(labels)]
    n = 0
    while trained[: n + 1] == served[: n + 1] and n < max(len(trained), len(served)):
        n += 1
    return None if trained == served else n


@refused(MISMATCH, "of type bool")
def yes_or_no(input_ids, labels, served):
    return input_ids[: _end(labels)] != served


@refused(MISMATCH, "changes its own input")
def cut_in_place(input_ids, labels, served):
    del input_ids[_end(labels) :]
    return by_prefixes(input_ids, [*labels[: len(input_ids)], 0], served)


@right(READY)
def by_appending(report):
    found = []
    if report["broken"]:
        found.append("data")
    if report["leaked"]:
        found.append("leak")
    _, (low, _) = paired_difference(report["base"], report["tuned"])
    if not low > 0:
        found.append("score")
    if report["mismatches"].count(None) < len(report["mismatches"]):
        found.append("template")
    if report["trained"] != report["served"]:
        found.append("answers")
    return found


@right(READY)
def by_a_dictionary(report):
    gates = {
        "data": report["broken"] == 0,
        "leak": report["leaked"] == 0,
        "score": paired_difference(report["base"], report["tuned"])[1][0] > 0,
        "template": all(place is None for place in report["mismatches"]),
        "answers": all(a == b for a, b in zip(report["trained"], report["served"], strict=True)),
    }
    return [name for name, passed in gates.items() if not passed]


@right(READY)
def by_pairs(report):
    interval = paired_difference(np.array(report["base"]), np.array(report["tuned"]))[1]
    stops = (
        report["broken"] >= 1,
        report["leaked"] >= 1,
        min(interval) <= 0,
        any(isinstance(place, int) for place in report["mismatches"]),
        list(report["trained"]) != list(report["served"]),
    )
    names = ("data", "leak", "score", "template", "answers")
    return tuple(name for name, stop in zip(names, stops, strict=True) if stop)


@right(READY)
def by_a_generator(report):
    def stops():
        if report["broken"]:
            yield "data"
        if report["leaked"]:
            yield "leak"
        if paired_difference(report["base"], report["tuned"])[1][0] <= 0:
            yield "score"
        if set(report["mismatches"]) != {None}:
            yield "template"
        if any(a != b for a, b in zip(report["trained"], report["served"], strict=True)):
            yield "answers"

    return list(stops())


@refused(READY, "changes its own input")
def noted_in_the_report(report):
    report["stops"] = by_appending(report)
    return report["stops"]


@refused(READY, "of type bool")
def only_whether(report):
    return not by_appending(report)


@refused(READY, "KeyError")
def another_name(report):
    return [] if report["ok"] else ["data"]


equivalent(
    GROUPS,
    "alike(a, b) is alike(b, a)",
    "`alike(questions[early], questions[late])` becomes `alike(questions[late], questions[early])`",
)
equivalent(
    MISMATCH,
    "equality has no direction, and zip is not strict by default",
    "`zip(trained, served, strict=False)` becomes `zip(served, trained, strict=False)`",
    "without `strict=` in `zip(trained, served, strict=False)`",
)
equivalent(
    READY,
    "there is one answer for each question in both lists, and equality has no direction",
    "`True` becomes `False`",
    "without `strict=` in `zip(report['trained'], report['served'], strict=True)`",
    "`zip(report['trained'], report['served'], strict=True)` becomes `zip(report['served'], report['trained'], strict=True)`",
)
