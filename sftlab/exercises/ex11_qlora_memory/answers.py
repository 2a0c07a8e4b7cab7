"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import torch

from sftlab.classroom.answers import refused, right
from sftlab.quant import nf4_code

CODE, BLOCK, BITS = "11.nf4_code", "11.quantize_block", "11.bits_per_parameter"
OUTERMOST = 0.9677083


@right(CODE)
def by_standard_library():
    quantile = NormalDist().inv_cdf
    high = [quantile(OUTERMOST + (0.5 - OUTERMOST) * i / 8) for i in range(8)]
    low = [-quantile(OUTERMOST + (0.5 - OUTERMOST) * i / 7) for i in range(7)]
    values = sorted([*low, 0.0, *high])
    return torch.tensor([value / max(values) for value in values])


@right(CODE)
def typed_in():
    return torch.tensor(
        [-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
         0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
    )  # fmt: skip


@right(CODE)
def by_erfinv():
    above, below = (torch.linspace(OUTERMOST, 0.5, n, dtype=torch.float64) for n in (9, 8))
    code = torch.cat([torch.erfinv(2 * above - 1), -torch.erfinv(2 * below[:-1] - 1)])
    return (code / code.abs().max()).sort().values.float()


@right(CODE)
def by_bisection():
    def quantile(p, low=-10.0, high=10.0):
        while high - low > 1e-12:
            middle = (low + high) / 2
            if (1 + math.erf(middle / math.sqrt(2))) / 2 < p:
                low = middle
            else:
                high = middle
        return low

    below = [quantile(p) for p in np.linspace(1 - OUTERMOST, 0.5, 8)[:-1]]
    above = [quantile(p) for p in np.linspace(0.5, OUTERMOST, 9)[1:]]
    return torch.tensor([*below, 0.0, *above], dtype=torch.float32).div(above[-1])


@refused(CODE, "of type list, but a tensor")
def a_list():
    return nf4_code().tolist()


@refused(CODE, "of type ndarray, but a tensor")
def an_array():
    return nf4_code().numpy()


@right(BLOCK)
def by_distance(x):
    absmax = x.abs().amax(-1, keepdim=True)
    indices = ((x / absmax)[..., None] - nf4_code()).abs().argmin(-1)
    return indices.to(torch.uint8), absmax


@right(BLOCK)
def number_by_number(x):
    levels = nf4_code().tolist()
    indices, scales = torch.zeros(x.shape, dtype=torch.uint8), []
    for i, row in enumerate(x.tolist()):
        largest = max(abs(v) for v in row)
        scales.append([largest])
        for j, v in enumerate(row):
            indices[i, j] = min(range(16), key=lambda k, v=v / largest: abs(levels[k] - v))
    return indices, torch.tensor(scales)


@right(BLOCK)
def by_counting_midpoints(x):
    scale = torch.maximum(x.max(dim=1, keepdim=True).values, -x.min(dim=1, keepdim=True).values)
    code = nf4_code()
    passed = x.unsqueeze(2) > scale.unsqueeze(2) * (code[1:] + code[:-1]) / 2
    return passed.sum(2, dtype=torch.uint8), scale


@right(BLOCK)
def by_numpy(x):
    scale = torch.linalg.vector_norm(x, ord=math.inf, dim=-1, keepdim=True)
    code = nf4_code().numpy()
    found = np.searchsorted((code[1:] + code[:-1]) / 2, (x / scale).numpy())
    return [torch.from_numpy(found.astype(np.uint8)), scale]


@refused(BLOCK, "has the dtype torch.int64")
def indices_of_64_bits(x):
    indices, absmax = by_distance(x)
    return indices.long(), absmax


@refused(BLOCK, "is a tensor, but a tuple is expected")
def indices_alone(x):
    return by_distance(x)[0]


@refused(BLOCK, "changes its own input")
def divided_in_place(x):
    absmax = x.abs().amax(-1, keepdim=True)
    return by_distance(x.div_(absmax))[0], absmax


@right(BITS)
def of_a_block(block, double):
    return (4 * block + (8 + 32 / 256 if double else 32)) / block


@right(BITS)
def of_256_blocks(block, double):
    weights = 256 * block
    scales = 256 * 8 + 32 if double else 256 * 32
    return (4 * weights + scales) / weights


@right(BITS)
def by_fractions(block, double):
    scale = Fraction(8) + Fraction(32, 256) if double else Fraction(32)
    return 4 + scale / block


@right(BITS)
def by_measuring_memory(block, double):
    weights = torch.empty(256 * block // 2, dtype=torch.uint8)
    scales = torch.empty(256, dtype=torch.uint8 if double else torch.float32)
    parts = [weights, scales, *([torch.empty(1)] if double else [])]
    return 8 * sum(part.nbytes for part in parts) / (256 * block)


@refused(BITS, "is a tensor, but a number is expected")
def a_tensor(block, double):
    return torch.tensor(of_a_block(block, double))


@refused(BITS, "of type str")
def a_text(block, double):
    return f"{of_a_block(block, double):.3f}"
