"""Low-rank adaptation (LoRA): train a low-rank update B·A for each frozen weight W.

    y = x Wᵀ + (α/r) · x Aᵀ Bᵀ        W: (d_out, d_in)   A: (r, d_in)   B: (d_out, r)

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021, arXiv:2106.09685.
``sftlab.adapters`` saves and loads adapters.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sftlab._internal.random_state import own_random_state
from sftlab._internal.ranges import check_number, check_seed, check_whole
from sftlab.errors import WorkbookError
from sftlab.targets import linear_layers, output_head, unfit_layers

LARGEST_RANK = 2**16  # larger than any useful rank
RULES = ("lora", "rslora", "plain")  # see `lora_scale`


def lora_parameter_count(d_in: int, d_out: int, r: int) -> int:
    """Return the number of LoRA parameters of one weight: r·d_in in A and d_out·r in B."""
    return r * (d_in + d_out)


def break_even_rank(d_in: int, d_out: int) -> int:
    """Return the largest rank at which A and B together are smaller than the d_out × d_in matrix.

    This is the largest r with r·(d_in + d_out) < d_in·d_out (strictly), or 0 if there is none.
    """
    return (d_in * d_out - 1) // (d_in + d_out)


def lora_scale(alpha: float, r: int, rule: str = "lora") -> float:
    """Return the factor of B·A.

    ``"lora"``: α/r (arXiv:2106.09685). ``"rslora"``: α/√r, rank-stabilized LoRA (Kalajdzievski,
    2023, arXiv:2312.03732). ``"plain"``: α for every rank.

    Raises:
        ValueError: unknown rule.
    """
    if rule == "lora":
        return alpha / r
    if rule == "rslora":
        return alpha / math.sqrt(r)
    if rule == "plain":
        return float(alpha)
    raise ValueError(f'unknown scaling rule {rule!r}: choose "lora", "rslora" or "plain"')


def effective_update(A: Tensor, B: Tensor, alpha: float, r: int) -> Tensor:
    """Return what the adapter adds to the weight: ΔW = (α/r)·B·A, shape (d_out, d_in)."""
    return (alpha / r) * (B @ A)


def merge(W: Tensor, A: Tensor, B: Tensor, alpha: float, r: int) -> Tensor:
    """Return the weight with the adapter merged: W + (α/r)·B·A, in the dtype of W.

    The sum is computed in the adapter's precision and rounded once. In bfloat16 the rounding can
    discard a small update: an entry changes only if its update reaches 1/512 to 1/256 of it.
    """
    return (W + (alpha / r) * (B @ A)).to(W.dtype)


def unmerge(W: Tensor, A: Tensor, B: Tensor, alpha: float, r: int) -> Tensor:
    """Return the weight with the adapter subtracted: W − (α/r)·B·A, in the dtype of W.

    The result equals the original weight up to rounding. Keep the original if you need it exactly.
    """
    return (W - (alpha / r) * (B @ A)).to(W.dtype)


def init_lora_(
    A: Tensor, B: Tensor, how: str = "A random", generator: torch.Generator | None = None
) -> None:
    """Fill A (r, d_in) and B (d_out, r) in place with one of four initializations.

    ``"A random"`` is the standard LoRA initialization: A uniform within ±1/√d_in (Kaiming with a =
    √5, as in PEFT), B zero. B·A is then zero, so the model starts as the base model, and B gets a
    gradient through A. The others are ``"B random"`` (B uniform within ±1/√r, A zero), ``"both
    zero"`` and ``"both random"``.

    Raises:
        ValueError: unknown initialization.
    """
    if how not in ("A random", "B random", "both zero", "both random"):
        raise ValueError(
            f'unknown initialisation {how!r}: "A random", "B random", "both zero" or "both random"'
        )
    for name, matrix in (("A random", A), ("B random", B)):
        if how in (name, "both random"):
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5), generator=generator)
        else:
            nn.init.zeros_(matrix)


def add_product(out: Tensor, h: Tensor, B: Tensor, scale: float) -> Tensor:
    """Return out + scale · h Bᵀ in the dtype of out, summed in the dtype of h, in one operation.

    Shapes: out (..., d_out), h (..., r), B (d_out, r).
    """
    rows, factors = out.reshape(-1, out.shape[-1]).to(h.dtype), h.reshape(-1, h.shape[-1])
    return torch.addmm(rows, factors, B.T, alpha=scale).view(out.shape).to(out.dtype)


class LoRALinear(nn.Module):
    """A frozen linear layer with a trainable low-rank update.

    Input (..., d_in), output (..., d_out) in the dtype of the base layer. ``A`` (r, d_in) and ``B``
    (d_out, r) are the only trainable parameters. They stay in float32, whatever the dtype of the
    base, because optimizer steps are too small for 16 bits. Dropout applies to the adapter's input
    only.
    """

    def __init__(
        self, base: nn.Linear, r: int, alpha: float, dropout: float = 0.0, rule: str = "lora"
    ):
        super().__init__()
        if r < 1:
            raise ValueError(f"the rank r must be at least 1, got {r}")
        device = base.weight.device
        self.base = base.requires_grad_(False)
        self.r, self.alpha, self.rule = r, alpha, rule
        self.scale = lora_scale(alpha, r, rule)
        self.dropout = nn.Dropout(dropout)
        self.A = nn.Parameter(torch.empty(r, base.in_features, device=device))
        self.B = nn.Parameter(torch.empty(base.out_features, r, device=device))
        init_lora_(self.A, self.B)
        self.merged = False  # True: base.weight includes the update
        self.enabled = True  # False: compute the output of the base layer (see `disable_lora`)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x)
        if self.merged or not self.enabled:
            return out
        if not torch.is_autocast_enabled(x.device.type):  # autocast chooses the dtype
            x = x.to(self.A.dtype)
        return add_product(out, self.dropout(x) @ self.A.T, self.B, self.scale)

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the base weight; do nothing if it is merged already."""
        if not self.merged:
            self._add_to_base(self.scale)
            self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Subtract the update from the base weight; do nothing if it is not merged."""
        if self.merged:
            self._add_to_base(-self.scale)
            self.merged = False

    @property
    def weight(self) -> Tensor:
        """The weight of the base, (d_out, d_in)."""
        return self.base.weight

    def _add_to_base(self, scale: float) -> None:
        W = self.weight
        if not W.is_floating_point():
            raise WorkbookError(
                "The base is packed in 4 bits and cannot take a correction: first unpack it with "
                "sftlab.quantized_layers.dequantize_model_linears(model)."
            )
        W.copy_((W + scale * (self.B @ self.A)).to(W.dtype))

    def extra_repr(self) -> str:
        return f"r={self.r}, alpha={self.alpha}, scale={self.scale:g}, merged={self.merged}"


class LoRAConv1D(LoRALinear):
    """The same for ``Conv1D`` of GPT-2, a linear layer that stores its weight as (d_in, d_out).

    PEFT calls this ``fan_in_fan_out``. A and B have the shapes that they have in ``LoRALinear``.
    """

    def __init__(self, base: Any, *settings):
        base.in_features, base.out_features = base.weight.shape
        super().__init__(base, *settings)

    @property
    def weight(self) -> Tensor:
        """The weight of the base as a transposed view, (d_out, d_in)."""
        return self.base.weight.T


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Return the LoRA layers by name, in the order of the model."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoRALinear)}


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return all A and B: the parameters to give to the optimizer."""
    return [matrix for layer in lora_layers(model).values() for matrix in (layer.A, layer.B)]


def check_lora_settings(
    target_modules: str | Sequence[str],
    r: int,
    lora_alpha: float,
    lora_dropout: float = 0.0,
    rule: str = "lora",
) -> None:
    """Raise WorkbookError if a setting is out of range; the message names it with its value."""
    named = [target_modules] if isinstance(target_modules, str) else target_modules
    if not isinstance(named, Collection) or not all(isinstance(t, str) and t for t in named):
        raise WorkbookError(
            f'target_modules is {target_modules!r}; it must be a name, a list of names, or "all-linear"'
        )
    check_whole("r", r, 1, LARGEST_RANK)
    check_number(
        "lora_alpha", lora_alpha, lambda x: 0 < x < math.inf, "it must be above 0, and finite"
    )
    check_number(
        "lora_dropout", lora_dropout, lambda p: 0 <= p < 1, "it must be at least 0 and below 1"
    )
    if rule not in RULES:
        raise WorkbookError(f"rule is {rule!r}; use one of {', '.join(RULES)}")


def inject_lora(
    model: nn.Module,
    target_modules: str | Sequence[str],
    r: int,
    lora_alpha: float,
    lora_dropout: float = 0.0,
    seed: int | None = None,
    rule: str = "lora",
) -> nn.Module:
    """Freeze the model and replace each linear layer in `target_modules` by a LoRA layer.

    Changes the model in place and returns it.

    Args:
        target_modules: end of a layer name, such as ``"q_proj"`` or ``"layers.0.mlp.up_proj"``, or
            a list of them. ``"all-linear"`` stands for every linear layer except the output head
            and those that cannot take an adapter; ``left_out`` says which and why.
        seed: if given, the initial values of A depend only on it.
        rule: scaling rule, see ``lora_scale``.

    Raises:
        WorkbookError: a setting is out of range, a target matches no layer, the model already has
            LoRA layers, or a target cannot take an adapter: it shares its weight with another module
            (a tied head), so merging would change both, or its weight is read past the layer.
    """
    check_lora_settings(target_modules, r, lora_alpha, lora_dropout, rule)
    if seed is not None:
        check_seed(seed)
    if lora_layers(model):
        raise WorkbookError(
            "The model has LoRA layers already: merge_lora(model), or load it anew."
        )
    target_modules = [target_modules] if isinstance(target_modules, str) else list(target_modules)
    linears, unfit = linear_layers(model), unfit_layers(model)
    if target_modules == ["all-linear"]:
        target_modules = [n for n in linears if n not in unfit and n != output_head(model)]
    chosen = {t: [n for n in linears if n == t or n.endswith("." + t)] for t in target_modules}
    unmatched = [target for target, names in chosen.items() if not names]
    if unmatched or not chosen:
        there_are = ", ".join(sorted({name.split(".")[-1] for name in linears})) or "none"
        raise WorkbookError(
            f"No linear layer is called {' or '.join(unmatched) or 'anything: target_modules is empty'}. "
            f"Linear layers of this model: {there_are}."
        )
    names = [n for n in linears if any(n in matched for matched in chosen.values())]
    if refused := [name for name in names if name in unfit]:
        raise WorkbookError(f"{refused[0]} {unfit[refused[0]]}: leave it out.")

    model.requires_grad_(False)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for name in names:
        kind = LoRALinear if isinstance(linears[name], nn.Linear) else LoRAConv1D
        if generator is None:
            layer = kind(linears[name], r, lora_alpha, lora_dropout, rule)
        else:
            with own_random_state(device=linears[name].weight.device):
                layer = kind(linears[name], r, lora_alpha, lora_dropout, rule)
            # Drawn on the CPU, so that the values are the same on every device.
            A, B = torch.empty(layer.A.shape), torch.empty(layer.B.shape)
            init_lora_(A, B, generator=generator)
            layer.A.data.copy_(A)
        model.set_submodule(name, layer)
    return model


def merge_lora(model: nn.Module) -> nn.Module:
    """Merge every adapter into its weight and restore plain linear layers.

    Changes the model in place and returns it. Its parameters stay frozen.

    Raises:
        WorkbookError: the model has no LoRA layers.
    """
    layers = lora_layers(model)
    if not layers:
        raise WorkbookError("The model has no LoRA layers: nothing to merge.")
    for name, layer in layers.items():
        layer.merge()
        model.set_submodule(name, layer.base)
    return model


@contextmanager
def disable_lora(model: nn.Module) -> Iterator[nn.Module]:
    """Context manager in which the model computes the output of the base model.

    Raises:
        WorkbookError: an adapter is merged.
    """
    layers = lora_layers(model)
    if merged := [name for name, layer in layers.items() if layer.merged]:
        raise WorkbookError(f"{merged[0]} is merged into its base: unmerge it first.")
    before = {name: layer.enabled for name, layer in layers.items()}
    try:
        for layer in layers.values():
            layer.enabled = False
        yield model
    finally:
        for name, layer in layers.items():
            layer.enabled = before[name]
