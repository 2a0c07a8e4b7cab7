"""Checks of notebook 18: the trained share of a model, and the LoRA that a budget allows."""

from __future__ import annotations

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.lora import inject_lora
from sftlab.memory.count import lora_config_for, targeted_layers, trainable_share, weight_count
from sftlab.quantized_layers import quantize_model_linears

SHARE, CONFIG = "18.trainable_share", "18.lora_config_for"


def _llama(device: str = "cpu", tied: bool = True) -> nn.Module:
    """A tiny Llama with narrow k and v; on the meta device it has shapes alone."""
    config = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
                         num_key_value_heads=1, tie_word_embeddings=tied)  # fmt: skip
    state = torch.get_rng_state()
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_rng_state(state)
    return model


def _untied() -> tuple:
    return (inject_lora(_llama("meta", tied=False).to(torch.bfloat16), ["q_proj", "v_proj"], 4, 8),)


def _tied() -> tuple:
    return (inject_lora(_llama("meta"), "all-linear", 4, 8),)


def _four_bit() -> tuple:
    return (inject_lora(quantize_model_linears(_llama()), "all-linear", 4, 8),)


def _for_inference() -> tuple:
    return (inject_lora(_llama("meta"), "all-linear", 4, 8).requires_grad_(False),)


def _counts(model: nn.Module, count=weight_count) -> tuple[int, int]:
    parameters = list(model.parameters())
    return sum(count(p) for p in parameters if p.requires_grad), sum(map(count, parameters))


def _ratio(model: nn.Module, count) -> float:
    trained, every = _counts(model, count)
    return trained / every


@mistake(SHARE, "The output head of this model *is* its embedding, and is counted twice. `model.parameters()` gives a shared weight once.")  # fmt: skip
def _tied_twice(model):
    every = [p for _, p in model.named_parameters(remove_duplicate=False)]
    return _counts(model)[0] / sum(map(weight_count, every))


@mistake(SHARE, "A 4-bit parameter packs two weights into each byte, so `numel()` gives half of them and the share comes out too large. `p.quant_state.shape` has the real shape, where there is one.")  # fmt: skip
def _packed(model):
    return _ratio(model, lambda p: p.numel())


@mistake(SHARE, "It counts what is *called* an adapter. This one was loaded for inference: nothing requires a gradient, so the share is 0.")  # fmt: skip
def _by_name(model):
    adapters = [p for n, p in model.named_parameters() if n.endswith((".A", ".B"))]
    return sum(map(weight_count, adapters)) / _counts(model)[1]


@mistake(SHARE, "That is in per cent. A share lies between 0 and 1.")
def _per_cent(model):
    return 100 * trainable_share(model)


@mistake(SHARE, "It divides by the *frozen* parameters. The adapter belongs to the whole.")
def _over_frozen(model):
    trained, every = _counts(model)
    return trained / (every - trained)


@mistake(SHARE, "It counts tensors. Count the numbers in them: `p.numel()`.")
def _tensors(model):
    return _ratio(model, lambda p: 1)


@mistake(SHARE, "That is the share of the *bytes*: adapters in float32 weigh twice as much as a base in bfloat16. Count numbers.")  # fmt: skip
def _bytes(model):
    return _ratio(model, lambda p: weight_count(p) * p.element_size())


@mistake(SHARE, "That is the number of trained parameters. Divide it by the number of all of them.")
def _count(model):
    return _counts(model)[0]


@mistake(SHARE, "That is the share that is *not* trained.")
def _not_trained(model):
    return 1 - trainable_share(model)


# --- A configuration for a budget ----------------------------------------------------------------
SEVEN = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
QV = ["q_proj", "v_proj"]


def _budget_arguments(budget: int, targets, four_bit: bool = False):
    return lambda: (
        quantize_model_linears(_llama()) if four_bit else _llama("meta"), budget,
        targets if isinstance(targets, str) else list(targets),
    )  # fmt: skip


def _rank_mistakes(model: nn.Module, budget: int, targets) -> list[tuple[int, str]]:
    """Ranks that known mistakes lead to, and what they are."""
    layers = targeted_layers(model, targets)
    shapes, hidden = list(layers.values()), 64
    per_rank = sum(a + b for a, b in shapes)
    packed = [model.get_submodule(n).weight.shape for n in layers]
    kinds = {n.split(".")[-1]: s for n, s in layers.items()}
    return [
        (budget // sum(sum(s) for s in packed), "The shapes were read from packed weights: a 4-bit weight is stored as one column of bytes. `in_features` and `out_features` tell the real ones."),
        (budget // sum(sum(s) for s in kinds.values()), "Each kind of layer was counted once, but it occurs in every block of the model."),
        (budget // (len(shapes) * 2 * hidden), "Every layer was counted as square, 2·d·r. The layers for k, v and the MLP are not: r·(d_in + d_out)."),
        (budget // sum(a for a, _ in shapes), "Only A was counted, r·d_in. B has r·d_out more."),
        (budget // sum(b for _, b in shapes), "Only B was counted, r·d_out. A has r·d_in more."),
        (budget // (per_rank + 96 + hidden), "The output head was counted, but it gets no adapter: it is not among the targets."),
        (-(-budget // per_rank), "The rank was rounded up, so the adapter is just over the budget. Round down."),
    ]  # fmt: skip


def _verify_config(result, arguments) -> str | None:
    from peft import LoraConfig

    model, budget, targets = arguments
    if isinstance(result, int):
        return "That is a rank. Return a `peft.LoraConfig` that holds it, with the targets."
    if not isinstance(result, LoraConfig):
        return f"Return a `peft.LoraConfig`; this is a `{type(result).__name__}`."
    asked = SEVEN if targets == "all-linear" else set(targets)
    chosen = result.target_modules
    if chosen is None:
        return "`target_modules` is not set: PEFT then takes its default, for Llama models `q_proj` and `v_proj` alone, whatever was asked for."
    if chosen != "all-linear" and isinstance(chosen, str):
        chosen = {chosen}
    chosen = SEVEN if chosen == "all-linear" else set(chosen)
    if "lm_head" in chosen:
        return "The output head is among the targets. It shares its weight with the embedding here: leave it out."
    if chosen != asked:
        return f"The targets are {', '.join(sorted(chosen))}; asked for were {', '.join(sorted(asked))}."
    if result.modules_to_save or result.bias != "none":
        return "It trains more than A and B: `modules_to_save` keeps a full copy of whole layers (embeddings make an adapter huge), and `bias` trains biases."
    per_rank = sum(a + b for a, b in targeted_layers(model, targets).values())
    right = budget // per_rank
    if result.r != right:
        for rank, message in _rank_mistakes(model, budget, targets):
            if rank == result.r:
                return message
        if result.r > right:
            return f"Rank {result.r} trains {result.r * per_rank:,} parameters, more than the budget of {budget:,}."
        return f"Rank {result.r} trains {result.r * per_rank:,} parameters. The budget of {budget:,} allows a larger rank; it need be no power of two."
    if result.lora_alpha != 2 * result.r:
        return f"`lora_alpha` is {result.lora_alpha}; asked for is twice the rank, so that the factor α/r is 2 whatever the budget."
    return None


EXERCISES = {
    SHARE: Exercise(
        id=SHARE,
        title="What share is trained?",
        reference=trainable_share,
        cases=[
            Case("a model in bfloat16 with adapters on q and v", _untied, trainable_share, tolerance=1e-9),
            Case("a model whose head is its embedding", _tied, trainable_share, tolerance=1e-9),
            Case("the same with its linear layers in 4 bits", _four_bit, trainable_share, tolerance=1e-9),
            Case("an adapter loaded for inference", _for_inference, trainable_share, tolerance=1e-9),
        ],
        hints=[
            "Two sums over `model.parameters()`: one of those with `requires_grad`, one of all. Divide.",
            "How many weights does a parameter hold? `p.numel()`, unless it is packed: then it has a `quant_state`, and that has a `shape`.",
        ],
        why="PEFT's `print_trainable_parameters()` does the same: it counts a packed parameter double. The share says how much is trained, not how much memory is saved: "
        "notebooks 06 and 19 measure that.",
        shows=(weight_count,),
    ),
    CONFIG: Exercise(
        id=CONFIG,
        title="The largest rank that fits",
        reference=lora_config_for,
        cases=[
            Case("at most 60,000 parameters on all linear layers", _budget_arguments(60_000, "all-linear"), verify=_verify_config),
            Case("at most 14,000 on q_proj and v_proj", _budget_arguments(14_000, QV), verify=_verify_config),
            Case("at most 70,000 on all linear layers, the model in 4 bits", _budget_arguments(70_000, "all-linear", True), verify=_verify_config),
        ],
        hints=[
            "How many parameters does one unit of rank cost? Add d_in + d_out over *all* layers that get an adapter.",
            "`sftlab.memory.shapes.linear_layers(model)` gives (d_in, d_out) by name, without the head. A target is the last part of the name.",
            "The rank is the budget divided by that cost, rounded down. Hand `targets` on as `target_modules`.",
        ],
        why="A rank is usually chosen as 8, 16 or 64 by habit. Nothing requires a power of two; what matters more is which layers carry it. "
        "α goes with the rank here, so that a larger budget does not weaken the update.",
        points=2,
        shows=(targeted_layers,),
    ),
}  # fmt: skip
