"""Checks of notebook 18: the trained share of a model, and the LoRA that a budget allows."""

from __future__ import annotations

import copy
import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sftlab._internal.random_state import own_random_state
from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.ex13_before_after_sft.check import copied
from sftlab.lora import inject_lora
from sftlab.memory.count import lora_config_for, targeted_layers, trainable_share, weight_count
from sftlab.quantized_layers import _bitsandbytes, quantize_model_linears

SHARE, CONFIG = "18.trainable_share", "18.lora_config_for"


@functools.cache
def _llama(device: str = "meta", tied: bool = True) -> nn.Module:
    """A tiny Llama with narrow k and v; on the meta device it has shapes alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=97, hidden_size=64, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
                         num_key_value_heads=1, tie_word_embeddings=tied, attention_bias=True, mlp_bias=True)  # fmt: skip
    with own_random_state(seed=0), torch.device(device):
        return LlamaForCausalLM(config)


@functools.cache
def _packed() -> nn.Module:
    return quantize_model_linears(copy.deepcopy(_llama("cpu")))


@functools.cache
def _named_alike() -> nn.Module:
    """The same with a layer in each block whose name ends like that of another, and one that begins so."""
    model = copied(_llama())
    for block in model.model.layers:
        block.self_attn.extra_q_proj = nn.Linear(64, 11, device="meta")
        block.self_attn.q_proj_2 = nn.Linear(64, 37, device="meta")
    return model


@functools.cache
def _stored_wide() -> nn.Module:
    """A layer packed into bfloat16 numbers, each of which holds four weights, and a trained one."""
    bnb = _bitsandbytes()
    with own_random_state(seed=0):
        packed = bnb.nn.Linear4bit(64, 65, bias=False, quant_storage=torch.bfloat16)
        nn.init.constant_(packed.weight, -1.0)  # packed as zeros; other bytes might read as NaN
        packed = packed.to("cpu")
        return nn.Sequential(packed.requires_grad_(False), nn.Linear(65, 3))


def _new(model: nn.Module) -> nn.Module:
    on_meta = next(model.parameters()).device.type == "meta"
    return copied(model) if on_meta else copy.deepcopy(model)


# --- The trained share ---------------------------------------------------------------------------
@functools.cache
def _with_lora(kind: str) -> nn.Module:
    """A model with adapters, to be copied."""
    made = {
        "untied": lambda: inject_lora(_new(_llama(tied=False)).to(torch.bfloat16), ["q_proj", "v_proj"], 3, 8),
        "tied": lambda: inject_lora(_new(_llama()), "all-linear", 3, 8),
        "packed": lambda: inject_lora(_new(_packed()), "all-linear", 3, 8),
        "for inference": lambda: inject_lora(_new(_llama(tied=False)), "all-linear", 3, 8).requires_grad_(False),
        "only B": lambda: inject_lora(_new(_llama(tied=False)), ["down_proj"], 3, 8),
        "stored wide": _stored_wide,
        "full": lambda: nn.Sequential(nn.Linear(7, 3).bfloat16(), nn.BatchNorm1d(3), nn.Linear(3, 5)).requires_grad_(True),
    }[kind]()  # fmt: skip
    if kind == "only B":
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(name.endswith((".B", "norm.weight")))
    return made


def _counts(model: nn.Module, count: Callable = weight_count) -> tuple[int, int]:
    parameters = list(model.parameters())
    return sum(count(p) for p in parameters if p.requires_grad), sum(map(count, parameters))


def _ratio(model: nn.Module, count: Callable) -> float:
    trained, every = _counts(model, count)
    return trained / every


@mistake(SHARE, "A shared weight is counted twice: the output head of this model is its embedding.")
def _tied_twice(model):
    every = [p for _, p in model.named_parameters(remove_duplicate=False)]
    return _counts(model)[0] / sum(map(weight_count, every))


@mistake(SHARE, "A shared weight is counted twice: model.parameters() gives it once, a walk over the modules once for each.")  # fmt: skip
def _tied_twice_in_both(model):
    every = [p for _, p in model.named_parameters(remove_duplicate=False)]
    return sum(weight_count(p) for p in every if p.requires_grad) / sum(map(weight_count, every))


@mistake(SHARE, "Elements are counted twice where they are bytes. A packed parameter may be stored in another dtype, with four weights in each number: its quant_state has the real shape.")  # fmt: skip
def _bytes_twice(model):
    return _ratio(model, lambda p: p.numel() * (2 if p.dtype == torch.uint8 else 1))


PACKED = "A packed 4-bit parameter is counted by its elements, each of which holds several weights, so the share is too large. Its quant_state has the real shape."


@mistake(SHARE, PACKED)
def _by_elements(model):
    return _ratio(model, lambda p: p.numel())


@mistake(SHARE, PACKED + " Shared weights are counted twice as well.")
def _by_elements_and_twice(model):
    every = [p for _, p in model.named_parameters(remove_duplicate=False)]
    return _counts(model)[0] / sum(p.numel() for p in every)


BY_NAME = "The share is that of the parameters that are called adapters. What is trained is decided by requires_grad, whatever its name."


@mistake(SHARE, BY_NAME)
def _by_name(model):
    adapters = [p for n, p in model.named_parameters() if n.endswith((".A", ".B"))]
    return sum(map(weight_count, adapters)) / _counts(model)[1]


@mistake(SHARE, BY_NAME)
def _by_name_and_gradient(model):
    named = [p for n, p in model.named_parameters() if n.endswith((".A", ".B"))]
    return sum(weight_count(p) for p in named if p.requires_grad) / _counts(model)[1]


NOTHING = "The share is 0 whatever is trained. requires_grad tells what is trained: not a name with “lora” in it, nor a gradient, which is there only after backward()."


@mistake(SHARE, NOTHING)
def _zero(model):
    return 0.0


@mistake(SHARE, "Only the parameters of linear layers are counted. Adapters, norms and the embedding are weights as well.")  # fmt: skip
def _linear_alone(model):
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return _ratio(nn.ModuleList(linears), weight_count)


@mistake(SHARE, "The output head is left out. It belongs to the model like every other layer.")
def _without_head(model):
    every = [p for n, p in model.named_parameters() if "lm_head" not in n]
    return sum(weight_count(p) for p in every if p.requires_grad) / sum(map(weight_count, every))


@mistake(SHARE, "Parameters of the same shape are taken for the same one. A shared weight is one tensor in two modules; equal layers in several blocks have weights of their own.")  # fmt: skip
def _equal_shapes_once(model):
    every = {(tuple(p.shape), p.requires_grad): p for p in model.parameters()}.values()
    return sum(weight_count(p) for p in every if p.requires_grad) / sum(map(weight_count, every))


@mistake(SHARE, "That is in percent. A share lies between 0 and 1.")
def _percent(model):
    return 100 * trainable_share(model)


OVER_FROZEN = "The trained weights are divided by the frozen ones. Divide by all weights, the trained ones among them."


@mistake(SHARE, OVER_FROZEN)
def _over_frozen(model):
    trained, every = _counts(model)
    return trained / (every - trained)


@mistake(SHARE, OVER_FROZEN)
def _over_frozen_if_any(model):
    trained, every = _counts(model)
    return trained / (every - trained) if every > trained else 1.0


@mistake(SHARE, "Tensors are counted, not the weights in them.")
def _tensors(model):
    return _ratio(model, lambda p: 1)


BYTES = "That is the share of the bytes. A float32 weight takes twice the bytes of a bfloat16 one; count weights."


@mistake(SHARE, BYTES)
def _bytes(model):
    return _ratio(model, lambda p: weight_count(p) * p.element_size())


@mistake(SHARE, BYTES)
def _bytes_of_elements(model):
    return _ratio(model, lambda p: p.numel() * p.element_size())


@mistake(SHARE, "That is the number of trained weights. Divide it by the number of all weights.")
def _count(model):
    return _counts(model)[0]


@mistake(SHARE, "That is the share that is not trained.")
def _not_trained(model):
    return 1 - trainable_share(model)


@mistake(SHARE, "Buffers are counted too. They are no weights: model.parameters() leaves them out.")
def _buffers(model):
    trained, every = _counts(model)
    return trained / (every + sum(b.numel() for b in model.buffers()))


@mistake(SHARE, "The share is upside down: all weights are divided by the trained ones.")
def _upside_down(model):
    trained, every = _counts(model)
    return every / trained


def _share_case(rule: str, describe: str, kind: str) -> Case:
    return Case(
        describe, lambda: (_new(_with_lora(kind)),), trainable_share, tolerance=1e-7, rule=rule
    )


SHARE_CASES = (
    _share_case(
        "share", "a model in bfloat16 with float32 adapters on q_proj and v_proj", "untied"
    ),
    _share_case(
        "share", "two linear layers, one of them in bfloat16, and a batch norm, all trained", "full"
    ),
    _share_case("trained", "an adapter loaded for inference", "for inference"),
    _share_case("trained", "only the matrices B and the norms are trained", "only B"),
    _share_case("tied", "a model whose output head is its embedding", "tied"),
    _share_case("packed", "the same with its linear layers in 4 bits", "packed"),
    _share_case(
        "packed",
        "a 4-bit layer whose packed numbers are bfloat16, and a trained layer",
        "stored wide",
    ),
)


def _draw_share(rng: random.Random, *_: object) -> tuple:
    widths = [rng.randint(1, 40) for _ in range(rng.randint(2, 5))]
    with torch.device("meta"):
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    for parameter in nn.ModuleList(layers).parameters():
        parameter.requires_grad_(rng.random() < 0.5)
    layers.append(layers[0])  # used twice, so its weights are shared
    return (nn.Sequential(*layers),)


# --- A configuration for a budget ----------------------------------------------------------------
def _peft_config(r: int, targets: Any, **changes: Any):
    from peft import LoraConfig

    return LoraConfig(**({"r": r, "lora_alpha": 2 * r, "target_modules": targets} | changes))


def _per_rank(model, targets) -> int:
    return sum(a + b for a, b in targeted_layers(model, targets).values())


def _declared(message: str, make: Callable[[nn.Module, int, Any], Any]) -> None:
    def answer(model, budget, targets="all-linear"):
        return make(model, budget, targets)

    mistake(CONFIG, message)(answer)


def _with_cost(message: str, cost: Callable[[nn.Module, Any], int]) -> None:
    """Declare a right configuration of a wrong rank: the budget divided by another cost."""
    _declared(
        message,
        lambda model, budget, targets: _peft_config(
            max(budget // cost(model, targets), 1), targets
        ),
    )


def _changed(message: str, *without: str, **changes: Callable[[int, Any], Any]) -> None:
    """Declare a configuration of the right rank with another setting."""

    def make(model, budget, targets):
        r = budget // _per_rank(model, targets)
        return _peft_config(
            r, targets, **{name: value(r, targets) for name, value in changes.items()}
        )

    _declared(message, make)


def _cost_where(model, targets, fits: Callable[[str, str], bool]) -> int:
    """What one unit of rank costs if a layer's name need only fit one of the targets."""
    if targets == "all-linear":
        return _per_rank(model, targets)
    layers = targeted_layers(model).items()
    return sum(sum(shape) for name, shape in layers if any(fits(name, t) for t in targets))


def _first(targets):
    return targets if isinstance(targets, str) else targets[:1]


def _kinds(model, targets):
    return {name.split(".")[-1]: shape for name, shape in targeted_layers(model, targets).items()}


_with_cost("The shapes are read from packed weights: a 4-bit weight is stored as one column of bytes. The layer knows its real widths.",
           lambda model, t: sum(sum(model.get_submodule(n).weight.shape) for n in targeted_layers(model, t)))  # fmt: skip
_with_cost("Layers whose name ends in a target are counted, such as extra_q_proj for q_proj. The target is the whole last part of the name, after the last dot.",
           lambda model, t: _cost_where(model, t, str.endswith))  # fmt: skip
_with_cost("Layers whose name holds a target anywhere are counted, such as extra_q_proj and q_proj_2 for q_proj. The target is the whole last part of the name, after the last dot.",
           lambda model, t: _cost_where(model, t, str.__contains__))  # fmt: skip
_with_cost("Layers whose last part of the name begins with a target are counted, such as q_proj_2 for q_proj. The target is the whole last part.",
           lambda model, t: _cost_where(model, t, lambda name, target: name.split(".")[-1].startswith(target)))  # fmt: skip
_with_cost("Each kind of layer is counted once, but it occurs in every block of the model.",
           lambda model, t: sum(map(sum, _kinds(model, t).values())))  # fmt: skip
_with_cost("Every layer is counted as a square of the model's width. Layers for k, v and the MLP are not square: r * (d_in + d_out).",
           lambda model, t: len(targeted_layers(model, t)) * 2 * model.config.hidden_size)  # fmt: skip
_with_cost("Only A is counted, r * d_in for each layer. B has r * d_out more.",
           lambda model, t: sum(a for a, _ in targeted_layers(model, t).values()))  # fmt: skip
_with_cost("Only B is counted, r * d_out for each layer. A has r * d_in more.",
           lambda model, t: sum(b for _, b in targeted_layers(model, t).values()))  # fmt: skip
_with_cost("The parameters of whole weights are counted, d_in * d_out. An adapter of rank r has r * (d_in + d_out).",
           lambda model, t: sum(a * b for a, b in targeted_layers(model, t).values()))  # fmt: skip
_with_cost("The output head is counted, although it gets no adapter.",
           lambda model, t: _per_rank(model, t) + model.lm_head.in_features + model.lm_head.out_features)  # fmt: skip
_with_cost('For "all-linear" the output head is counted, although it gets no adapter.',
           lambda model, t: _per_rank(model, t) + (model.lm_head.in_features + model.lm_head.out_features) * (t == "all-linear"))  # fmt: skip
_with_cost("The parameters of the biases are counted. An adapter has none: r * (d_in + d_out).",
           lambda model, t: _per_rank(model, t) + sum(b for _, b in targeted_layers(model, t).values()))  # fmt: skip
_with_cost("The cost of the first layer is taken for that of all. The layers have different widths: add up r * (d_in + d_out).",
           lambda model, t: sum(next(iter(targeted_layers(model, t).values()))) * len(targeted_layers(model, t)))  # fmt: skip
_with_cost("The budget is spent on each layer. All adapters together have at most `budget` parameters.",
           lambda model, t: max(map(sum, targeted_layers(model, t).values())))  # fmt: skip
_declared("The targets are not used: all linear layers are counted, and all get an adapter.",
          lambda model, budget, t: _peft_config(max(budget // _per_rank(model, "all-linear"), 1), "all-linear"))  # fmt: skip
_declared("Only the first target is used.",
          lambda model, budget, t: _peft_config(budget // _per_rank(model, _first(t)), _first(t)))  # fmt: skip
_with_cost("All linear layers are counted, although only some are targets.",
           lambda model, t: _per_rank(model, "all-linear"))  # fmt: skip

_declared("The rank is rounded up, so the adapter is over the budget.",
          lambda model, budget, t: _peft_config(-(-budget // _per_rank(model, t)), t))  # fmt: skip
_declared("The adapter stays below the budget, also where the next rank uses exactly the whole of it. At most `budget` includes the budget.",
          lambda model, budget, t: _peft_config((budget - 1) // _per_rank(model, t), t))  # fmt: skip
_declared("The rank is a power of two. A larger one fits: any whole number is a rank.",
          lambda model, budget, t: _peft_config(1 << ((budget // _per_rank(model, t)).bit_length() - 1), t))  # fmt: skip
_declared("The rank is limited by the width of the layers. A larger one fits into the budget.",
          lambda model, budget, t: _peft_config(min(budget // _per_rank(model, t), min(map(min, targeted_layers(model, t).values()))), t))  # fmt: skip
_declared("The budget itself is the rank. Divide it by what one unit of rank costs.",
          lambda model, budget, t: _peft_config(budget, t))  # fmt: skip
_declared("The result is the rank. Return the LoraConfig that holds it.",
          lambda model, budget, t: budget // _per_rank(model, t))  # fmt: skip
_changed("target_modules is not set. PEFT then adapts q_proj and v_proj, whatever the targets are.", target_modules=lambda r, t: None)  # fmt: skip
_changed("All linear layers get an adapter, although only some are targets.", target_modules=lambda r, t: "all-linear")  # fmt: skip
_changed("lora_alpha is not set: PEFT's default is 8. It is twice the rank, so that the factor alpha / r is 2.", lora_alpha=lambda r, t: 8)  # fmt: skip
_changed("lora_alpha is the rank. It is twice the rank.", lora_alpha=lambda r, t: r)
_changed(
    "use_rslora makes the factor α/√r. Leave it at its default, so that the factor is α/r.",
    use_rslora=lambda r, t: True,
)
_changed("lora_alpha is 2. It is twice the rank, so that the factor alpha / r is 2.", lora_alpha=lambda r, t: 2)  # fmt: skip


@functools.lru_cache(maxsize=512)
def _adapted(settings: str, config: _Hidden) -> dict:
    """What PEFT does with a configuration on a model of the same shapes."""
    import peft

    model = _new(_llama())
    peft.inject_adapter_in_model(copy.deepcopy(config.value), model, low_cpu_mem_usage=True)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, peft.tuners.lora.LoraLayer)}
    return {
        "layers with an adapter": set(layers),
        "trained parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "factors of the adapters": sorted({m.scaling["default"] for m in layers.values()}),
    }


class _Hidden:
    """A value that does not count in the key of a cache."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden)

    def __hash__(self) -> int:
        return 0


KEYS = {
    "rank": ("r",),
    "packed": ("r",),
    "layers": ("layers with an adapter", "trained parameters"),
    "alpha": ("lora_alpha", "factors"),
    "defaults": ("other settings",),
}
SEEN = (  # settings that other rules observe by what they do, and names that do nothing here
    "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
    "trainable_token_indices", "bias", "lora_bias", "use_dora", "task_type",
)  # fmt: skip


def _other_settings(config: Any) -> dict:
    """Return the settings with another value than PEFT's default, but for the ``SEEN`` ones."""
    default = type(config)().to_dict()
    own = {name: value for name, value in config.to_dict().items() if name not in SEEN}
    return {name: value for name, value in own.items() if (value or None) != (default.get(name) or None)}  # fmt: skip


def _observe(rule: str) -> Callable[[Any, tuple], dict]:
    def observe(config: Any, given: tuple) -> dict:
        from peft import LoraConfig

        if config is None:
            return None
        if not isinstance(config, LoraConfig):
            return {"type of the result": type(config).__name__} | dict.fromkeys(KEYS[rule], config)
        found = {"type of the result": "LoraConfig"}
        if rule in ("rank", "packed"):
            return found | {"r": config.r}
        if rule == "defaults":
            return found | {"other settings": _other_settings(config)}
        adapted = _adapted(str(sorted(config.to_dict().items(), key=str)), _Hidden(config))
        factors = {"lora_alpha": config.lora_alpha, "factors": adapted["factors of the adapters"]}
        layers = {name: adapted[name] for name in ("layers with an adapter", "trained parameters")}
        return found | (factors if rule == "alpha" else layers)

    return observe


def _config_case(
    rule: str,
    budget: int,
    targets: str | list[str],
    remark: str = "",
    made: Callable[[], nn.Module] = _llama,
    looks: str = "",
) -> Case:
    """``looks``: the rule whose part of the configuration is observed, if it is another one."""

    def arguments() -> tuple:
        return _new(made()), budget, targets if isinstance(targets, str) else list(targets)

    return Case(
        f"`lora_config_for(model, {budget}, {targets!r})`{remark}", arguments, lora_config_for,
        1e-9, rule=rule, observe=_observe(looks or rule),
    )  # fmt: skip


QV = ["q_proj", "v_proj"]
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
CONFIG_CASES = (
    _config_case("rank", 7400, QV),
    _config_case("rank", 13_104, ["down_proj", "k_proj"], ", which is exactly the cost of rank 13"),
    _config_case("rank", 59_999, ["v_proj"], ", where the rank exceeds the layers' width"),
    _config_case("rank", 43_000, "all-linear"),
    _config_case("packed", 50_000, "all-linear", ", the model in 4 bits", made=_packed),
    _config_case("layers", 7400, QV, ", the layers that get an adapter"),
    _config_case("layers", 43_000, "all-linear", ", the layers that get an adapter"),
    _config_case("layers", 9300, ATTENTION, ", the layers that get an adapter"),
    _config_case("layers", 16_100, MLP, ", the layers that get an adapter"),
    _config_case(
        "layers",
        7400,
        ["q_proj"],
        ", the model has layers called extra_q_proj and q_proj_2, too",
        _named_alike,
        "rank",
    ),
    _config_case("alpha", 7400, QV, ", its lora_alpha"),
    _config_case("defaults", 7400, QV, ", the settings that differ from PEFT's defaults"),
)


def _draw_config(rng: random.Random, model: nn.Module, *_: object) -> tuple:
    kinds = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    targets = rng.sample(kinds, rng.randint(1, 4))
    return model, _per_rank(model, targets) * rng.randint(1, 40) + rng.randint(0, 200), targets


EXERCISES = {
    SHARE: Exercise(
        SHARE,
        "What share is trained?",
        trainable_share,
        SHARE_CASES,
        asks="Return the share of the model's weights that is trained.",
        rules={
            "share": "It is the number of trained weights divided by that of all weights. Adapters count in both, buffers in none.",
            "trained": "A weight is trained if it requires a gradient, whatever its name.",
            "tied": "A weight that two modules share counts once.",
            "packed": "A packed 4-bit parameter has a quant_state, and quant_state.shape is the shape of its weights, whatever dtype it is stored in.",
            "unchanged": "The model stays as it is.",
        },
        draw=_draw_share,
        hints=(
            "Two sums over the model's parameters are needed. Which parameters belong to each?",
            ("packed", "So the number of weights in a parameter is not always its number of elements."),
            "The place to look is how you count one parameter. Write that as a function of its own, and use it in both sums.",
        ),
        path="Begin with one parameter: how many weights does it hold? Then add over all parameters of the model, and over those that require a "
        "gradient. model.parameters() already gives a shared weight once. The usual wrong turn is numel(), which counts bytes in a packed model.",
        why="PEFT's `print_trainable_parameters()` does the same: it counts a packed parameter with all weights in it. The share says how much is trained, not how much memory is saved: "
        "notebooks 06 and 19 measure that.",
        shows=(weight_count,),
    ),
    CONFIG: Exercise(
        CONFIG,
        "The largest rank that fits",
        lora_config_for,
        CONFIG_CASES,
        asks="Return the peft.LoraConfig of the largest rank that trains at most `budget` parameters.\n\n"
        'targets: the kinds of layers that get an adapter, such as ["q_proj", "v_proj"], or "all-linear".',
        rules={
            "rank": "r is the largest whole number for which all adapters together have at most `budget` parameters. "
            "It need not be a power of two and may exceed a layer's width. The budget suffices for r = 1.",
            "alpha": "lora_alpha is 2 * r; the adapters' factor is lora_alpha / r.",
            "layers": 'A layer gets an adapter if the last part of its name is one of targets; for "all-linear", every linear layer except lm_head does. Nothing else is trained.',
            "defaults": "All other settings keep PEFT's defaults. A task_type may be set.",
            "packed": "In a 4-bit model, count the widths that a layer computes with, not those of the packed weight.",
            "unchanged": "The model stays as it is: it gets no adapters here.",
        },
        draw=_draw_config,
        hints=(
            "How many parameters does one unit of rank cost, over all layers that get an adapter?",
            ("rank", "`linear_layers(model)` gives (d_in, d_out) by name, without the head."),
            "The place to look is the sum: it goes over every block, and the kind of a layer is the last part of its name.",
        ),
        path="Find the layers first: all whose kind is among the targets, in every block. Then the cost of rank 1, the sum of their d_in + d_out. The rank is "
        "how often that cost fits into the budget. Hand the targets on, and set alpha. The usual wrong turn is to count each kind of layer once.",
        why="A rank is usually chosen as 8, 16 or 64 by habit. Nothing requires a power of two. "
        "α goes with the rank here, so that a larger budget does not weaken the update.",
        points=2,
        shows=(targeted_layers,),
    ),
}  # fmt: skip
