"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import numpy as np
import torch
from peft import LoraConfig, PeftModel
from torch import nn

from sftlab.classroom.answers import refused, right
from sftlab.lora import inject_lora, lora_parameters
from sftlab.memory.shapes import linear_layers

SHARE, CONFIG = "18.trainable_share", "18.lora_config_for"
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def size(p):
    return p.quant_state.shape.numel() if hasattr(p, "quant_state") and p.quant_state else p.numel()


@right(SHARE)
def two_sums(model):
    trained = sum(size(p) for p in model.parameters() if p.requires_grad)
    return trained / sum(size(p) for p in model.parameters())


@right(SHARE)
def in_a_loop(model):
    trained = every = 0
    for _, p in model.named_parameters():
        n = p.numel() * (2 if p.__class__.__name__ == "Params4bit" else 1)
        every += n
        if p.requires_grad:
            trained += n
    return trained / every


@right(SHARE)
def with_torch(model):
    sizes = torch.tensor([size(p) for p in model.parameters()], dtype=torch.float64)
    mask = torch.tensor([p.requires_grad for p in model.parameters()])
    return float((sizes * mask).sum() / sizes.sum())


@right(SHARE)
def with_numpy(model):
    distinct = {id(p): p for module in model.modules() for p in module._parameters.values()}
    rows = [(size(p), p.requires_grad) for p in distinct.values() if p is not None]
    sizes, trained = np.array(rows).T
    return np.average(trained, weights=sizes)


@right(SHARE)
def by_peft(model):
    trained, every = PeftModel.get_nb_trainable_parameters(model)
    return trained / every


@refused(SHARE, "is None, but")
def printed(model):
    print(f"{two_sums(model):.2%}")


# --- A configuration for a budget ----------------------------------------------------------------
def layers_for(model, targets):
    layers = linear_layers(model)
    if targets == "all-linear":
        return layers
    return {n: s for n, s in layers.items() if n.split(".")[-1] in targets}


def cost(model, targets):
    return sum(a + b for a, b in layers_for(model, targets).values())


def config(r, targets, **changes):
    return LoraConfig(**({"r": r, "lora_alpha": 2 * r, "target_modules": targets} | changes))


@right(CONFIG)
def by_formula(model, budget, targets="all-linear"):
    return config(budget // cost(model, targets), targets)


@right(CONFIG)
def by_trial_with_dropout(model, budget, targets):
    r = 1
    while (r + 1) * cost(model, targets) <= budget:
        r += 1
    return LoraConfig(r=r, lora_alpha=2 * r, target_modules=targets, lora_dropout=0.05)


@right(CONFIG)
def names_listed(model, budget, targets):
    cost = sum(
        m.in_features + m.out_features
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear) and "lm_head" not in n
        and (targets == "all-linear" or n.rpartition(".")[2] in targets)
    )  # fmt: skip
    names = SEVEN if targets == "all-linear" else targets
    return LoraConfig(r=budget // cost, lora_alpha=budget // cost * 2, target_modules=names)


@right(CONFIG)
class HalvingTheRange(LoraConfig):
    """Put rank 1 into a small copy, count it, and halve the range of ranks until one is left."""

    def __init__(self, model, budget, targets):
        with torch.device("meta"):
            copy = type(model)(model.config)
        inject_lora(copy, targets, r=1, lora_alpha=1)
        one = sum(p.numel() for p in lora_parameters(copy))
        low, high = 0, budget
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle * one <= budget else (low, middle - 1)
        super().__init__(r=low, lora_alpha=low + low, target_modules=targets)


@refused(CONFIG, "packed weights")
def shapes_of_packed_weights(model, budget, targets):
    cost = sum(sum(model.get_submodule(n).weight.shape) for n in layers_for(model, targets))
    return config(budget // cost, targets)


@refused(CONFIG, "occurs in every block")
def one_block(model, budget, targets):
    first = [a + b for n, (a, b) in layers_for(model, targets).items() if ".0." in n]
    return config(budget // sum(first), targets)


@refused(CONFIG, "counted as square")
def square(model, budget, targets):
    count = len(layers_for(model, targets))
    return config(budget // (count * 2 * model.config.hidden_size), targets)


@refused(CONFIG, "Only A was counted")
def only_A(model, budget, targets):
    return config(budget // sum(a for a, _ in layers_for(model, targets).values()), targets)


@refused(CONFIG, "Only B was counted")
def only_B(model, budget, targets):
    return config(budget // sum(b for _, b in layers_for(model, targets).values()), targets)


@refused(CONFIG, "output head was counted")
def head_counted(model, budget, targets):
    head = model.lm_head.in_features + model.lm_head.out_features
    return config(budget // (cost(model, targets) + head), targets)


@refused(CONFIG, "rounded up")
def rounded_up(model, budget, targets):
    return config(-(-budget // cost(model, targets)), targets)


@refused(CONFIG, "no power of two")
def power_of_two(model, budget, targets):
    r = 1
    while 2 * r * cost(model, targets) <= budget:
        r *= 2
    return config(r, targets)


@refused(CONFIG, "more than the budget")
def budget_as_rank(model, budget, targets):
    return config(budget, targets)


@refused(CONFIG, "PEFT then takes its default")
def pefts_default(model, budget, targets):
    return config(budget // cost(model, targets), None)


@refused(CONFIG, "asked for were")
def always_q_and_v(model, budget, targets):
    return config(budget // cost(model, targets), ["q_proj", "v_proj"])


@refused(CONFIG, "output head is among")
def head_targeted(model, budget, targets):
    return config(budget // cost(model, targets), ["q_proj", "v_proj", "lm_head"])


@refused(CONFIG, "more than A and B")
def embeddings_saved(model, budget, targets):
    return config(budget // cost(model, targets), targets, modules_to_save=["embed_tokens"])


@refused(CONFIG, "twice the rank")
def alpha_forgotten(model, budget, targets):
    return config(budget // cost(model, targets), targets, lora_alpha=8)


@refused(CONFIG, "That is a rank")
def a_rank(model, budget, targets):
    return budget // cost(model, targets)


@refused(CONFIG, "this is a dict")
def a_dictionary(model, budget, targets):
    return {"r": budget // cost(model, targets)}
