"""Checks of notebook 11: the NF4 code, blocks and their scales, and what a weight then takes."""

from __future__ import annotations

import torch
from scipy.stats import norm

from sftlab.classroom.checking import Case, Exercise
from sftlab.quant import bits_per_parameter, int4_code, nf4_code, quantize_block

OUTERMOST = 0.9677083


def _code(outermost=OUTERMOST, above=9, below=8, divide=True, flip=False):
    """The code with something built wrongly."""

    def make():
        high = norm.ppf(torch.linspace(outermost, 0.5, above)[:-1].numpy())
        low = -norm.ppf(torch.linspace(outermost, 0.5, below)[:-1].numpy())
        code = torch.tensor([*low, 0.0, *high[::-1]], dtype=torch.float32)
        code = code / code.max() if divide else code
        return -code.flip(0) if flip else code

    return make


def _quantiles_of_16() -> torch.Tensor:
    code = torch.tensor(norm.ppf(((torch.arange(16) + 0.5) / 16).numpy()), dtype=torch.float32)
    return code / code.max()


CODE_MISTAKES = [
    (_code(divide=False), "The code is not scaled: divide by the largest value, so that it reaches from −1 to 1."),
    (_code(flip=True), "It is mirrored: NF4 has 8 values above zero and 7 below."),
    (_code(outermost=31 / 32), "The outermost quantile is ½(29/30 + 31/32) = 0.9677083, not 31/32."),
    (_code(outermost=29 / 30), "The outermost quantile is ½(29/30 + 31/32) = 0.9677083, not 29/30."),
    (_quantiles_of_16, "These are 16 equal parts of one normal distribution. Zero is not among them, and NF4 has it: build both sides apart."),
    (lambda: torch.linspace(-1, 1, 16), "These values are evenly spaced. NF4's lie denser around zero, as weights do."),
    (lambda: nf4_code().flip(0), "The values descend. Sort them: the nearest one is looked up by bisection."),
    (_code(below=9), "There are 17 values, 8 on either side. Four bits tell 16 apart: take 7 quantiles below zero."),
]  # fmt: skip


def _rows() -> tuple:
    """Four blocks of very different size, none of whose scales is 1; the largest may be negative."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 24, generator=generator) * torch.tensor([[0.02], [50.0], [3.0], [0.4]])
    x[2, 5] = -20.0
    return (x,)


def _by(scale, divide=True, code=nf4_code, sign=1):
    """Indices and scales, where something about the scale or the code is wrong."""

    def way(x):
        absmax = scale(x)
        scaled = sign * (x / absmax if divide else x)
        levels = code()
        return torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2).to(torch.uint8), absmax

    return way


def _absmax(x):
    return x.abs().amax(dim=-1, keepdim=True)


def _floor(x):
    absmax = _absmax(x)
    return (torch.bucketize(x / absmax, nf4_code(), right=True) - 1).clamp(0).to(
        torch.uint8
    ), absmax


def _ceiling(x):
    absmax = _absmax(x)
    return torch.bucketize(x / absmax, nf4_code()).to(torch.uint8), absmax


BLOCK_MISTAKES = [
    (_by(lambda x: x.abs().max().expand(x.shape[0], 1).clone()), "One scale for everything: each row is a block of its own, and has its own largest magnitude."),
    (_by(lambda x: x.amax(dim=-1, keepdim=True)), "The scale is the largest *value*. A block's largest magnitude may be negative: take `abs()` first."),
    (_by(lambda x: x.std(dim=-1, keepdim=True)), "The scale is the standard deviation. Then a value beyond it is cut to the end of the code: use the largest magnitude."),
    (_by(_absmax, divide=False), "The block is not divided by its scale before the nearest value is looked up."),
    (_by(_absmax, code=int4_code), "These are indices of evenly spaced values. Use NF4's."),
    (_floor, "Each number takes the value of the code *below* it. Asked for is the nearest: compare with the midpoints."),
    (_ceiling, "Each number takes the value of the code *above* it. Asked for is the nearest: compare with the midpoints."),
    (_by(_absmax, sign=-1), "The signs are turned round."),
    (lambda x: (quantize_block(x)[0], 1 / _absmax(x)), "The scale is upside down: it is what the code's values are multiplied with to come back."),
    (lambda x: quantize_block(x)[::-1], "Indices first, then scales."),
    (lambda x: (nf4_code()[quantize_block(x)[0].int()], _absmax(x)), "These are the values of the code. Asked for are their indices, 0 to 15, as uint8: they take 4 bits."),
    (lambda x: (quantize_block(x)[0], _absmax(x).squeeze(-1)), "The scales have lost a dimension. Keep it, as (…, 1), so that they multiply row by row."),
]  # fmt: skip

BITS_MISTAKES = [
    (lambda b, d: 4.0, "The scales are left out. Each block has one, and each weight bears its share."),
    (lambda b, d: 4 + 32 / b, "With double quantisation the scales take 8 bits each, and not 32."),
    (lambda b, d: 4 + 16 / b, "A scale is a float32 here: 32 bits, not 16."),
    (lambda b, d: 4 + 8 / b if d else 4 + 32 / b, "The scales of the scales are left out: 32 bits for each 256 blocks."),
    (lambda b, d: 4 + 8 / b + 32 / 256 if d else 4 + 32 / b, "One second scale serves 256 *blocks*, that is 256 times the block's size in weights."),
    (lambda b, d: 4 + 8 / b + 32 / (b * b) if d else 4 + 32 / b, "A second scale is shared by 256 scales, whatever the size of a block."),
    (lambda b, d: bits_per_parameter(b, d) / 8, "These are bytes. Asked for are bits."),
    (lambda b, d: 4 + 32 / b if d else 4 + 8 / b + 32 / (b * 256), "The two cases are swapped."),
    (lambda b, d: 4 + 4 / b, "The scale is counted as 4 bits. It is 4 *bytes*."),
]  # fmt: skip


def _bits(describe: str, block: int, double: bool) -> Case:
    return Case(
        describe, lambda: (block, double), bits_per_parameter, BITS_MISTAKES, tolerance=1e-6
    )


EXERCISES = {
    "11.nf4_code": Exercise(
        id="11.nf4_code",
        title="The 16 values of NF4",
        reference=nf4_code,
        cases=[Case("the code", lambda: (), nf4_code, CODE_MISTAKES, tolerance=1e-5)],
        hints=[
            "Three parts: 7 quantiles below zero, zero, 8 quantiles above. `scipy.stats.norm.ppf` turns a probability into a quantile.",
            "Above: the probabilities run in 9 even steps from 0.9677083 to 0.5, and the last, which is zero, is dropped. Below: 8 steps, mirrored.",
            "Sort, divide by the largest, return float32.",
        ],
        why="Quantiles lie densest where most weights are. They are not used equally often, as is often said: a block is stretched to its largest magnitude, and the outer values are rare. Zero is built in, because padding and pruned weights must stay exactly zero; that is what makes the two sides differ.",
    ),
    "11.quantize_block": Exercise(
        id="11.quantize_block",
        title="A block and its scale",
        reference=quantize_block,
        cases=[Case("4 blocks of 24 numbers, of sizes from 0.02 to 50", _rows, quantize_block, BLOCK_MISTAKES, tolerance=1e-6)],
        hints=[
            "The scale of a row is its largest magnitude: `x.abs().amax(dim=-1, keepdim=True)`.",
            "Divide by it. Everything lies within [−1, 1] now, as the code does.",
            "The nearest value: `torch.bucketize` with the 15 midpoints between neighbours of the code gives its index.",
        ],
        why="Midpoints make the nearest value one bisection instead of 16 comparisons. The scale is the largest magnitude, so that nothing is cut off; one outlier therefore coarsens its whole block, and blocks are small for that reason.",
    ),
    "11.bits_per_parameter": Exercise(
        id="11.bits_per_parameter",
        title="Bits for each weight",
        reference=bits_per_parameter,
        cases=[
            _bits("blocks of 64, scales in 32 bits", 64, False),
            _bits("blocks of 64, double quantisation", 64, True),
            _bits("blocks of 128, double quantisation", 128, True),
            _bits("blocks of 32, scales in 32 bits", 32, False),
        ],
        hints=[
            "4 bits, and the share of one scale: its bits divided by the weights of a block.",
            "Doubled: the scale has 8 bits, and 256 scales share a float32.",
        ],
        why="4.5 bits against 4.127: 0.37 bits sound like nothing, and are 3 GB on 65 billion weights.",
    ),
}  # fmt: skip
