"""4-bit layers in a model: bitsandbytes', and the same in plain PyTorch where it is not installed.

The stand-in has bitsandbytes' names, keeps what it keeps, and gives its numbers on the CPU; it is
slower, and packs NF4 alone. ``import sftlab.quantized_layers as bitsandbytes`` is all that a program
has to change.
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


@cache
def _bitsandbytes():
    """The library, imported when needed, without its warning about a package we do not use.

    Where it is not installed this module stands in for it, and that is said once.
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

    On processors with AVX512-BF16 the first forward pass in eval mode without gradients rearranges
    the weights, silently and for good: afterwards no gradient passes the layer and dequantising it
    gives garbage. Raises WorkbookError if that has happened. Returns the model.
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
    """Replace every linear layer by a frozen NF4 one (bitsandbytes' Linear4bit), in place.

    Layers whose name ends in one of `skip` stay: an output head is often tied to the embedding.
    Products are computed in the dtype that the weight had. Embeddings, norms and biases keep
    theirs. Returns the model. Raises WorkbookError if there is nothing to quantise, or for a layer
    whose rows are no whole number of blocks: with AVX512, bitsandbytes 0.50 takes the wrong scales.
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
            device="meta",  # its own weight is never needed
        )
        layer.weight = bnb.nn.Params4bit(
            weight.data, False, compress_statistics=double, quant_type="nf4", module=layer
        ).to(weight.device)
        layer.bias = plain.bias
        layer.train(plain.training)
        model.set_submodule(name, layer)
    return keep_weights_in_place(model)


def dequantize_model_linears(model: Module) -> Module:
    """Turn every 4-bit layer back into a plain one with the values it computed with, in place.

    That is the base to merge an adapter into that was trained on the 4-bit one. Returns the model.
    """
    bnb = _bitsandbytes()
    keep_weights_in_place(model)  # refuses repacked weights
    for name, module in list(model.named_modules()):
        if isinstance(module, bnb.nn.Linear4bit):
            linear = Linear(module.in_features, module.out_features, bias=False, device="meta")
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            linear.weight = Parameter(weight, requires_grad=False)
            linear.bias = module.bias
            linear.train(module.training)
            model.set_submodule(name, linear)
    return model
