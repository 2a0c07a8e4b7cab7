"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import bisect
from itertools import pairwise

import numpy as np
import torch

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.packing import block_mask as reference_mask

PACK, MASK, POSITIONS = "24.pack", "24.block_mask", "24.position_ids"

# --- pack ----------------------------------------------------------------------------------


@right(PACK)
def by_two_lists(lengths, size):
    rows, free = [], []
    for k in sorted(range(len(lengths)), key=lambda k: lengths[k], reverse=True):
        room = [r for r in range(len(rows)) if lengths[k] <= free[r]]
        if room:
            r = min(room, key=free.__getitem__)
        else:
            r = len(rows)
            rows.append([])
            free.append(size)
        rows[r].append(k)
        free[r] -= lengths[k]
    return rows


@right(PACK)
def by_sums(lengths, size):
    rows = []
    for _, k in sorted((-length, k) for k, length in enumerate(lengths)):
        filled = [(sum(lengths[i] for i in row), -r) for r, row in enumerate(rows)]
        room = [(f, r) for f, r in filled if f + lengths[k] <= size]
        if room:
            rows[-max(room)[1]].append(k)
        else:
            rows.append([k])
    return rows


@right(PACK)
def by_numpy(lengths, size):
    free, rows = np.zeros(0, dtype=int), []
    for k in np.argsort(-np.array(lengths, dtype=int), kind="stable"):
        left = np.where(free >= lengths[k], free, size + 1)
        if len(left) == 0 or left.min() > size:
            rows.append([])
            free = np.append(free, size)
            r = len(rows) - 1
        else:
            r = int(left.argmin())
        rows[r].append(int(k))
        free[r] -= lengths[k]
    return rows


@right(PACK)
def by_sorted_spaces(lengths, size):
    rows, spaces = [], []  # spaces: (free, row), sorted
    for k in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        at = bisect.bisect_left(spaces, (lengths[k], -1))
        if at == len(spaces):
            rows.append([])
            space, r = size, len(rows) - 1
        else:
            space, r = spaces.pop(at)
        rows[r].append(k)
        bisect.insort(spaces, (space - lengths[k], r))
    return rows


@refused(PACK, "TypeError")
def sizes_compared_with_lists(lengths, size):
    rows = []
    for k in lengths:
        rows = [row for row in rows if row + k <= size] or [[k]]
    return rows[0] + 1


@refused(PACK, "changes its own input")
def sorted_in_place(lengths, size):
    found = by_two_lists(lengths, size)
    lengths.sort(reverse=True)
    return found


# --- block_mask ----------------------------------------------------------------------------


@right(MASK)
def by_broadcasting(document_ids):
    length = document_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return (document_ids[:, :, None] == document_ids[:, None, :]) & causal


@right(MASK)
def by_places(document_ids):
    place = torch.arange(document_ids.shape[-1])
    same = document_ids.unsqueeze(2).eq(document_ids.unsqueeze(1))
    return same & (place[None, :] <= place[:, None])


@right(MASK)
def by_loops(document_ids):
    rows, length = document_ids.shape
    mask = torch.zeros(rows, length, length, dtype=torch.bool)
    for row in range(rows):
        for t in range(length):
            for s in range(t + 1):
                mask[row, t, s] = document_ids[row, t] == document_ids[row, s]
    return mask


@right(MASK)
def by_blocks(document_ids):
    rows = []
    for ids in document_ids:
        _, sizes = torch.unique_consecutive(ids, return_counts=True)
        blocks = [torch.ones(n, n).tril() for n in sizes.tolist()]
        rows.append(torch.block_diag(*blocks).bool())
    return torch.stack(rows)


@right(MASK)
def by_one_hot(document_ids):
    kinds = torch.nn.functional.one_hot(document_ids).float()
    return (kinds @ kinds.mT).tril() > 0


@refused(MASK, "True where token t attends")
def as_numpy(document_ids):
    return reference_mask(document_ids).numpy()


@refused(MASK, "changes its own input")
def marked(document_ids):
    found = reference_mask(document_ids)
    document_ids += 1
    return found


# --- position_ids --------------------------------------------------------------------------


@right(POSITIONS)
def by_a_loop(document_ids):
    rows = []
    for ids in document_ids.tolist():
        row = [0]
        for before, now in pairwise(ids):
            row.append(row[-1] + 1 if now == before else 0)
        rows.append(row)
    return torch.tensor(rows)


@right(POSITIONS)
def by_the_mask(document_ids):
    return by_broadcasting(document_ids).sum(-1) - 1


@right(POSITIONS)
def by_lengths(document_ids):
    rows = []
    for ids in document_ids:
        _, sizes = torch.unique_consecutive(ids, return_counts=True)
        rows.append(torch.cat([torch.arange(n) for n in sizes.tolist()]))
    return torch.stack(rows)


@right(POSITIONS)
def by_starts(document_ids):
    place = torch.arange(document_ids.shape[1]).expand_as(document_ids)
    begins = document_ids.diff(dim=1, prepend=document_ids[:, :1] - 1) != 0
    return place - (place * begins).cummax(dim=1).values


@right(POSITIONS)
def by_numpy_positions(document_ids):
    ids = document_ids.numpy()
    first = np.array([[(row == number).argmax() for number in row] for row in ids])
    return np.arange(ids.shape[1]) - first


@refused(POSITIONS, "changes its own input")
def overwritten(document_ids):
    found = by_a_loop(document_ids)
    document_ids[:] = found
    return found


equivalent(
    POSITIONS,
    "The stub is asked for two dimensions, on the CPU.",
    "`-1` becomes `1`",
    "`-1` becomes `1` #3",
    "without `device=` in `torch.arange(document_ids.shape[-1], device=document_ids.device)`",
)
