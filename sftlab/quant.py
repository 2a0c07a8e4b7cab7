"""4-bit weights in plain PyTorch: the NF4 code, blocks, packing and double quantization.

Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, arXiv:2305.14314, sections 2
and 3. Codes, packing and scales equal those of bitsandbytes on the CPU, element for element.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import norm
from torch import Tensor, nn

BLOCK_SIZE = 64  # adjacent weights that share one scale
SCALES_PER_BLOCK = 256  # double quantization: number of scales that share a second-level scale


def nf4_code() -> Tensor:
    """Return the 16 values of NormalFloat4 in ascending order from −1 to 1, as float32.

    The values are quantiles of a normal distribution, evenly spaced in probability on each side: 8
    above zero, 7 below, and zero itself, which 16 equal parts would not include. The outermost
    quantile is the mean of the midpoints of the last of 15 and of the last of 16 equal parts:
    ½(29/30 + 31/32).
    """
    outermost = 0.9677083
    above = norm.ppf(torch.linspace(outermost, 0.5, 9)[:-1].numpy())
    below = -norm.ppf(torch.linspace(outermost, 0.5, 8)[:-1].numpy())
    code = torch.tensor([*below, 0.0, *above[::-1]], dtype=torch.float32)
    return code / code.max()


def fp4_code() -> Tensor:
    """Return the 4-bit float with 2 exponent bits and 1 mantissa bit (E2M1), scaled to [−1, 1].

    The values are in ascending order; two of the 16 bit patterns are zero. The fp4 table of
    bitsandbytes has 0.0052 in place of 0.0833.
    """
    positive = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6]) / 6
    return torch.cat([-positive.flip(0), positive])


def even_code() -> Tensor:
    """Return 16 evenly spaced values from −1 to 1: symmetric INT4 that uses every bit pattern.

    Zero is not among them. Implementations that need it keep 15 of the 16 values, −7 to 7, at the
    price of wider gaps.
    """
    return torch.linspace(-1, 1, 16)


def quantize_block(x: Tensor, code: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Replace each number of a block by the index of the nearest value of the code.

    Args:
        x: (..., block). Every row is a block, scaled by its largest magnitude.
        code: ascending values within [−1, 1]; default NF4.

    Returns:
        Indices (..., block) as uint8 and scales (..., 1) as float32. A block of zeros has scale 0.
    """
    code = (nf4_code() if code is None else code).to(x.device)
    absmax = x.float().abs().amax(dim=-1, keepdim=True)
    scaled = x.float() * (1 / absmax.clamp(min=1e-38))
    midpoints = (code[1:] + code[:-1]) / 2  # from here on, the upper value is nearer
    return torch.bucketize(scaled, midpoints).to(torch.uint8), absmax


def dequantize_block(indices: Tensor, absmax: Tensor, code: Tensor | None = None) -> Tensor:
    """Return the numbers that the indices represent, in float32: code value × block scale."""
    code = (nf4_code() if code is None else code).to(absmax.device)
    return code[indices.int()] * absmax


def quantize_affine(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replace each number of a block by the nearest of 16 even values that cover the block's range.

    This is INT4 with an offset, as in GPTQ and AWQ files: a number is (index − zero) × scale. The
    range is extended to include zero, which is then represented exactly.

    Args:
        x: (..., block). Every row is a block.

    Returns:
        Indices (..., block) as uint8, scales (..., 1) as float32, and zeros (..., 1) as uint8, the
        index that stands for 0. A block of zeros has scale 0, and all its indices are 0.
    """
    x = x.float()
    low = x.amin(dim=-1, keepdim=True).clamp(max=0)
    high = x.amax(dim=-1, keepdim=True).clamp(min=0)
    scale = (high - low) / 15
    divisor = scale.clamp(min=1e-38)
    zero = (-low / divisor).round()
    indices = (x / divisor).round() + zero
    return indices.clamp(0, 15).to(torch.uint8), scale, zero.to(torch.uint8)


def dequantize_affine(indices: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return the numbers that the indices represent, in float32: (index − zero) × scale."""
    return (indices.float() - zero.float()) * scale


def bits_per_parameter(block: int = BLOCK_SIZE, double: bool = False) -> float:
    """Return the number of bits per weight: 4, plus the weight's share of the block's scale.

    A scale is a float32, so a block of 64 gives 4 + 32/64 = 4.5. Double quantization stores scales
    in 8 bits, with one float32 for each 256 scales: 4 + 8/64 + 32/(64·256) = 4.127 (QLoRA, section
    3).
    """
    if double:
        return 4 + 8 / block + 32 / (block * SCALES_PER_BLOCK)
    return 4 + 32 / block


def pack(indices: Tensor) -> Tensor:
    """Pack two 4-bit indices into each byte, the first one in the high four bits.

    (n,) → (⌈n/2⌉,) uint8. If n is odd, the last byte is completed with the index of zero (7 in
    NF4).
    """
    if len(indices) % 2:
        indices = torch.cat([indices, indices.new_tensor([7])])
    return (indices[::2] << 4) | indices[1::2]


def unpack(packed: Tensor, n: int) -> Tensor:
    """Return the first `n` indices of the packed bytes: (⌈n/2⌉,) → (n,) uint8."""
    return torch.stack([packed >> 4, packed & 0xF], dim=1).flatten()[:n]


@dataclass(frozen=True)
class NF4Weight:
    """A weight in 4 bits with one scale per block, optionally with double quantization."""

    packed: Tensor  # (⌈n/2⌉,) uint8, two weights per byte
    scales: Tensor  # (blocks,) float32; uint8 with double quantization
    shape: torch.Size
    dtype: torch.dtype
    block_size: int
    scale_of_scales: Tensor | None = None  # double: (⌈blocks/256⌉,) float32
    offset: Tensor | None = None  # double: () float32, the mean scale

    @property
    def bytes(self) -> int:
        """Bytes that must be stored."""
        kept = (self.packed, self.scales, self.scale_of_scales, self.offset)
        return sum(t.numel() * t.element_size() for t in kept if t is not None)


def quantize_nf4(weight: Tensor, block_size: int = BLOCK_SIZE, double: bool = False) -> NF4Weight:
    """Quantize a weight of any shape in blocks of `block_size` adjacent numbers in row-major order.

    The last block may be shorter. With `double`, the scales are quantized as well.
    """
    blocks = _in_blocks(weight.flatten(), block_size)
    indices, absmax = quantize_block(blocks)
    packed, scales = pack(indices.flatten()[: weight.numel()]), absmax.flatten()
    if not double:
        return NF4Weight(packed, scales, weight.shape, weight.dtype, block_size)
    offset = scales.mean()  # scales are positive; subtracting the mean uses both signs of the code
    scales, scale_of_scales = _quantize_scales(scales - offset)
    return NF4Weight(
        packed, scales, weight.shape, weight.dtype, block_size, scale_of_scales, offset
    )


def dequantize_nf4(quantized: NF4Weight) -> Tensor:
    """Return the weight that the 4-bit indices represent, in its original shape and dtype."""
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
    """Reshape (n,) → (⌈n/size⌉, size), padded with zeros, which do not change any scale."""
    return nn.functional.pad(x, (0, -len(x) % size)).view(-1, size)


def dynamic_code() -> Tensor:
    """Return the 256 float32 values in which bitsandbytes stores scales: 7 decades of each sign.

    The code is finer toward ±1. Dettmers, "8-Bit Approximations for Parallelism in Deep Learning",
    2015, arXiv:1511.04561.
    """
    values = [0.0, 1.0]
    for decade in range(7):  # 1, 2, 4, … 64 values of each sign in the decade up to 10^(decade − 6)
        edges = torch.linspace(0.1, 1, 2**decade + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        magnitudes = (10 ** (decade - 6) * middles).tolist()
        values += magnitudes + [-m for m in magnitudes]
    return torch.tensor(sorted(values), dtype=torch.float32)


def _quantize_scales(scales: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize the scales: (n,) float32 → (n,) uint8 codes and (⌈n/256⌉,) second-level scales."""
    blocks = _in_blocks(scales, SCALES_PER_BLOCK)
    absmax = blocks.abs().amax(dim=1, keepdim=True)
    scaled = blocks * (1 / absmax.clamp(min=1e-38))
    # On the CPU, bitsandbytes finds the nearest value in a table of 65,536 steps from −1 to 1.
    scaled = ((scaled + 1) * 32767.5 + 0.5).floor() / 32767.5 - 1
    code = dynamic_code().to(scales.device)
    codes = torch.bucketize(scaled, (code[1:] + code[:-1]) / 2)
    codes = torch.where(absmax == 0, 0, codes)
    return codes.flatten()[: len(scales)].to(torch.uint8), absmax.flatten()
