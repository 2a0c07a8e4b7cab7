"""4-bit weights, written out: the NF4 code, blocks, packing and double quantisation.

Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, arXiv:2305.14314, sections
2 and 3. Codes, packing and scales equal those of bitsandbytes on the CPU, element for element.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor, nn

BLOCK_SIZE = 64  # neighbouring weights that share one scale
SCALES_PER_BLOCK = 256  # double quantisation: so many scales share one scale of their own


def nf4_code() -> Tensor:
    """The 16 values of NormalFloat4, ascending from −1 to 1, float32.

    Each value stands for an equally likely part of a normal distribution: 8 quantiles above zero,
    7 below, and zero itself, which 16 equal parts would miss. The outermost quantile lies half-way
    between the middle of the last of 15 equal parts and of 16: ½(29/30 + 31/32).
    """
    outermost = 0.9677083
    above = norm.ppf(torch.linspace(outermost, 0.5, 9)[:-1].numpy())
    below = -norm.ppf(torch.linspace(outermost, 0.5, 8)[:-1].numpy())
    code = torch.tensor([*below, 0.0, *above[::-1]], dtype=torch.float32)
    return code / code.max()


def fp4_code() -> Tensor:
    """A 4-bit float with 2 exponent bits and 1 of mantissa (E2M1), scaled to [−1, 1], ascending.

    Two of the 16 patterns are zero. (The table of bitsandbytes' fp4 has 0.0052 in place of 0.0833.)
    """
    positive = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6]) / 6
    return torch.cat([-positive.flip(0), positive])


def int4_code() -> Tensor:
    """Evenly spaced integers −7 … 7, scaled to [−1, 1]: 15 of the 16 patterns, as is usual."""
    return torch.arange(-7, 8) / 7


def quantize_block(x: Tensor, code: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Replace each number of a block by the index of the nearest value of the code.

    `x` is (..., block): every row is a block of its own, scaled by its largest magnitude. `code` is
    ascending within [−1, 1]; NF4 unless given. Returns indices (..., block) as uint8 and scales
    (..., 1) as float32. A block of zeros has scale 0.
    """
    code = (nf4_code() if code is None else code).to(x.device)
    absmax = x.float().abs().amax(dim=-1, keepdim=True)
    scaled = x.float() * (1 / absmax.clamp(min=1e-38))
    midpoints = (code[1:] + code[:-1]) / 2  # nearer to the upper neighbour from here on
    return torch.bucketize(scaled, midpoints).to(torch.uint8), absmax


def dequantize_block(indices: Tensor, absmax: Tensor, code: Tensor | None = None) -> Tensor:
    """The numbers that the indices stand for: code value times the block's scale, float32."""
    code = (nf4_code() if code is None else code).to(absmax.device)
    return code[indices.int()] * absmax


def bits_per_parameter(block: int = BLOCK_SIZE, double: bool = False) -> float:
    """Bits that one weight takes: 4, and its share of the block's scale.

    A scale is a float32, so 4 + 32/64 = 4.5. Double quantisation keeps it in 8 bits, with one
    float32 for each 256 scales: 4 + 8/64 + 32/(64·256) = 4.127 (QLoRA, section 3).
    """
    if double:
        return 4 + 8 / block + 32 / (block * SCALES_PER_BLOCK)
    return 4 + 32 / block


def pack(indices: Tensor) -> Tensor:
    """Two 4-bit indices in a byte, the first in the high half; an odd one out is followed by zero.

    (n,) → (⌈n/2⌉,) uint8. "Zero" is the weight zero, NF4's index 7.
    """
    if len(indices) % 2:
        indices = torch.cat([indices, indices.new_tensor([7])])
    return (indices[::2] << 4) | indices[1::2]


def unpack(packed: Tensor, n: int) -> Tensor:
    """The first `n` indices of the bytes: (⌈n/2⌉,) → (n,) uint8."""
    return torch.stack([packed >> 4, packed & 0xF], dim=1).flatten()[:n]


@dataclass(frozen=True)
class NF4Weight:
    """A weight in 4 bits with one scale per block; "doubled": with double quantisation."""

    packed: Tensor  # (⌈n/2⌉,) uint8, two weights in a byte
    scales: Tensor  # (blocks,) float32; doubled: uint8
    shape: torch.Size
    dtype: torch.dtype
    block_size: int
    scale_of_scales: Tensor | None = None  # doubled: (⌈blocks/256⌉,) float32
    offset: Tensor | None = None  # doubled: () float32, the mean scale

    @property
    def bytes(self) -> int:
        """What must be kept, in bytes."""
        kept = (self.packed, self.scales, self.scale_of_scales, self.offset)
        return sum(t.numel() * t.element_size() for t in kept if t is not None)


def quantize_nf4(weight: Tensor, block_size: int = BLOCK_SIZE, double: bool = False) -> NF4Weight:
    """Quantise a weight of any shape in blocks of `block_size` neighbours, row after row.

    The last block may be shorter. With `double`, the scales are quantised as well.
    """
    blocks = _in_blocks(weight.flatten(), block_size)
    indices, absmax = quantize_block(blocks)
    packed, scales = pack(indices.flatten()[: weight.numel()]), absmax.flatten()
    if not double:
        return NF4Weight(packed, scales, weight.shape, weight.dtype, block_size)
    offset = scales.mean()  # scales are all positive: without their mean, both signs are of use
    scales, scale_of_scales = _quantize_scales(scales - offset)
    return NF4Weight(
        packed, scales, weight.shape, weight.dtype, block_size, scale_of_scales, offset
    )


def dequantize_nf4(quantized: NF4Weight) -> Tensor:
    """The weight that the 4 bits stand for, in its shape and dtype."""
    q = quantized
    n = q.shape.numel()
    scales = q.scales
    if q.offset is not None and q.scale_of_scales is not None:
        codes = _in_blocks(q.scales, SCALES_PER_BLOCK)
        values = dequantize_block(codes, q.scale_of_scales[:, None], dynamic_code())
        scales = values.flatten()[: len(q.scales)] + q.offset
    blocks = _in_blocks(unpack(q.packed, n), q.block_size)
    values = dequantize_block(blocks, scales[:, None])
    return values.flatten()[:n].reshape(q.shape).to(q.dtype)


def _in_blocks(x: Tensor, size: int) -> Tensor:
    """(n,) → (⌈n/size⌉, size), the last row filled up with zeros, which change no scale."""
    return nn.functional.pad(x, (0, -len(x) % size)).view(-1, size)


def dynamic_code() -> Tensor:
    """The 256 values that bitsandbytes keeps scales in: seven decades, finer towards ±1, float32.

    Dettmers, "8-Bit Approximations for Parallelism in Deep Learning", 2015, arXiv:1511.04561.
    """
    values = [0.0, 1.0]
    for decade in range(7):  # 1, 2, 4, … 64 values of each sign in the decade up to 10^(decade − 6)
        edges = torch.linspace(0.1, 1, 2**decade + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        magnitudes = (10 ** (decade - 6) * middles).tolist()
        values += magnitudes + [-m for m in magnitudes]
    return torch.tensor(sorted(values), dtype=torch.float32)


def _quantize_scales(scales: Tensor) -> tuple[Tensor, Tensor]:
    """Double quantisation's second step: (n,) float32 → (n,) uint8 codes, (⌈n/256⌉,) scales."""
    blocks = _in_blocks(scales, SCALES_PER_BLOCK)
    absmax = blocks.abs().amax(dim=1, keepdim=True)
    scaled = blocks * (1 / absmax.clamp(min=1e-38))
    # On the CPU bitsandbytes finds the nearest value in a table of 65,536 steps from −1 to 1.
    scaled = ((scaled + 1) * 32767.5 + 0.5).floor() / 32767.5 - 1
    code = dynamic_code().to(scales.device)
    codes = torch.bucketize(scaled, (code[1:] + code[:-1]) / 2)
    codes = torch.where(absmax == 0, 0, codes)
    return codes.flatten()[: len(scales)].to(torch.uint8), absmax.flatten()
