"""4-bit layers in a model: those of bitsandbytes, or a replacement in plain PyTorch.

The replacement is used where bitsandbytes is not installed. It has the same names, stores the same
data and gives the same numbers on the CPU. It is slower and supports only NF4. A program that uses
bitsandbytes only needs ``import sftlab.quantized_layers as bitsandbytes``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter
from torch.nn.functional import linear

from sftlab.errors import WorkbookError
from sftlab.quant import BLOCK_SIZE, NF4Weight, dequantize_nf4, dynamic_code, nf4_code, quantize_nf4


def dequantize_4bit(packed: Tensor, quant_state: SimpleNamespace) -> Tensor:
    """Return the weight that the packed 4-bit indices represent, in its shape and dtype."""
    state = quant_state
    doubled = (state.state2.absmax, state.offset) if state.nested else (None, None)
    return dequantize_nf4(
        NF4Weight(
            packed.flatten(), state.absmax, state.shape, state.dtype, state.blocksize, *doubled
        )
    )


class Params4bit(Parameter):
    """A weight that is packed and frozen when it is first moved to a device."""

    compress_statistics: bool
    quant_type: str
    quant_state: Any  # None until the weight is packed

    def __new__(cls, data, requires_grad=False, compress_statistics=True, quant_type="fp4", **_):
        self = super().__new__(cls, data, requires_grad)
        self.compress_statistics, self.quant_type, self.quant_state = compress_statistics, quant_type, None  # fmt: skip
        return self

    def to(self, *arguments, **options):
        if self.quant_state is not None:
            return super().to(*arguments, **options)
        if self.quant_type != "nf4":
            raise WorkbookError(
                f'this layer packs NF4 alone: say quant_type="nf4", not {self.quant_type!r}'
            )
        q = quantize_nf4(super().to(*arguments, **options).data, double=self.compress_statistics)
        self.data = q.packed[:, None]
        self.quant_state = SimpleNamespace(
            absmax=q.scales, shape=q.shape, dtype=q.dtype, blocksize=q.block_size,
            quant_type="nf4", code=nf4_code(), nested=q.offset is not None, offset=q.offset,
            state2=SimpleNamespace(absmax=q.scale_of_scales, code=dynamic_code()),
        )  # fmt: skip
        return self

    def __deepcopy__(self, memo):
        new = type(self)(self.data.clone(), quant_type=self.quant_type)
        new.compress_statistics, new.quant_state = self.compress_statistics, self.quant_state
        return new


class _Product(torch.autograd.Function):
    """x Wᵀ with the weight unpacked again in the backward pass, so only the 4 bits are stored."""

    @staticmethod
    def forward(context, x: Tensor, packed: Params4bit) -> Tensor:
        context.packed = packed
        return linear(x, dequantize_4bit(packed.data, packed.quant_state).to(x.dtype))

    @staticmethod
    def backward(context, gradient: Tensor):
        packed = context.packed
        return gradient @ dequantize_4bit(packed.data, packed.quant_state).to(gradient.dtype), None


class Linear4bit(Linear):
    """A frozen linear layer with a `Params4bit` weight that computes in `compute_dtype`."""

    support_avx512bf16_for_cpu = True  # set by `keep_weights_in_place`; has no effect here

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


@cache
def _bitsandbytes():
    """Import bitsandbytes on demand, without its warning about a package that we do not use.

    Where it is not installed, return this module and print a message once.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        import bitsandbytes
    except ImportError:
        print(
            "bitsandbytes is not installed (pip install bitsandbytes): sftlab.quantized_layers stands in "
            "for it, with the same layers and numbers, only slower."
        )
        return sys.modules[__name__]
    return bitsandbytes


def keep_weights_in_place(model: Module) -> Module:
    """Stop bitsandbytes from repacking 4-bit weights for inference; call it before anything else.

    On processors with AVX512-BF16, the first forward pass in eval mode without gradients rearranges
    the weights permanently and without a message. Afterwards the layer passes no gradients, and
    dequantizing it gives wrong values. Returns the model.

    Raises:
        WorkbookError: a weight has already been repacked.
    """
    for name, module in model.named_modules():
        if isinstance(module, _bitsandbytes().nn.Linear4bit):
            if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
                raise WorkbookError(f"{name} has been repacked for inference: load the model anew.")
            module.support_avx512bf16_for_cpu = False
    return model


def quantize_model_linears(
    model: Module, double: bool = True, skip: Sequence[str] = ("lm_head",)
) -> Module:
    """Replace every linear layer by a frozen NF4 layer (bitsandbytes' Linear4bit), in place.

    Products are computed in the dtype of the original weight. Embeddings, norms and biases keep
    their dtypes. Returns the model.

    Args:
        double: use double quantization.
        skip: layers whose name ends in one of these stay unchanged. The output head is skipped by
            default because it is often tied to the embedding.

    Raises:
        WorkbookError: there is nothing to quantize, or the input width of a layer is not a multiple
            of the block size. In that case bitsandbytes 0.50 uses wrong scales with AVX512.
    """
    bnb = _bitsandbytes()
    linears = {
        name: module
        for name, module in model.named_modules()
        if type(module) is Linear and name.split(".")[-1] not in skip
    }
    if not linears:
        raise WorkbookError("The model has no plain linear layer left to quantise.")
    if odd := [name for name, linear in linears.items() if linear.in_features % BLOCK_SIZE]:
        raise WorkbookError(
            f"{odd[0]} has {linears[odd[0]].in_features} inputs, no multiple of {BLOCK_SIZE}: "
            f"bitsandbytes can compute wrongly with it. Name it in skip."
        )
    for name, plain in linears.items():
        weight = plain.weight
        layer = bnb.nn.Linear4bit(
            plain.in_features,
            plain.out_features,
            bias=False,
            compute_dtype=weight.dtype,
            compress_statistics=double,
            quant_type="nf4",
            device="meta",  # its initial weight is not used
        )
        layer.weight = bnb.nn.Params4bit(
            weight.data, False, compress_statistics=double, quant_type="nf4", module=layer
        ).to(weight.device)
        layer.bias = plain.bias
        layer.train(plain.training)
        model.set_submodule(name, layer)
    return keep_weights_in_place(model)


def dequantize_model_linears(model: Module) -> Module:
    """Replace every 4-bit layer by a plain layer with the values it computed with, in place.

    An adapter trained on the 4-bit model should be merged into this base. Returns the model.
    """
    bnb = _bitsandbytes()
    keep_weights_in_place(model)  # raises an error for repacked weights
    for name, module in list(model.named_modules()):
        if isinstance(module, bnb.nn.Linear4bit):
            linear = Linear(module.in_features, module.out_features, bias=False, device="meta")
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            linear.weight = Parameter(weight, requires_grad=False)
            linear.bias = module.bias
            linear.train(module.training)
            model.set_submodule(name, linear)
    return model
