"""Answers to the checks of notebook 11, as students write them."""

import math
from statistics import NormalDist

import torch

from sftlab.quant import int4_code, nf4_code


def code(outermost=0.9677083, up=8, down=7, scale=True, mirrored=False):
    def way():
        quantile = NormalDist().inv_cdf
        high = [quantile(outermost + (0.5 - outermost) * i / up) for i in range(up)]
        low = [-quantile(outermost + (0.5 - outermost) * i / down) for i in range(down)]
        values = sorted([*low, 0.0, *high])
        if scale:
            values = [v / max(values) for v in values]
        return torch.tensor(sorted(-v for v in values) if mirrored else values)

    return way


def sixteen_parts():
    values = [NormalDist().inv_cdf((i + 0.5) / 16) for i in range(16)]
    return torch.tensor([v / max(values) for v in values])


def typed_in():
    return torch.tensor(
        [-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
         0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
    )  # fmt: skip


def by_distance(scale=None, table=nf4_code, divide=True, sign=1, squeeze=False):
    def way(x):
        absmax = x.abs().amax(-1, keepdim=True) if scale is None else scale(x)
        scaled = sign * (x / absmax if divide else x)
        indices = (scaled[..., None] - table()).abs().argmin(-1).to(torch.uint8)
        return indices, absmax.squeeze(-1) if squeeze else absmax

    return way


def in_a_loop(x):
    levels = nf4_code().tolist()
    indices, scales = torch.zeros(x.shape, dtype=torch.uint8), []
    for i, row in enumerate(x.tolist()):
        largest = max(abs(v) for v in row)
        scales.append([largest])
        for j, v in enumerate(row):
            indices[i, j] = min(range(16), key=lambda k: abs(levels[k] - v / largest))
    return indices, torch.tensor(scales)


def rounded_down(x):
    absmax = x.abs().amax(-1, keepdim=True)
    return ((x / absmax)[..., None] >= nf4_code()).sum(-1).sub(1).to(torch.uint8), absmax


def rounded_up(x):
    absmax = x.abs().amax(-1, keepdim=True)
    return ((x / absmax)[..., None] > nf4_code()).sum(-1).to(torch.uint8), absmax


def values_back(x):
    indices, absmax = by_distance()(x)
    return nf4_code()[indices.long()], absmax


def turned(x):
    indices, absmax = by_distance()(x)
    return absmax, indices


def inverse(x):
    indices, absmax = by_distance()(x)
    return indices, 1 / absmax


def bits(scale=32, second=True, per=256):
    def way(block, double):
        if not double:
            return 4 + scale / block
        return (4 * block + 8 + (32 / per if second else 0)) / block

    return way


RIGHT = {
    "11.nf4_code": {"with the standard library": code(), "typed in": typed_in},
    "11.quantize_block": {"by distance": by_distance(), "number by number": in_a_loop},
    "11.bits_per_parameter": {
        "per block": bits(),
        "per 256 blocks": lambda block, double: (
            (256 * (4 * block + 8) + 32) / (256 * block) if double else 4 + 2**5 / block
        ),
    },
}

WRONG = {
    "11.nf4_code": {
        "not scaled": (code(scale=False), "not scaled"),
        "mirrored": (code(mirrored=True), "It is mirrored"),
        "31/32": (code(31 / 32), "not 31/32"),
        "29/30": (code(29 / 30), "not 29/30"),
        "no zero": (sixteen_parts, "Zero is not among them"),
        "even": (lambda: torch.arange(16) / 7.5 - 1, "evenly spaced"),
        "descending": (lambda: code()().flip(0), "descend"),
        "17 values": (code(down=8), "There are 17 values"),
        "a list": (lambda: code()().tolist(), "a tensor"),
    },
    "11.quantize_block": {
        "one scale": (by_distance(lambda x: x.abs().max().repeat(len(x), 1)), "One scale"),
        "largest value": (by_distance(lambda x: x.max(-1, keepdim=True)[0]), "largest *value*"),
        "deviation": (by_distance(lambda x: x.std(-1, keepdim=True)), "standard deviation"),
        "not divided": (by_distance(divide=False), "not divided"),
        "evenly spaced": (by_distance(table=int4_code), "evenly spaced"),
        "below": (rounded_down, "*below*"),
        "above": (rounded_up, "*above*"),
        "signs": (by_distance(sign=-1), "signs are turned"),
        "inverse scale": (inverse, "upside down"),
        "swapped": (turned, "Indices first"),
        "values": (values_back, "These are the values of the code"),
        "a dimension lost": (by_distance(squeeze=True), "lost a dimension"),
    },
    "11.bits_per_parameter": {
        "no scales": (lambda block, double: 4, "The scales are left out"),
        "never doubled": (lambda block, double: 4 + 32 / block, "take 8 bits each"),
        "16-bit scales": (lambda block, double: 4 + 16 / block, "32 bits, not 16"),
        "second ones forgotten": (bits(second=False), "The scales of the scales"),
        "per 256 weights": (
            lambda block, double: 4 + (8 / block + 1 / 8 if double else 32 / block),
            "256 *blocks*",
        ),
        "block squared": (
            lambda block, double: 4 + (8 / block + 32 / block**2 if double else 32 / block),
            "whatever the size of a block",
        ),
        "bytes": (lambda block, double: bits()(block, double) / 8, "These are bytes"),
        "swapped": (lambda block, double: bits()(block, not double), "swapped"),
        "4 bits a scale": (lambda block, double: math.fsum([4, 4 / block]), "4 *bytes*"),
    },
}
