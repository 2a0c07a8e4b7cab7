"""Checks of notebook 17: a LoRA layer and its injection, checked by what they compute and what is trained.

A student's class may name its matrices as it likes: A and B are found by their shapes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sftlab.classroom.checking import Case, Exercise
from sftlab.lora import LoRALinear, inject_lora

# Factors that known mistakes put in front of x Aᵀ Bᵀ, tried in this order.
FACTOR_MISTAKES = (
    (lambda alpha, r: alpha, "The correction is {r} times too large: α was used without dividing by r."),
    (lambda alpha, r: 1.0, "x Aᵀ Bᵀ is added without the factor α/r. With α = r nobody would notice; here α = {alpha:g} and r = {r}."),
    (lambda alpha, r: r / alpha, "The factor is upside down: it is r/α = {inverse:g}, but α/r = {scale:g} is asked for."),
    (lambda alpha, r: alpha / math.sqrt(r), "The factor is α/√r, that of rank-stabilised LoRA. Here it is α/r."),
    (lambda alpha, r: (alpha / r) ** 2, "The factor α/r was applied twice: once is enough."),
    (lambda alpha, r: 2 * alpha / r, "The correction is added twice, once into the weight and once beside it perhaps."),
    (lambda alpha, r: -alpha / r, "The correction is subtracted. It is to be added."),
    (lambda alpha, r: 0.0, "A and B change nothing: the output is the frozen layer's whatever they hold. Is their product computed in `forward`?"),
)  # fmt: skip


def _seeded(make, seed: int = 1):
    """What `make` builds, without disturbing the random state."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        return make()
    finally:
        torch.set_rng_state(state)


def _layer_arguments(d_in: int, d_out: int, r: int, alpha: float, bias: bool):
    return lambda: (_seeded(lambda: nn.Linear(d_in, d_out, bias=bias)), r, alpha)


def _adapter(named: dict[str, Tensor], d_in: int, d_out: int, r: int) -> dict[str, Tensor] | None:
    """A as (r, d_in) and B as (d_out, r), views of whatever was written; None if they are not there."""
    found = {}
    for p in named.values():
        for which, shape in (("A", (r, d_in)), ("B", (d_out, r))):
            if tuple(p.shape) in (shape, shape[::-1]) and which not in found:
                found[which] = p.data if tuple(p.shape) == shape else p.data.T
                break
    return found if len(found) == len(named) == 2 else None


def _fill(adapter: dict[str, Tensor], seed: int) -> None:
    """Write known numbers into A and B, through the views."""
    generator = torch.Generator().manual_seed(seed)
    for which in "AB":
        matrix = adapter[which]
        matrix.copy_(torch.randn(matrix.shape, generator=generator))


def _start(adapter: dict[str, Tensor]) -> str | None:
    """What is wrong with the numbers that A and B start with."""
    A, B = adapter["A"], adapter["B"]
    if not A.any() and not B.any():
        return "A and B both start at zero: then neither ever gets a gradient, and nothing is learnt. A is to be random."
    if not A.any():
        return "It starts at the base, but the other way round: here A is random and B is zero."
    if B.any():
        return "B does not start at zero, so the model is changed before the first step: the first output differs from the frozen layer's."
    if A.std() < 1e-6 * A.abs().max():
        return (
            "All numbers in A are equal, so all its rows would learn the same. Draw them at random."
        )
    return None


def _verify_layer(layer, arguments) -> str | None:
    base, r, alpha = arguments
    d_out, d_in = base.weight.shape
    fresh = _seeded(lambda: nn.Linear(d_in, d_out, bias=base.bias is not None))
    if not isinstance(layer, nn.Module):
        return f"`LoRALinear(base, r, alpha)` is to make an `nn.Module`; it made a `{type(layer).__name__}`."
    trained = {n: p for n, p in layer.named_parameters() if p.requires_grad}
    if any(torch.equal(p, base.weight) for p in trained.values()):
        return "The frozen weight would be trained: it still requires a gradient. Freeze the base with `requires_grad_(False)`."
    if any(p.shape == (d_out,) for p in trained.values()):
        return "The base's bias would be trained. Freeze the whole base, not its weight alone."
    if not trained:
        return "Nothing in it would be trained. Are A and B `nn.Parameter`s (a plain tensor is not found by `parameters()`), made after the freezing?"
    adapter = _adapter(trained, d_in, d_out, r)
    if adapter is None:
        shapes = ", ".join(str(tuple(p.shape)) for p in trained.values())
        return f"The trained parameters have the shapes {shapes}. With {d_in} inputs, {d_out} outputs and r = {r}, A is {(r, d_in)} and B is {(d_out, r)}."
    if message := _start(adapter):
        return message

    x = torch.randn(3, 4, d_in, generator=torch.Generator().manual_seed(2))
    layer.eval()
    out = layer(x)
    if not isinstance(out, Tensor) or out.shape != (3, 4, d_out):
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        return f"For an input of shape (3, 4, {d_in}) the output is {shape}; expected is (3, 4, {d_out})."
    plain = fresh(x)
    if not torch.equal(out, plain):
        largest = (out - plain).abs().max().item()
        return f"B is zero, so the first output must be the frozen layer's exactly. It differs by up to {largest:.2g}: was the base scaled, left out, or made anew?"
    _fill(adapter, seed=3)
    return _corrected(layer, x, fresh, adapter, r, alpha, base) or _gradients(layer, x)


def _corrected(layer, x, fresh, adapter, r, alpha, base) -> str | None:
    """What is wrong with the output once B is not zero any more."""
    first, second = layer(x), layer(x)
    if not torch.equal(base.weight, fresh.weight):
        return "`forward` changes the frozen weight: each call adds the correction to it once more."
    if not torch.equal(first, second):
        return "Asked twice in eval mode it gives two outputs: dropout is on. It belongs to training: an `nn.Dropout` knows the mode."
    plain, correction = fresh(x), x @ adapter["A"].T @ adapter["B"].T

    def close(wanted: Tensor) -> bool:
        return torch.allclose(first, wanted, rtol=1e-4, atol=1e-4)

    if close(plain + alpha / r * correction):
        return None
    words = {"r": r, "alpha": alpha, "scale": alpha / r, "inverse": r / alpha}
    for factor, message in FACTOR_MISTAKES:
        if close(plain + factor(alpha, r) * correction):
            return message.format(**words)
    if close(alpha / r * (plain + correction)):
        return "The factor α/r was applied to the frozen layer's output as well. It belongs to the correction alone."
    if fresh.bias is not None and close(plain + alpha / r * correction + fresh.bias):
        return "The bias is added twice: `base(x)` has it already."
    largest = (first - plain - alpha / r * correction).abs().max().item()
    return f"With numbers in A and B the output is not base(x) + (α/r) · x Aᵀ Bᵀ: it differs by up to {largest:.2g}."


def _gradients(layer, x) -> str | None:
    layer.train()
    out = layer(x)
    if out.requires_grad:
        out.square().sum().backward()
    if missing := [n for n, p in layer.named_parameters() if p.requires_grad and p.grad is None]:
        names = " and ".join(f"`{n}`" for n in missing)
        return f"The numbers are right, but no gradient reaches {names}: `.data`, `.detach()`, `torch.no_grad()` or a product made once in `__init__` cuts it off."
    return None


# --- Injection --------------------------------------------------------------------------------
class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(6, 8)
        self.v_proj = nn.Linear(6, 4, bias=False)
        self.up = nn.Linear(6, 10)
        self.group = nn.Linear(10, 6)  # "group" ends in "up", and is not called "up"
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        mixed = torch.cat([self.q_proj(x), self.v_proj(x)], -1)[..., :10]
        return self.norm(x + self.group(torch.relu(self.up(x)) + torch.tanh(mixed)))


class _Model(nn.Module):
    """Two blocks between an embedding and a head. `originals` remembers its parameters by name."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.layers = nn.ModuleList([_Block(), _Block()])
        self.lm_head = nn.Linear(6, 20, bias=False)
        object.__setattr__(self, "originals", dict(self.named_parameters()))

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(x)


def _model_arguments(targets: list[str], r: int, alpha: float):
    return lambda: (_seeded(_Model), list(targets), r, alpha)


def _linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}


def _groups(model: nn.Module, given: _Model, names) -> dict[str, dict[str, Tensor]]:
    """The new trainable parameters inside each of the places `names`."""
    old = {id(p) for p in given.originals.values()}
    found: dict[str, dict[str, Tensor]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        place = next((n for n in names if name.startswith(f"{n}.")), None)
        if place and p.requires_grad and id(p) not in old:
            found.setdefault(place, {})[name] = p
    return found


def _wrong_places(found: set[str], wanted: set[str], targets: list[str], linears) -> str | None:
    """What is wrong with the set of layers that got an adapter."""
    if found == wanted:
        return None
    asked = " and ".join(f"`{t}`" for t in targets)
    extra, missing = sorted(found - wanted), sorted(wanted - found)
    if found == {n for n in linears if n.endswith(("q_proj", "v_proj"))}:
        return f"Only `q_proj` and `v_proj` got a layer (PEFT's default for Llama), but {asked} were asked for."
    if found == set(linears) or "lm_head" in extra:
        return (
            f"Every linear layer got an adapter, the output head too. Only {asked} were asked for."
        )
    if extra:
        return f"`{extra[0]}` got an adapter, but the targets are {asked}. Compare the end of the name after a dot: `group` ends in `up` and is another layer."
    return f"Of {len(wanted)} layers that match, {len(missing)} got no adapter, such as `{missing[0]}`. Names repeat in every block, and blocks lie inside one another."


def _verify_model(result, arguments) -> str | None:
    given, targets, r, alpha = arguments
    if result is None:
        return "It returns nothing. Return the model."
    if not isinstance(result, nn.Module):
        return f"Return the model; this is a `{type(result).__name__}`."
    if result is not given:
        return "It returns another model than it was given. A copy of a large model may not fit into memory: change the given one in place."
    fresh = _seeded(_Model)
    linears = _linears(fresh)
    wanted = {n for n in linears for t in targets if n == t or n.endswith(f".{t}")}
    left = [n for n, p in given.originals.items() if p.requires_grad]
    trained = [n for n, p in result.named_parameters() if p.requires_grad]
    if not trained and len(list(result.parameters())) == len(given.originals):
        return "The model is frozen, but no layer got an adapter. The linear layers lie inside blocks: `named_children()` alone does not reach them."
    if not trained:
        return "Nothing would be trained: the model was frozen *after* the new layers were put in. Freeze first."
    groups = _groups(result, given, linears)
    if not groups:
        return "No layer got an adapter: every parameter that is trained was there before. Are the names compared with the *end* of `layers.0.q_proj`?"
    if message := _wrong_places(set(groups), wanted, targets, linears):
        return message
    if left:
        rest = ", ".join(f"`{n}`" for n in left[:3])
        return f"{len(left)} of the model's own parameters would still be trained, such as {rest}. Freeze the whole model, not the chosen layers alone."
    if len({id(p) for g in groups.values() for p in g.values()}) < 2 * len(wanted):
        return "Layers share one A and B. Each linear layer needs a LoRA layer of its own: make it inside the loop."
    ids = torch.arange(12).reshape(2, 6)
    if not torch.equal(result(ids), fresh(ids)):
        return "At the start the model's output differs from the base's. Is the model's own layer inside the LoRA layer, with its weight and bias, or a new one?"
    return _filled(result, groups, linears, ids, targets, r, alpha)


def _filled(result, groups, linears, ids, targets, r, alpha) -> str | None:
    """Known numbers in every A and B: the output must be that of the package's own injection."""
    reference = inject_lora(_seeded(_Model), targets, r, alpha)
    for number, (name, group) in enumerate(groups.items()):
        d_out, d_in = linears[name].weight.shape
        adapter = _adapter(group, d_in, d_out, r)
        if adapter is None:
            shapes = ", ".join(str(tuple(p.shape)) for p in group.values())
            return f"In `{name}` ({d_in} inputs, {d_out} outputs) the adapter has the shapes {shapes}; with r = {r}, A is {(r, d_in)} and B is {(d_out, r)}."
        own = reference.get_submodule(name)
        for matrices in (adapter, {"A": own.A.data, "B": own.B.data}):
            _fill(matrices, seed=number)
    if torch.allclose(result(ids), reference(ids), rtol=1e-4, atol=1e-4):
        return None
    return f"The layers are in place, but their corrections have another size than α/r = {alpha:g}/{r}. Were `r` and `alpha` handed on, in this order?"


LAYER_CASES = (
    ("LoRALinear(base, r=3, alpha=12), base with 5 inputs, 4 outputs and a bias", (5, 4, 3, 12.0, True)),
    ("LoRALinear(base, r=4, alpha=1), base with 6 inputs and 9 outputs, no bias", (6, 9, 4, 1.0, False)),
)  # fmt: skip
MODEL_CASES = (
    (["up"], 3, 1.5),
    (["q_proj", "v_proj"], 2, 6.0),
    (["layers.1.group", "q_proj", "up"], 2, 5.0),
)

EXERCISES = {
    "17.LoRALinear": Exercise(
        id="17.LoRALinear",
        title="A LoRA layer",
        reference=LoRALinear,
        cases=[Case(told, _layer_arguments(*sizes), verify=_verify_layer, in_place=True) for told, sizes in LAYER_CASES],
        hints=[
            "Keep the base as an attribute and freeze it. A and B are `nn.Parameter`s; what else the class knows is r and α.",
            "`forward` is one line: the base's output, plus α/r times `x @ A.T @ B.T`. Do not build B @ A: it is as large as the weight.",
            "`nn.init.kaiming_uniform_` or `torch.randn(...)` for A, `torch.zeros(...)` for B. Nothing random may be left on in eval mode.",
        ],
        why="The package's version keeps A and B in float32 whatever the base is stored in, can be switched off, and can be merged (notebook 20). "
        "`init_lora_` is the start of notebook 08, `lora_scale` the factor of notebook 09. Note the order of the products: x Aᵀ first, so that nothing larger than the output is made.",
        points=3,
    ),
    "17.inject_lora": Exercise(
        id="17.inject_lora",
        title="LoRA layers into a model",
        reference=inject_lora,
        cases=[
            Case(f"inject_lora(model, {targets}, r={r}, lora_alpha={alpha:g})", _model_arguments(targets, r, alpha), verify=_verify_model, in_place=True)
            for targets, r, alpha in MODEL_CASES
        ],
        hints=[
            "Three steps: freeze every parameter, find the linear layers that match, replace each by a LoRA layer around it.",
            "Collect the matching names first (`list(model.named_modules())`), then replace: otherwise you walk through what you have just put in.",
            "`name == target or name.endswith('.' + target)` is a match; `target in name` matches too much.",
        ],
        why="Freezing comes first: after it, only what is put in is trained. The package's version refuses targets that match nothing (a run would train nothing, without a word) "
        "and layers that share their weight with another one: merging into a tied head would change the embedding.",
        points=2,
    ),
}  # fmt: skip
