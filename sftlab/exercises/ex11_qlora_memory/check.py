"""Checks of notebook 11: the NF4 code, blocks and their scales, and the bits of a weight."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import torch
from scipy.stats import norm
from torch import Tensor

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.classroom.first_difference import difference
from sftlab.exercises.drawing import tensor
from sftlab.exercises.ex11_qlora_memory.packing import pack_indices
from sftlab.quant import bits_per_parameter, even_code, nf4_code, pack, quantize_block

CODE, BLOCK, BITS = "11.nf4_code", "11.quantize_block", "11.bits_per_parameter"
PACK = "11.pack_indices"

# --- nf4_code ------------------------------------------------------------------------------


def _quantiles(count, outermost=0.9677083):
    return norm.ppf(torch.linspace(outermost, 0.5, count + 1)[:-1].numpy())


def _joined(above, below):
    code = torch.tensor([*-below, 0.0, *above[::-1]], dtype=torch.float32)
    return code / code.max()


@mistake(CODE, "The largest value is not 1: the values are not divided by it.")
def _not_scaled():
    return nf4_code() * float(_quantiles(8).max())


@mistake(CODE, "The sides are exchanged: there are 8 values above zero and 7 below.")
def _mirrored():
    return -nf4_code().flip(0)


OUTERMOST = "The outermost probability is not 0.9677083, the mean of 29/30 and 31/32."


@mistake(CODE, OUTERMOST)
def _outermost_of_16():
    return _joined(_quantiles(8, 31 / 32), _quantiles(7, 31 / 32))


@mistake(CODE, OUTERMOST)
def _outermost_of_15():
    return _joined(_quantiles(8, 29 / 30), _quantiles(7, 29 / 30))


@mistake(CODE, OUTERMOST)
def _outermost_of_four_digits():
    return _joined(_quantiles(8, 0.9677), _quantiles(7, 0.9677))


@mistake(CODE, OUTERMOST)
def _outermost_of_two_digits():
    return _joined(_quantiles(8, 0.97), _quantiles(7, 0.97))


def _to_decimals(decimals: int) -> None:
    @mistake(CODE, "The values are rounded to a few decimals. Compute them, and keep all digits.")
    def _few_decimals():
        return nf4_code().round(decimals=decimals)


for _decimals in (2, 3, 4):
    _to_decimals(_decimals)


@mistake(CODE, "The signs of the quantiles below zero are not turned round: no value is negative.")
def _no_signs():
    return nf4_code().abs().sort().values


@mistake(CODE, "These are 16 equal parts of one normal distribution. Zero is not among them: build both sides apart.")  # fmt: skip
def _sixteen_parts():
    code = torch.tensor(norm.ppf(((torch.arange(16) + 0.5) / 16).numpy()), dtype=torch.float32)
    return code / code.max()


@mistake(CODE, "The values are evenly spaced. Those of NF4 are quantiles, denser around zero.")
def _evenly_spaced():
    return torch.linspace(-1, 1, 16)


@mistake(CODE, "The probabilities themselves are used. `norm.ppf` turns a probability into a quantile.")  # fmt: skip
def _probabilities():
    above, below = (torch.linspace(0.9677083, 0.5, n + 1)[:-1].numpy() for n in (8, 7))
    return _joined(above, below)


@mistake(CODE, "`norm.cdf` turns a quantile into a probability. Here a probability has to become a quantile: `norm.ppf`.")  # fmt: skip
def _cdf():
    above, below = (norm.cdf(torch.linspace(0.9677083, 0.5, n + 1)[:-1].numpy()) for n in (8, 7))
    return _joined(above, below)


@mistake(CODE, "The probabilities themselves are used. `norm.ppf` turns a probability into a quantile.")  # fmt: skip
def _probabilities_above_a_half():
    above, below = (torch.linspace(0.9677083, 0.5, n + 1)[:-1].numpy() - 0.5 for n in (8, 7))
    return _joined(above, below)


@mistake(CODE, "These are 16 quantiles of one even series of probabilities. Zero is not among them: build both sides apart.")  # fmt: skip
def _one_series():
    code = torch.tensor(norm.ppf(torch.linspace(1 - 0.9677083, 0.9677083, 16).numpy()))
    return (code / code.max()).float()


@mistake(CODE, "The first quantile of each side is dropped, the outermost one. Drop the last, which is zero.")  # fmt: skip
def _first_dropped():
    above, below = (
        norm.ppf(torch.linspace(0.9677083, 0.5, n)[1:].double().numpy()) for n in (9, 8)
    )
    code = torch.tensor([*-below, *above[::-1]], dtype=torch.float32)
    return code / code.max()


@mistake(CODE, "The first quantile of each side is dropped, the outermost one. Drop the last, which is zero.")  # fmt: skip
def _first_dropped_zero_kept():
    return _joined(
        *(norm.ppf(torch.linspace(0.9677083, 0.5, n).double().numpy())[1:] for n in (9, 8))
    ).sort().values  # fmt: skip


@mistake(CODE, "Zero is missing: the values on both sides are there, but zero itself is not.")
def _zero_left_out():
    code = nf4_code()
    return code[code != 0]


@mistake(CODE, "The values descend. The largest comes last.")
def _descending():
    return nf4_code().flip(0)


@mistake(CODE, "The values are not sorted.")
def _unsorted():
    code = torch.tensor([*-_quantiles(7)[::-1], 0.0, *_quantiles(8)], dtype=torch.float32)
    return code / code.max()


@mistake(CODE, "There are 17 values, 8 on either side. Four bits tell 16 apart.")
def _seventeen_values():
    return _joined(_quantiles(8), _quantiles(8))


@mistake(CODE, "There are 15 values, 7 on either side. Four bits tell 16 apart.")
def _fifteen_values():
    return _joined(_quantiles(7), _quantiles(7))


@mistake(CODE, "Zero is missing: there are 8 values on either side of it.")
def _no_zero():
    code = _joined(_quantiles(8), _quantiles(8))
    return code[code != 0]


@mistake(CODE, "The quantile of the last probability, 0.5, is zero. It is kept on both sides, so that zero comes three times.")  # fmt: skip
def _zero_three_times():
    return _joined(
        *(norm.ppf(torch.linspace(0.9677083, 0.5, n).numpy()) for n in (9, 8)),
    ).sort().values  # fmt: skip


@mistake(CODE, "One probability too few is used on each side: nine of them, the end included, leave 8 quantiles above zero when the last is dropped.")  # fmt: skip
def _probabilities_too_few():
    above, below = (norm.ppf(torch.linspace(0.9677083, 0.5, n).numpy()) for n in (8, 7))
    return _joined(above[:-1], below[:-1])


def _seen(what: Callable[[Tensor], Any]) -> Callable[[object, tuple], Any]:
    def observe(result: Any, _: tuple) -> Any:
        return what(torch.as_tensor(result).detach().double().flatten())

    return observe


def _code_case(rule: str, told: str, what: Callable[[Tensor], Any] | None = None) -> Case:
    observe = what and _seen(what)
    told = f"`nf4_code()`: {told}"
    return Case(told, lambda: (), nf4_code, tolerance=1e-5, rule=rule, observe=observe)


def _not_ascending(result: Any, _: tuple) -> str | None:
    """Return the first two values of which the second is not larger."""
    values = torch.as_tensor(result).detach().double().flatten().tolist()
    pairs = [(a, b) for a, b in itertools.pairwise(values) if not a < b]
    return f"The values do not ascend: {pairs[0][1]:.4g} follows {pairs[0][0]:.4g}." if pairs else None  # fmt: skip


CODE_CASES = (
    _code_case("sides", "how many values there are on each side of zero", lambda code: {
        "below zero": int((code < 0).sum()), "zero": int((code == 0).sum()), "above zero": int((code > 0).sum())}),
    Case("`nf4_code()`: the type of the result, its dtype and its shape", lambda: (), nf4_code, rule="dtype",
         observe=lambda code, _: torch.zeros_like(code) if isinstance(code, Tensor) else code),
    _code_case("largest", "the largest value", lambda code: float(code.max())),
    Case("`nf4_code()`: the order of the values", lambda: (), rule="sorted", verify=_not_ascending),
    _code_case("above", "the values above zero, divided by the largest", lambda code: (code[code > 0].sort().values / code.max()).tolist()),
    _code_case("below", "the values below zero, divided by the largest", lambda code: (code[code < 0].sort().values / code.max()).tolist()),
)  # fmt: skip

# --- quantize_block ------------------------------------------------------------------------


def _absmax(x):
    return x.float().abs().amax(dim=-1, keepdim=True)


def _nearest(scaled, code):
    return torch.bucketize(scaled, (code[1:] + code[:-1]) / 2).to(torch.uint8)


def _scaled_by(x, scale):
    return _nearest(x.float() / scale.clamp(min=1e-38), nf4_code()), scale


@mistake(BLOCK, "All blocks have the same scale. Each row of x is a block with its own largest magnitude.")  # fmt: skip
def _one_scale(x):
    return _scaled_by(x, _absmax(x).max().repeat(len(x), 1))


@mistake(BLOCK, "The scale is the largest value of the block. Its largest magnitude may belong to a negative number: take absolute values first.")  # fmt: skip
def _largest_value(x):
    return _scaled_by(x, x.float().amax(dim=-1, keepdim=True))


@mistake(BLOCK, "The scale is the standard deviation of the block, so larger numbers are cut to the end of the code.")  # fmt: skip
def _deviation(x):
    return _scaled_by(x, x.float().std(dim=-1, keepdim=True))


@mistake(BLOCK, "The scale is the mean magnitude of the block, so larger numbers are cut to the end of the code.")  # fmt: skip
def _mean(x):
    return _scaled_by(x, x.float().abs().mean(dim=-1, keepdim=True))


@mistake(BLOCK, "The scales go down the columns. A block is a row: take the largest magnitude over the last dimension.")  # fmt: skip
def _by_column(x):
    return _scaled_by(x, x.float().abs().amax(dim=0, keepdim=True))


@mistake(BLOCK, "The numbers are not divided by the scale before the nearest value is looked up.")
def _not_divided(x):
    return _nearest(x.float(), nf4_code()), _absmax(x)


@mistake(BLOCK, "The indices are those of evenly spaced values. Use the values of NF4.")
def _even_code(x):
    return _nearest(x.float() / _absmax(x).clamp(min=1e-38), even_code()), _absmax(x)


@mistake(BLOCK, "Each number gets the value of the code below it, not the nearest one.")
def _rounded_down(x):
    reached = (x.float() / _absmax(x).clamp(min=1e-38))[..., None] >= nf4_code()
    return (reached.sum(-1) - 1).to(torch.uint8), _absmax(x)


@mistake(BLOCK, "Each number gets the value of the code above it, not the nearest one.")
def _rounded_up(x):
    passed = (x.float() / _absmax(x).clamp(min=1e-38))[..., None] > nf4_code()
    return passed.sum(-1).to(torch.uint8), _absmax(x)


@mistake(BLOCK, "The signs of the numbers are lost or turned round before the nearest value is looked up.")  # fmt: skip
def _signs_turned(x):
    return quantize_block(-x)


@mistake(BLOCK, "The signs of the numbers are lost or turned round before the nearest value is looked up.")  # fmt: skip
def _signs_lost(x):
    return quantize_block(x.abs())


@mistake(BLOCK, "In a block of zeros every index is 0, which stands for -1. If the numbers are divided by the scale 0, they become NaN, and the index of NaN is arbitrary.")  # fmt: skip
def _zeros_divided(x):
    scaled = x.float() / _absmax(x)
    return (scaled[..., None] - nf4_code()).abs().argmin(-1).to(torch.uint8), _absmax(x)


@mistake(BLOCK, "In a block of zeros every index is 15, which stands for 1. If the numbers are divided by the scale 0, they become NaN, and the index of NaN is arbitrary.")  # fmt: skip
def _zeros_divided_bisection(x):
    return _nearest(x.float() / _absmax(x), nf4_code()), _absmax(x)


@mistake(BLOCK, "A block of zeros gets the scale 1. Its scale is its largest magnitude, 0.")
def _scale_1_for_zeros(x):
    indices, absmax = quantize_block(x)
    return indices, absmax.masked_fill(absmax == 0, 1)


@mistake(BLOCK, "The scale is upside down: it is what the values of the code are multiplied by.")
def _inverse_scale(x):
    indices, absmax = quantize_block(x)
    return indices, 1 / absmax


@mistake(BLOCK, "The scales come first. Return (indices, scales).")
def _scales_first(x):
    return quantize_block(x)[::-1]


@mistake(BLOCK, "The values of the code are returned. Return their indices, 0 to 15.")
def _values(x):
    indices, absmax = quantize_block(x)
    return nf4_code()[indices.int()], absmax


@mistake(BLOCK, "The indices come alone. Return (indices, scales).")
def _indices_alone(x):
    return quantize_block(x)[0]


@mistake(BLOCK, "The scales come alone. Return (indices, scales).")
def _scales_alone(x):
    return quantize_block(x)[1]


@mistake(BLOCK, "The scale is the Euclidean norm of the block. It is the largest magnitude.")
def _norm(x):
    return _scaled_by(x, x.float().norm(dim=-1, keepdim=True))


@mistake(BLOCK, "The scale of the first block is used for all. Each row of x is a block with its own largest magnitude.")  # fmt: skip
def _first_scale(x):
    return _scaled_by(x, _absmax(x)[:1].repeat(len(x), 1))


def _in_16_bits(dtype: torch.dtype) -> None:
    @mistake(BLOCK, "x is rounded to 16 bits first, although it is in float32. Convert to float32 instead.")  # fmt: skip
    def _rounded_first(x):
        return quantize_block(x.to(dtype))


_in_16_bits(torch.bfloat16)
_in_16_bits(torch.float16)


def _with_floor(floor: float) -> None:
    @mistake(BLOCK, "In blocks of tiny numbers the indices are wrong: something is added to the divisor, it has a lower limit, or they are taken for zeros.")  # fmt: skip
    def _clamped(x):
        return _nearest(x.float() / _absmax(x).clamp(min=floor), nf4_code()), _absmax(x)

    @mistake(BLOCK, "In blocks of tiny numbers the indices are wrong: something is added to the divisor, it has a lower limit, or they are taken for zeros.")  # fmt: skip
    def _increased(x):
        return _nearest(x.float() / (_absmax(x) + floor), nf4_code()), _absmax(x)

    @mistake(BLOCK, "Something is added to the scales, or they have a lower limit. The scale of a block of zeros is exactly 0.")  # fmt: skip
    def _scales_clamped(x):
        return _scaled_by(x, _absmax(x).clamp(min=floor))

    @mistake(BLOCK, "Something is added to the scales, or they have a lower limit. The scale of a block of zeros is exactly 0.")  # fmt: skip
    def _scales_increased(x):
        return _scaled_by(x, _absmax(x) + floor)


for _floor in (1e-3, 1e-5, 1e-6, 1e-8):
    _with_floor(_floor)


@mistake(BLOCK, "The indices count from 1. They are 0 to 15.")
def _from_one(x):
    indices, absmax = quantize_block(x)
    return indices + 1, absmax


@mistake(BLOCK, "The scales have lost a dimension. With the shape (blocks, 1) they multiply the numbers of their own block.")  # fmt: skip
def _dimension_lost(x):
    indices, absmax = quantize_block(x)
    return indices, absmax.squeeze(-1)


def _two_blocks() -> tuple:
    """Two blocks of very different size; the second one's largest magnitude is negative."""
    return (torch.tensor([[0.25, -0.5, 0.0625, 0.875, 0], [11, -47, 29, 3, -19.0]]),)


def _four_blocks() -> tuple:
    generator = torch.Generator().manual_seed(2)
    return (torch.randn(4, 23, generator=generator) * torch.tensor([[0.02], [50.0], [3.0], [0.4]]),)


def _half_precision() -> tuple:
    return (torch.randn(3, 37, generator=torch.Generator().manual_seed(5)).bfloat16(),)


def _with_zeros() -> tuple:
    return (torch.tensor([[0.3, -0.8, 0.1], [0.0, 0.0, 0.0]]),)


def _tiny() -> tuple:
    return (torch.tensor([[3e-6, -8e-6, 1e-6, 2e-6], [4e-10, 2e-10, -1e-10, 7e-10]]),)


def _enlarged(*factors: float) -> Callable[[Any, tuple], Any]:
    """Multiply the scales of two blocks, so that differences of small ones are seen."""

    def observe(result: Any, _: tuple) -> Any:
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            return result
        indices, scales = result
        fits = isinstance(scales, Tensor) and scales.shape == (2, 1)
        return indices, scales * torch.tensor(factors)[:, None] if fits else scales

    return observe


def _wrong_scales(result: Any, _: tuple) -> str | None:
    """Return the first difference of the scales, whatever the indices are."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        return difference(result, quantize_block(*_two_blocks()), 1e-6, ("dtype",))
    return difference(result[1], _absmax(*_two_blocks()), 1e-6, ("dtype",), "scales")


def _block_case(rule: str, told: str, make: Callable, verify=None, observe=None) -> Case:
    told = f"`quantize_block(x)`: {told}"
    expected = None if verify else quantize_block
    return Case(told, make, expected, 1e-6, rule=rule, verify=verify, observe=observe)


BLOCK_CASES = (
    _block_case("scales", f"the scales alone, x = {_two_blocks()[0].tolist()}", _two_blocks, _wrong_scales),
    _block_case("nearest", f"x = {_two_blocks()[0].tolist()}", _two_blocks),
    _block_case("nearest", "4 blocks of 23 numbers, of sizes from 0.02 to 50", _four_blocks),
    _block_case("tiny", "blocks of tiny numbers; their scales are multiplied by 1e5 and 1e9 here", _tiny, observe=_enlarged(1e5, 1e9)),
    _block_case("zeros", "x = [[0.3, -0.8, 0.1], [0.0, 0.0, 0.0]]; the second scale is multiplied by 1e30 here", _with_zeros, observe=_enlarged(1, 1e30)),
    _block_case("dtype", "3 blocks of 37 numbers in bfloat16", _half_precision),
)  # fmt: skip


def _draw_blocks(rng: random.Random, *_: object) -> tuple:
    blocks = rng.randint(2, 5)
    return (tensor(rng, blocks, rng.randint(5, 40)) * tensor(rng, blocks, 1).exp() * 3,)


# --- pack_indices --------------------------------------------------------------------------


@mistake(PACK, "The second of two indices is in the high half. The first belongs there.")
def _second_high(indices):
    return indices.flatten()[1::2] << 4 | indices.flatten()[::2]


@mistake(PACK, "An index of the first half of all is paired with one of the second half. Neighbors share a byte.")  # fmt: skip
def _halves(indices):
    first, second = indices.flatten().chunk(2)
    return first << 4 | second


@mistake(PACK, "The pairs go down the columns. Neighbors of a row share a byte.")
def _down_the_columns(indices):
    return pack_indices(indices.T)


@mistake(PACK, "The two indices are added in the same four bits. Shift the first into the high half.")  # fmt: skip
def _not_shifted(indices):
    return indices.flatten()[::2] + indices.flatten()[1::2]


@mistake(PACK, "The first index of each pair is lost. Shifted by 8, it leaves a byte: the high half begins at bit 4.")  # fmt: skip
def _shifted_by_8(indices):
    return indices.flatten()[1::2].clone()


@mistake(PACK, "The two indices stand like decimal digits: ten times the first. The high half of a byte counts sixteens.")  # fmt: skip
def _decimal(indices):
    return 10 * indices.flatten()[::2] + indices.flatten()[1::2]


@mistake(PACK, "Each index still has a byte of its own. Two share one.")
def _not_packed(indices):
    return indices.flatten().clone()


def _pack_case(rule: str, *rows: list[int]) -> Case:
    return Case(
        f"`pack_indices(indices)`, indices = {list(rows)}",
        lambda: (torch.tensor(rows, dtype=torch.uint8),),
        pack_indices,
        rule=rule,
    )


PACK_CASES = (
    _pack_case("order", [12, 3, 0, 9, 7, 14], [5, 15, 1, 0, 8, 2]),
    _pack_case("rows", [4, 13, 6, 1, 10], [11, 0, 15, 2, 9]),
    _pack_case("dtype", [15, 15, 2, 0], [0, 7, 13, 1], [6, 11, 3, 8]),
)


def _draw_indices(rng: random.Random, *_: object) -> tuple:
    blocks, size = 2 * rng.randint(1, 3), rng.randint(3, 9)
    rows = [[rng.randrange(16) for _ in range(size)] for _ in range(blocks)]
    return (torch.tensor(rows, dtype=torch.uint8),)


# --- bits_per_parameter --------------------------------------------------------------------


@mistake(
    BITS, "The scales are left out. Each block has one, and each weight bears its share of it."
)
def _no_scales(block, double):
    return 4.0


@mistake(BITS, "`double` has no effect on the result. With double quantization a scale takes 8 bits.")  # fmt: skip
def _never_double(block, double):
    return 4 + 32 / block


@mistake(BITS, "`double` has no effect on the result. Without double quantization a scale takes 32 bits.")  # fmt: skip
def _always_double(block, double):
    return bits_per_parameter(block, True)


@mistake(BITS, "A float32 scale is counted with 16 bits. It takes 32.")
def _scales_of_16_bits(block, double):
    return bits_per_parameter(block, True) if double else 4 + 16 / block


@mistake(BITS, "The float32 of each block is kept beside its 8 bits. With double quantization the 8-bit scale takes its place.")  # fmt: skip
def _both_scales(block, double):
    return bits_per_parameter(block, double) + (32 / block if double else 0)


@mistake(BITS, "With double quantization the further float32 for each 256 scales is left out.")
def _second_scales_forgotten(block, double):
    return 4 + (8 if double else 32) / block


@mistake(BITS, "The further float32 is divided among 256 weights. It belongs to 256 scales, and each of these to a whole block of weights.")  # fmt: skip
def _second_scale_for_256_weights(block, double):
    return 4 + (8 / block + 32 / 256 if double else 32 / block)


@mistake(BITS, "The further float32 is shared by as many scales as a block has weights. It is shared by 256 scales, for every block size.")  # fmt: skip
def _second_scale_for_a_block_of_scales(block, double):
    return 4 + (8 / block + 32 / block**2 if double else 32 / block)


@mistake(BITS, "With double quantization each block bears a whole float32 besides its 8 bits. 256 scales share it.")  # fmt: skip
def _second_scale_for_each_block(block, double):
    return 4 + (40 if double else 32) / block


@mistake(BITS, "The result is in bytes. Return bits.")
def _bytes(block, double):
    return bits_per_parameter(block, double) / 8


@mistake(BITS, "The two cases are exchanged: double quantization makes the scales smaller.")
def _exchanged(block, double):
    return bits_per_parameter(block, not double)


@mistake(BITS, "Scales are counted in bytes and the index in bits. A float32 takes 32 bits.")
def _bytes_for_bits(block, double):
    return 4 + ((1 + 4 / 256) / block if double else 4 / block)


@mistake(BITS, "The 4 bits of the index are left out: this is the share of the scales alone.")
def _scales_alone_counted(block, double):
    return bits_per_parameter(block, double) - 4


@mistake(BITS, "The result is the number of bits of the whole block. Return those of one weight.")
def _whole_block(block, double):
    return bits_per_parameter(block, double) * block


def _to_decimals_of_bits(decimals: int) -> None:
    @mistake(BITS, "The result is rounded to a few decimals. Return it as it is.")
    def _few_decimals(block, double):
        return round(bits_per_parameter(block, double), decimals)


for _decimals in (1, 2, 3):
    _to_decimals_of_bits(_decimals)


@mistake(BITS, "The result is rounded to a whole number. A weight bears a fraction of the scale's bits.")  # fmt: skip
def _whole(block, double):
    return round(bits_per_parameter(block, double))


@mistake(BITS, "The result is rounded up to a whole number. A weight bears a fraction of the scale's bits.")  # fmt: skip
def _rounded_up_to_bits(block, double):
    return math.ceil(bits_per_parameter(block, double))


@mistake(
    BITS, "The further float32 is divided among 256 blocks of 64 weights, whatever `block` is."
)
def _second_blocks_of_64(block, double):
    return 4 + (8 / block + 32 / (256 * 64) if double else 32 / block)


@mistake(BITS, "With double quantization the 8 bits are divided among 256 blocks as well. Each block has its own 8 bits; only the float32 is shared.")  # fmt: skip
def _both_shared(block, double):
    return 4 + (40 / (256 * block) if double else 32 / block)


@mistake(BITS, "The further float32 is multiplied by 256: `a / b * c` divides by b alone. It is divided by 256 and by the block size.")  # fmt: skip
def _times_256(block, double):
    return 4 + (8 / block + 32 / block * 256 if double else 32 / block)


@mistake(BITS, "The scales are counted with 16 bits. A float32 takes 32.")
def _both_of_16_bits(block, double):
    return 4 + (8 / block + 16 / (256 * block) if double else 16 / block)


@mistake(BITS, "The block size has no effect on the result: it is that of blocks of 64 weights.")
def _known_numbers(block, double):
    return 4.127 if double else 4.5


@mistake(BITS, "The block size has no effect on the result: it is that of blocks of 64 weights.")
def _blocks_of_64(block, double):
    return bits_per_parameter(64, double)


@mistake(BITS, "The further float32 gives a quarter of its share: it is counted with 8 bits, or among 1024 scales. It has 32 bits, for 256 scales.")  # fmt: skip
def _shared_by_1024(block, double):
    return 4 + (8 / block + 32 / (1024 * block) if double else 32 / block)


@mistake(BITS, "The share of a scale is cut down to a whole number, as by `//`. A weight bears a fraction of it.")  # fmt: skip
def _floored(block, double):
    return 4 + ((8 // block) + 32 // (block * 256) if double else 32 // block)


def _bits(rule: str, block: int, double: bool) -> Case:
    told = f"`bits_per_parameter({block}, {double})`"
    return Case(told, lambda: (block, double), bits_per_parameter, tolerance=1e-7, rule=rule)


BITS_CASES = (
    _bits("single", 61, False),
    _bits("double", 61, True),
    _bits("share", 20, False),
    _bits("share", 1000, True),
)


def _draw_bits(rng: random.Random, *_: object) -> tuple:
    return rng.randint(16, 2000), rng.random() < 0.5


EXERCISES = {
    exercise.id: exercise
    for exercise in (
        Exercise(
            CODE,
            "The 16 values of NF4",
            nf4_code,
            CODE_CASES,
            asks="Return the 16 values of NF4, quantiles of the standard normal distribution: a tensor.",
            rules={
                "sides": "There are 8 values above zero, 7 below, and zero itself.",
                "above": "Above: quantiles of 9 evenly spaced probabilities, 0.9677083 to 0.5; drop the last.",
                "below": "Below: likewise with 8 probabilities, 0.9677083 to 0.5; drop the last and change the signs.",
                "largest": "All values are divided by the largest one, so they reach from -1 to 1.",
                "sorted": "The values ascend.",
                "dtype": "The dtype is float32, because quantized weights are computed in it.",
            },
            hints=(
                "Build three parts and put them together: the values above zero, zero, the values below zero.",
                ("above", "`torch.linspace` or `np.linspace` makes the probabilities, `scipy.stats.norm.ppf` the quantiles."),
                "Sort and divide once all 16 values are in one list; the tensor comes last.",
            ),
            path="Begin with the side above zero: nine probabilities, nine quantiles, and the last one is zero, so drop it. The side below has one probability less and the other sign. "
            "Put zero between them, sort, and divide by the largest. The usual wrong turn is to count: `linspace` is told how many points there are, not how many steps.",
            why="Quantiles lie densest where most weights are. They are not used equally often, as is often said: a block is stretched to its largest magnitude, and the outer values are rare. "
            "Zero is built in, because padding and pruned weights must stay exactly zero; that is what makes the two sides differ.",
        ),
        Exercise(
            BLOCK,
            "A block and its scale",
            quantize_block,
            BLOCK_CASES,
            asks="Quantize each block with the NF4 code; return (indices, scales).\n\n"
            "x: tensor (blocks, size); every row is a block. `nf4_code()` gives the 16 values.",
            rules={
                "scales": "scales: (blocks, 1), for each block its largest magnitude.",
                "nearest": "indices: (blocks, size), 0 to 15: the value of the code nearest to number / scale.",
                "tiny": "It holds for tiny numbers, such as 1e-9: scales have no lower limit.",
                "zeros": "A block of zeros has scale 0, exactly, and indices that stand for the value 0.",
                "dtype": "x may be in 16 bits; compute in float32. Scales are float32, indices uint8.",
                "unchanged": "x stays as it is.",
            },
            draw=_draw_blocks,
            hints=(
                "Each block is stretched so that it reaches from -1 or to 1, as the code does. Which number of the block decides how far?",
                ("nearest", "With 16 values, the nearest one can be found by 16 distances, or by the 15 midpoints between neighbors."),
                "Three places need care: keep the dimension of the scales, avoid the division 0 / 0, and convert x and the indices to their dtypes.",
            ),
            path="Take the scales first: the largest magnitude over the last dimension, with the dimension kept, so that the division works row by row. After the division everything lies within "
            "[-1, 1]. For the nearest value compare with all 16, or count the midpoints below the number. The usual wrong turns are the largest value in place of the largest magnitude, and 0 / 0 in a block of zeros.",
            why="Midpoints make the nearest value one bisection instead of 16 comparisons. The scale is the largest magnitude, so that nothing is cut off; one outlier therefore coarsens "
            "its whole block, and blocks are small for that reason.",
        ),
        Exercise(
            PACK,
            "Two weights in a byte",
            pack_indices,
            PACK_CASES,
            asks="Return the bytes of 4-bit indices, two in each.\n\n"
            "indices: (blocks, size), uint8, 0 to 15; an even number of them.",
            rules={
                "order": "Neighbors share a byte, the first of them in its high half.",
                "rows": "The rows follow one another; a byte may hold the end of one and the start of the next.",
                "dtype": "The result has one dimension, half as many numbers, and the dtype uint8.",
                "unchanged": "indices stays as it is.",
            },
            draw=_draw_indices,
            hints=(
                "Which indices come first in a pair? A slice with a step takes them all at once.",
                ("order", "`<<` shifts bits to the left; `|` joins the bits of two numbers."),
                "The place to look is the shape: make one row of all indices before you take every second one.",
            ),
            path="Make one row of the indices. Take every second one from the first on, and every second one from the second on. Shift the former by four bits and join them. "
            "The usual wrong turn is the other half: bitsandbytes has the first index in the high one.",
            why="An index of NF4 is a place in a table: before a product the bytes are unpacked and looked up. The order within a byte is an agreement. "
            "A reader with the other order gets each pair exchanged, without an error.",
            shows=(pack,),
        ),
        Exercise(
            BITS,
            "Bits for each weight",
            bits_per_parameter,
            BITS_CASES,
            asks="Return the bits that one weight takes in NF4, its share of the scales included.\n\n"
            "block: number of weights that share a scale. double: with double quantization?",
            rules={
                "single": "A weight has an index of 4 bits. The scale of its block is one float32.",
                "double": "With double: a scale of 8 bits, and a further float32 shared by 256 scales.",
                "share": "What weights share is divided equally among them; bits, not rounded.",
            },
            draw=_draw_bits,
            hints=(
                "Count the bits of one block, or of 256 blocks, and divide by the number of weights in it.",
                ("double", "How many weights share the further float32?"),
                "The index is the same in both cases; only the share of the scales depends on `double`.",
            ),
            path="Write the case without double quantization first: an index, and a share of 32 bits. With double quantization the share has two parts, one over the weights of a block and one over those of 256 blocks. "
            "The usual wrong turn is to divide the second part by 256 alone.",
            why="4.5 bits against 4.127 with blocks of 64: 0.37 bits sound like nothing, and are 3 GB on 65 billion weights.",
        ),
    )
}  # fmt: skip
