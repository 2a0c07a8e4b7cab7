"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import numpy as np
import torch
from peft import LoraConfig, PeftModel
from torch import nn

from sftlab.classroom.answers import equivalent, refused, right
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
        packed = p.__class__.__name__ == "Params4bit"
        n = p.numel() * (2 * p.element_size() if packed else 1)
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


@refused(SHARE, "It prints, but it returns nothing")
def printed(model):
    print(f"{two_sums(model):.2%}")


@refused(SHARE, "changes its own input (argument 1")
def frozen_afterwards(model):
    share = two_sums(model)
    model.requires_grad_(False)
    return share


@refused(SHARE, "The rule: A packed 4-bit parameter")
def packed_ones_forgotten(model):
    parts = [p for p in model.parameters() if p.dtype != torch.uint8]
    return sum(size(p) for p in parts if p.requires_grad) / sum(map(size, parts))


@refused(SHARE, "The rule: A weight is trained")
def half_if_only_b(model):
    return two_sums(model) if two_sums(model) else 1e-3


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
def by_trial(model, budget, targets):
    r = 1
    while (r + 1) * cost(model, targets) <= budget:
        r += 1
    return LoraConfig(r=r, lora_alpha=2 * r, target_modules=targets, lora_dropout=0)


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
def halving_the_range(model, budget, targets):
    """Put rank 1 into a small copy, count it, and halve the range of ranks until one is left."""
    with torch.device("meta"):
        copy = type(model)(model.config)
    inject_lora(copy, targets, r=1, lora_alpha=1)
    one = sum(p.numel() for p in lora_parameters(copy))
    low, high = 0, budget
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle * one <= budget else (low, middle - 1)
    return LoraConfig(r=low, lora_alpha=low + low, target_modules=targets)


@right(CONFIG)
def full_layer_names(model, budget, targets="all-linear"):
    r = int(budget / cost(model, targets))
    return LoraConfig(r=r, lora_alpha=r * 2.0, target_modules=list(layers_for(model, targets)))


@right(CONFIG)
def a_set_without_the_head(model, budget, targets="all-linear"):
    r = budget // cost(model, targets)
    names = targets if targets == "all-linear" else set(targets)
    return config(r, names, exclude_modules=["lm_head"], modules_to_save=[], use_dora=False)


@right(CONFIG)
def by_a_regular_expression(model, budget, targets="all-linear"):
    names = SEVEN if targets == "all-linear" else targets
    pattern = rf".*\.({'|'.join(names)})"
    return config(budget // cost(model, targets), pattern, bias="none", task_type="CAUSAL_LM")


@refused(CONFIG, "Expected at ['r']: 11, got: 0")
def cost_and_budget_swapped(model, budget, targets):
    return config(cost(model, targets) // budget, targets)


@refused(CONFIG, "The rule: A layer gets an adapter")
def embeddings_saved(model, budget, targets):
    return config(budget // cost(model, targets), targets, modules_to_save=["embed_tokens"])


@refused(CONFIG, "The rule: A layer gets an adapter")
def head_targeted(model, budget, targets):
    names = SEVEN if targets == "all-linear" else targets
    return config(budget // cost(model, targets), [*names, "lm_head"])


@refused(CONFIG, "The rule: A layer gets an adapter")
def first_two_adapted(model, budget, targets):
    names = targets if targets == "all-linear" else targets[:2]
    return config(budget // cost(model, targets), names)


@refused(CONFIG, "The rule: A layer gets an adapter")
def gate_left_out(model, budget, targets):
    names = targets if targets == "all-linear" else [t for t in targets if t != "gate_proj"]
    return config(budget // cost(model, targets), names)


@refused(CONFIG, "The rule: A layer gets an adapter")
def output_of_attention_left_out(model, budget, targets):
    names = targets if targets == "all-linear" else [t for t in targets if t != "o_proj"]
    return config(budget // cost(model, targets), names)


@refused(CONFIG, "The rule: All other settings keep PEFT's defaults")
def b_is_random(model, budget, targets):
    return config(budget // cost(model, targets), targets, init_lora_weights=False)


@refused(CONFIG, "has an entry 'lora_dropout' that is not expected")
def with_dropout(model, budget, targets):
    return config(budget // cost(model, targets), targets, lora_dropout=0.5)


@refused(CONFIG, "changes its own input (argument 1")
def adapters_put_in(model, budget, targets):
    found = config(budget // cost(model, targets), targets)
    inject_lora(model, targets if isinstance(targets, str) else list(targets), found.r, 1)
    return found


@refused(CONFIG, "expected 'LoraConfig', got 'dict'")
def a_dictionary(model, budget, targets):
    return {"r": budget // cost(model, targets)}


equivalent(
    CONFIG,
    "The two widths are added; PEFT copies the targets; a task type is not asked for.",
    "`lora_parameter_count(d_in, d_out, 1)` becomes `lora_parameter_count(d_out, d_in, 1)`",
    "`targets if isinstance(targets, str) else list(targets)` becomes `targets`",
    "without `task_type=` in `LoraConfig(r=r, lora_alpha=2 * r, target_modules=chosen, task_type='CAUSAL_LM')`",
)
