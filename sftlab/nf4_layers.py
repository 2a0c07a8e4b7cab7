"""bitsandbytes' 4-bit layers in plain PyTorch, for machines that it cannot be installed on.

The names, what is kept, and the numbers are those of bitsandbytes on the CPU; it is slower, and packs
NF4 alone. ``import sftlab.nf4_layers as bitsandbytes`` is all that a program has to change.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Parameter
from torch.nn.functional import linear

from sftlab.errors import WorkbookError
from sftlab.quant import NF4Weight, dequantize_nf4, dynamic_code, nf4_code, quantize_nf4


def dequantize_4bit(packed: Tensor, quant_state: SimpleNamespace) -> Tensor:
    """The weight that the 4 bits stand for, in its shape and dtype."""
    state = quant_state
    doubled = (state.state2.absmax, state.offset) if state.nested else (None, None)
    return dequantize_nf4(
        NF4Weight(
            packed.flatten(), state.absmax, state.shape, state.dtype, state.blocksize, *doubled
        )
    )


class Params4bit(Parameter):
    """A weight that is packed when it is moved to a device for the first time, and then is frozen."""

    compress_statistics: bool
    quant_state: Any  # None until it is packed

    def __new__(cls, data, requires_grad=False, compress_statistics=True, quant_type="fp4", **_):
        if quant_type != "nf4":
            raise WorkbookError(
                f'this layer packs NF4 alone: say quant_type="nf4", not {quant_type!r}'
            )
        self = super().__new__(cls, data, requires_grad)
        self.compress_statistics, self.quant_state = compress_statistics, None
        return self

    def to(self, *arguments, **options):
        if self.quant_state is not None:
            return super().to(*arguments, **options)
        q = quantize_nf4(super().to(*arguments, **options).data, double=self.compress_statistics)
        self.data = q.packed[:, None]
        self.quant_state = SimpleNamespace(
            absmax=q.scales, shape=q.shape, dtype=q.dtype, blocksize=q.block_size,
            quant_type="nf4", code=nf4_code(), nested=q.offset is not None, offset=q.offset,
            state2=SimpleNamespace(absmax=q.scale_of_scales, code=dynamic_code()),
        )  # fmt: skip
        return self

    def __deepcopy__(self, memo):
        new = type(self)(self.data.clone(), quant_type="nf4")
        new.compress_statistics, new.quant_state = self.compress_statistics, self.quant_state
        return new


class _Product(torch.autograd.Function):
    """x Wᵀ with the weight unpacked anew in the backward pass: only the 4 bits are kept till then."""

    @staticmethod
    def forward(context, x: Tensor, packed: Params4bit) -> Tensor:
        context.packed = packed
        return linear(x, dequantize_4bit(packed.data, packed.quant_state).to(x.dtype))

    @staticmethod
    def backward(context, gradient: Tensor):
        packed = context.packed
        return gradient @ dequantize_4bit(packed.data, packed.quant_state).to(gradient.dtype), None


class Linear4bit(Linear):
    """A frozen linear layer with a `Params4bit` for a weight; products in `compute_dtype`."""

    support_avx512bf16_for_cpu = True  # what `keep_weights_in_place` switches off: nothing, here

    def __init__(self, d_in, d_out, bias=True, compute_dtype=None, compress_statistics=True,
                 quant_type="fp4", device=None):  # fmt: skip
        super().__init__(d_in, d_out, bias, device)
        self.compute_dtype, self.quant_type = compute_dtype, quant_type
        self.weight = Params4bit(self.weight.data, False, compress_statistics, quant_type)

    def forward(self, x: Tensor) -> Tensor:
        out = _Product.apply(x.to(self.compute_dtype or x.dtype), self.weight)
        return (out if self.bias is None else out + self.bias.to(out.dtype)).to(x.dtype)


nn = SimpleNamespace(Linear4bit=Linear4bit, Params4bit=Params4bit)
functional = SimpleNamespace(dequantize_4bit=dequantize_4bit)
