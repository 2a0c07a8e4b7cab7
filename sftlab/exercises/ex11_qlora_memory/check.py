"""Checks of notebook 11: the NF4 code, blocks and their scales, and what a weight then takes."""

from __future__ import annotations

import torch
from scipy.stats import norm

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.quant import bits_per_parameter, int4_code, nf4_code, quantize_block

CODE, BLOCK, BITS = "11.nf4_code", "11.quantize_block", "11.bits_per_parameter"


def _quantiles(count, outermost=0.9677083):
    return norm.ppf(torch.linspace(outermost, 0.5, count + 1)[:-1].numpy())


def _joined(above, below):
    code = torch.tensor([*-below, 0.0, *above[::-1]], dtype=torch.float32)
    return code / code.max()


@mistake(CODE, "The code is not scaled: divide by the largest value, so that it reaches from −1 to 1.")  # fmt: skip
def _not_scaled():
    return nf4_code() * float(_quantiles(8).max())


@mistake(CODE, "It is mirrored: NF4 has 8 values above zero and 7 below.")
def _mirrored():
    return -nf4_code().flip(0)


@mistake(CODE, "The outermost quantile is ½(29/30 + 31/32) = 0.9677083, not 31/32.")
def _outermost_of_16():
    return _joined(_quantiles(8, 31 / 32), _quantiles(7, 31 / 32))


@mistake(CODE, "The outermost quantile is ½(29/30 + 31/32) = 0.9677083, not 29/30.")
def _outermost_of_15():
    return _joined(_quantiles(8, 29 / 30), _quantiles(7, 29 / 30))


@mistake(CODE, "These are 16 equal parts of one normal distribution. Zero is not among them, and NF4 has it: build both sides apart.")  # fmt: skip
def _sixteen_parts():
    code = torch.tensor(norm.ppf(((torch.arange(16) + 0.5) / 16).numpy()), dtype=torch.float32)
    return code / code.max()


@mistake(CODE, "These values are evenly spaced. NF4's lie denser around zero, as weights do.")
def _evenly_spaced():
    return torch.linspace(-1, 1, 16)


@mistake(CODE, "The values descend. Sort them: the nearest one is looked up by bisection.")
def _descending():
    return nf4_code().flip(0)


@mistake(CODE, "There are 17 values, 8 on either side. Four bits tell 16 apart: take 7 quantiles below zero.")  # fmt: skip
def _seventeen_values():
    return _joined(_quantiles(8), _quantiles(8))


def _rows() -> tuple:
    """Four blocks of very different size, none of whose scales is 1; the largest may be negative."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 24, generator=generator) * torch.tensor([[0.02], [50.0], [3.0], [0.4]])
    x[2, 5] = -20.0
    return (x,)


def _absmax(x):
    return x.abs().amax(dim=-1, keepdim=True)


def _nearest(scaled, code):
    return torch.bucketize(scaled, (code[1:] + code[:-1]) / 2).to(torch.uint8)


def _scaled_by(x, scale):
    return _nearest(x / scale, nf4_code()), scale


@mistake(BLOCK, "One scale for everything: each row is a block of its own, and has its own largest magnitude.")  # fmt: skip
def _one_scale(x):
    return _scaled_by(x, x.abs().max().repeat(len(x), 1))


@mistake(BLOCK, "The scale is the largest *value*. A block's largest magnitude may be negative: take `abs()` first.")  # fmt: skip
def _largest_value(x):
    return _scaled_by(x, x.amax(dim=-1, keepdim=True))


@mistake(BLOCK, "The scale is the standard deviation. Then a value beyond it is cut to the end of the code: use the largest magnitude.")  # fmt: skip
def _deviation(x):
    return _scaled_by(x, x.std(dim=-1, keepdim=True))


@mistake(BLOCK, "The block is not divided by its scale before the nearest value is looked up.")
def _not_divided(x):
    return _nearest(x, nf4_code()), _absmax(x)


@mistake(BLOCK, "These are indices of evenly spaced values. Use NF4's.")
def _even_code(x):
    return _nearest(x / _absmax(x), int4_code()), _absmax(x)


@mistake(BLOCK, "Each number takes the value of the code *below* it. Asked for is the nearest: compare with the midpoints.")  # fmt: skip
def _rounded_down(x):
    reached = (x / _absmax(x))[..., None] >= nf4_code()
    return (reached.sum(-1) - 1).to(torch.uint8), _absmax(x)


@mistake(BLOCK, "Each number takes the value of the code *above* it. Asked for is the nearest: compare with the midpoints.")  # fmt: skip
def _rounded_up(x):
    passed = (x / _absmax(x))[..., None] > nf4_code()
    return passed.sum(-1).to(torch.uint8), _absmax(x)


@mistake(BLOCK, "The signs are turned round.")
def _signs_turned(x):
    return quantize_block(-x)


@mistake(BLOCK, "The scale is upside down: it is what the code's values are multiplied with to come back.")  # fmt: skip
def _inverse_scale(x):
    indices, absmax = quantize_block(x)
    return indices, 1 / absmax


@mistake(BLOCK, "Indices first, then scales.")
def _scales_first(x):
    return quantize_block(x)[::-1]


@mistake(BLOCK, "These are the values of the code. Asked for are their indices, 0 to 15, as uint8: they take 4 bits.")  # fmt: skip
def _values(x):
    indices, absmax = quantize_block(x)
    return nf4_code()[indices.int()], absmax


@mistake(BLOCK, "The scales have lost a dimension. Keep it, as (…, 1), so that they multiply row by row.")  # fmt: skip
def _dimension_lost(x):
    indices, absmax = quantize_block(x)
    return indices, absmax.squeeze(-1)


@mistake(BITS, "The scales are left out. Each block has one, and each weight bears its share.")
def _no_scales(block, double):
    return 4.0


@mistake(BITS, "With double quantisation the scales take 8 bits each, and not 32.")
def _never_doubled(block, double):
    return 4 + 32 / block


@mistake(BITS, "A scale is a float32 here: 32 bits, not 16.")
def _scales_of_16_bits(block, double):
    return 4 + 16 / block


@mistake(BITS, "The scales of the scales are left out: 32 bits for each 256 blocks.")
def _second_scales_forgotten(block, double):
    return 4 + (8 if double else 32) / block


@mistake(BITS, "One second scale serves 256 *blocks*, that is 256 times the block's size in weights.")  # fmt: skip
def _second_scale_for_256_weights(block, double):
    return 4 + (8 / block + 32 / 256 if double else 32 / block)


@mistake(BITS, "A second scale is shared by 256 scales, whatever the size of a block.")
def _second_scale_for_a_block_of_scales(block, double):
    return 4 + (8 / block + 32 / block**2 if double else 32 / block)


@mistake(BITS, "These are bytes. Asked for are bits.")
def _bytes(block, double):
    return bits_per_parameter(block, double) / 8


@mistake(BITS, "The two cases are swapped.")
def _swapped(block, double):
    return bits_per_parameter(block, not double)


@mistake(BITS, "The scale is counted as 4 bits. It is 4 *bytes*.")
def _bytes_for_bits(block, double):
    return 4 + 4 / block


def _bits(describe: str, block: int, double: bool) -> Case:
    return Case(describe, lambda: (block, double), bits_per_parameter, tolerance=1e-6)


EXERCISES = {
    CODE: Exercise(
        id=CODE,
        title="The 16 values of NF4",
        reference=nf4_code,
        cases=[Case("the code", lambda: (), nf4_code, tolerance=1e-5)],
        hints=[
            "Three parts: 7 quantiles below zero, zero, 8 quantiles above. `scipy.stats.norm.ppf` turns a probability into a quantile.",
            "Above: the probabilities run in 9 even steps from 0.9677083 to 0.5, and the last, which is zero, is dropped. Below: 8 steps, mirrored.",
            "Sort, divide by the largest, return float32.",
        ],
        why="Quantiles lie densest where most weights are. They are not used equally often, as is often said: a block is stretched to its largest magnitude, and the outer values are rare. Zero is built in, because padding and pruned weights must stay exactly zero; that is what makes the two sides differ.",
    ),
    BLOCK: Exercise(
        id=BLOCK,
        title="A block and its scale",
        reference=quantize_block,
        cases=[Case("4 blocks of 24 numbers, of sizes from 0.02 to 50", _rows, quantize_block, tolerance=1e-6)],
        hints=[
            "The scale of a row is its largest magnitude: `x.abs().amax(dim=-1, keepdim=True)`.",
            "Divide by it. Everything lies within [−1, 1] now, as the code does.",
            "The nearest value: `torch.bucketize` with the 15 midpoints between neighbours of the code gives its index.",
        ],
        why="Midpoints make the nearest value one bisection instead of 16 comparisons. The scale is the largest magnitude, so that nothing is cut off; one outlier therefore coarsens its whole block, and blocks are small for that reason.",
    ),
    BITS: Exercise(
        id=BITS,
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
