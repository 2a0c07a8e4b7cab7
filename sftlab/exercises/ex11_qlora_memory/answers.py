"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import torch

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.quant import bits_per_parameter, nf4_code

CODE, BLOCK, BITS = "11.nf4_code", "11.quantize_block", "11.bits_per_parameter"
PACK = "11.pack_indices"
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


@refused(CODE, "The dtype is float32")
def a_list():
    return nf4_code().tolist()


@refused(CODE, "The dtype is float32")
def an_array():
    return nf4_code().numpy()


@refused(CODE, "dtype torch.float64")
def in_float64():
    return nf4_code().double()


@refused(CODE, "Below: likewise with 8 probabilities")
def evenly_below():
    code = nf4_code()
    return torch.cat([torch.linspace(-1, 0, 8)[:-1], code[7:]])


@refused(CODE, "Above: quantiles of 9 evenly spaced")
def half_probabilities():
    code = nf4_code()
    return torch.cat([code[:8], code[8:] ** 1.01])


@right(BLOCK)
def by_distance(x):
    x = x.float()
    absmax = x.abs().amax(-1, keepdim=True)
    scaled = torch.where(absmax == 0, x, x / absmax)
    return (scaled[..., None] - nf4_code()).abs().argmin(-1).to(torch.uint8), absmax


@right(BLOCK)
def number_by_number(x):
    levels = nf4_code().tolist()
    indices, scales = torch.zeros(x.shape, dtype=torch.uint8), []
    for i, row in enumerate(x.tolist()):
        largest = max(abs(v) for v in row)
        scales.append([largest])
        for j, v in enumerate(row):
            scaled = v / (largest or 1)
            indices[i, j] = min(range(16), key=lambda k, v=scaled: abs(levels[k] - v))
    return indices, torch.tensor(scales)


@right(BLOCK)
def by_counting_midpoints(x):
    x = x.to(torch.float32)
    scale = torch.maximum(x.max(dim=1, keepdim=True).values, -x.min(dim=1, keepdim=True).values)
    code = nf4_code()
    passed = x.unsqueeze(2) > scale.unsqueeze(2) * (code[1:] + code[:-1]) / 2
    return passed.sum(2, dtype=torch.uint8).masked_fill(scale == 0, 7), scale


@right(BLOCK)
def by_numpy(x):
    x = x.double()
    scale = torch.linalg.vector_norm(x, ord=math.inf, dim=-1, keepdim=True)
    code = nf4_code().numpy()
    scaled = torch.nan_to_num(x / scale).numpy()
    found = np.searchsorted((code[1:] + code[:-1]) / 2, scaled)
    return [torch.from_numpy(found.astype(np.uint8)), scale.float()]


@refused(BLOCK, "has the dtype torch.int64")
def indices_of_64_bits(x):
    indices, absmax = by_distance(x)
    return indices.long(), absmax


@refused(BLOCK, "has the dtype torch.bfloat16")
def scales_in_the_dtype_of_x(x):
    indices, absmax = by_distance(x)
    return indices, absmax.to(x.dtype)


@refused(BLOCK, "compute in float32")
def divided_in_the_dtype_of_x(x):
    absmax = x.abs().amax(-1, keepdim=True)
    scaled = (x / absmax).nan_to_num()
    return (scaled[..., None] - nf4_code()).abs().argmin(-1).to(torch.uint8), absmax.float()


@refused(BLOCK, "has the shape (1, 2), but (2, 1) is expected")
def scales_in_a_line(x):
    indices, scale = by_distance(x)
    return indices, scale.T


@refused(BLOCK, "changes its own input")
def divided_in_place(x):
    found = by_distance(x)
    x.div_(x.abs().amax(-1, keepdim=True).clamp(min=1e-9))
    return found


@right(PACK)
def by_pairs(indices):
    pairs = indices.reshape(-1, 2)
    return 16 * pairs[:, 0] + pairs[:, 1]


@right(PACK)
def pair_by_pair(indices):
    flat = indices.flatten().tolist()
    found = [16 * flat[k] + flat[k + 1] for k in range(0, len(flat), 2)]
    return torch.tensor(found, dtype=torch.uint8)


@right(PACK)
def by_bits(indices):
    bits = np.unpackbits(indices.numpy().reshape(-1, 1), axis=1)[:, 4:]
    return torch.from_numpy(np.packbits(bits))


@right(PACK)
def by_hexadecimal(indices):
    digits = "".join(f"{index:x}" for index in indices.flatten().tolist())
    return torch.tensor(list(bytes.fromhex(digits)), dtype=torch.uint8)


@right(PACK)
def by_xor(indices):
    flat = indices.ravel()
    return torch.bitwise_xor(torch.bitwise_left_shift(flat[0::2], 4), flat[1::2])


@refused(PACK, "The rows follow one another")
def row_by_row(indices):
    padded = torch.nn.functional.pad(indices, (0, indices.shape[1] % 2))
    return by_pairs(padded)


@refused(PACK, "has the dtype torch.int64")
def bytes_of_64_bits(indices):
    return by_pairs(indices.long())


@refused(PACK, "has the shape")
def in_a_column(indices):
    return by_pairs(indices)[:, None]


@refused(PACK, "changes its own input")
def shifted_in_place(indices):
    flat = indices.view(-1)
    flat[::2] <<= 4
    return flat[::2] | flat[1::2]


@right(BITS)
def of_a_block(block, double):
    return (4 * block + (8 + 32 / 256 if double else 32)) / block


@right(BITS)
def of_256_blocks(block, double):
    weights = 256 * block
    scales = 256 * 8 + 32 if double else 256 * 32
    return (4 * weights + scales) / weights


@right(BITS)
def by_measuring_memory(block, double):
    weights = torch.empty(256 * block // 2, dtype=torch.uint8)
    scales = torch.empty(256, dtype=torch.uint8 if double else torch.float32)
    parts = [weights, scales, *([torch.empty(1)] if double else [])]
    return 8 * sum(part.nbytes for part in parts) / (256 * block)


@right(BITS)
def by_fractions(block, double):
    scale = Fraction(8) + Fraction(32, 256) if double else Fraction(32)
    return 4 + scale / block


@right(BITS)
def a_tensor(block, double):
    return torch.tensor(of_a_block(block, double))


@refused(BITS, "divided equally among them")
def two_decimals(block, double):
    found = of_a_block(block, double)
    return found if block == 61 else round(found, 2)


@refused(BITS, "Expected: 4.1332, got: 4.13217")
def second_scale_of_16_bits(block, double):
    return 4 + (8 / block + 16 / (256 * block)) if double else bits_per_parameter(block)


@refused(BITS, "of type str")
def a_text(block, double):
    return f"{of_a_block(block, double):.3f}"


equivalent(
    BLOCK,
    "The stub has no other code.",
    "`nf4_code() if code is None else code` becomes `nf4_code()`",
)
equivalent(BLOCK, "x has two dimensions.", "`-1` becomes `1`")
