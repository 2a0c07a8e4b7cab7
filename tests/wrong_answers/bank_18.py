"""Answers to the checks of notebook 18, as students write them."""

import torch
from peft import LoraConfig
from torch import nn

from sftlab.memory.shapes import linear_layers


def size(p):
    return p.quant_state.shape.numel() if hasattr(p, "quant_state") and p.quant_state else p.numel()


def share(model, count=size, over=None):
    trained = sum(count(p) for p in model.parameters() if p.requires_grad)
    return trained / sum(count(p) for p in model.parameters())


def in_a_loop(model):
    trained = every = 0
    for _, p in model.named_parameters():
        n = p.numel() * (2 if p.__class__.__name__ == "Params4bit" else 1)
        every += n
        if p.requires_grad:
            trained += n
    return trained / every


def with_torch(model):
    sizes = torch.tensor([size(p) for p in model.parameters()], dtype=torch.float64)
    mask = torch.tensor([p.requires_grad for p in model.parameters()])
    return float((sizes * mask).sum() / sizes.sum())


def over_frozen(model):
    frozen = sum(size(p) for p in model.parameters() if not p.requires_grad)
    return sum(size(p) for p in model.parameters() if p.requires_grad) / frozen


def tied_twice(model):
    trained = sum(size(p) for p in model.parameters() if p.requires_grad)
    return trained / sum(size(p) for _, p in model.named_parameters(remove_duplicate=False))


def by_name(model):
    lora = sum(size(p) for n, p in model.named_parameters() if n[-2:] in (".A", ".B"))
    return lora / sum(size(p) for p in model.parameters())


def printed(model):
    print(f"{share(model):.2%}")


# --- Budget -----------------------------------------------------------------------------------
def layers_for(model, targets):
    layers = linear_layers(model)
    if targets == "all-linear":
        return layers
    return {n: s for n, s in layers.items() if n.split(".")[-1] in targets}


def config(cost, **changes):
    """A configuration whose rank is the budget by `cost(model, targets)`."""

    def way(model, budget, targets="all-linear"):
        r = budget // cost(model, targets)
        settings = {"r": r, "lora_alpha": 2 * r, "target_modules": targets} | {
            k: v(r) if callable(v) else v for k, v in changes.items()
        }
        return LoraConfig(**settings)

    return way


def right_cost(model, targets):
    return sum(a + b for a, b in layers_for(model, targets).values())


def by_trial(model, budget, targets):
    r = 1
    while (r + 1) * right_cost(model, targets) <= budget:
        r += 1
    return LoraConfig(r=r, lora_alpha=2 * r, target_modules=targets, lora_dropout=0.05)


def names_listed(model, budget, targets):
    cost = sum(
        m.in_features + m.out_features
        for n, m in model.named_modules()
        if isinstance(m, nn.Linear) and "lm_head" not in n
        and (targets == "all-linear" or n.rpartition(".")[2] in targets)
    )  # fmt: skip
    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    names = every if targets == "all-linear" else targets
    return LoraConfig(r=budget // cost, lora_alpha=budget // cost * 2, target_modules=names)


def packed(model, targets):
    return sum(sum(model.get_submodule(n).weight.shape) for n in layers_for(model, targets))


def one_block(model, targets):
    return sum(a + b for n, (a, b) in layers_for(model, targets).items() if ".0." in n)


def square(model, targets):
    return len(layers_for(model, targets)) * 2 * model.config.hidden_size


def only_A(model, targets):
    return sum(a for a, _ in layers_for(model, targets).values())


def only_B(model, targets):
    return sum(b for _, b in layers_for(model, targets).values())


def with_head(model, targets):
    head = model.lm_head
    return right_cost(model, targets) + head.in_features + head.out_features


def rounded_up(model, budget, targets):
    r = -(-budget // right_cost(model, targets))
    return LoraConfig(r=r, lora_alpha=2 * r, target_modules=targets)


def power_of_two(model, budget, targets):
    r = 1
    while 2 * r * right_cost(model, targets) <= budget:
        r *= 2
    return LoraConfig(r=r, lora_alpha=2 * r, target_modules=targets)


def share_as_budget(model, budget, targets):
    return LoraConfig(r=budget, lora_alpha=2 * budget, target_modules=targets)


RIGHT = {
    "18.trainable_share": {"two sums": share, "a loop": in_a_loop, "with torch": with_torch},
    "18.lora_config_for": {
        "formula": config(right_cost),
        "by trial, with dropout": by_trial,
        "names listed": names_listed,
    },
}
WRONG = {
    "18.trainable_share": {
        "per cent": (lambda m: 100 * share(m), "in per cent"),
        "over the frozen": (over_frozen, "divides by the *frozen*"),
        "tensors": (lambda m: share(m, lambda p: 1), "counts tensors"),
        "bytes": (lambda m: share(m, lambda p: size(p) * p.element_size()), "share of the *bytes*"),
        "count": (
            lambda m: sum(size(p) for p in m.parameters() if p.requires_grad),
            "number of trained",
        ),
        "not trained": (lambda m: 1 - share(m), "*not* trained"),
        "tied twice": (tied_twice, "is counted twice"),
        "packed": (lambda m: share(m, lambda p: p.numel()), "packs two weights"),
        "by name": (by_name, "loaded for inference"),
        "printed": (printed, "is None, but"),
    },
    "18.lora_config_for": {
        "packed": (config(packed), "packed weights"),
        "one block": (config(one_block), "occurs in every block"),
        "square": (config(square), "counted as square"),
        "only A": (config(only_A), "Only A was counted"),
        "only B": (config(only_B), "Only B was counted"),
        "head counted": (config(with_head), "output head was counted"),
        "rounded up": (rounded_up, "rounded up"),
        "power of two": (power_of_two, "no power of two"),
        "far too much": (share_as_budget, "more than the budget"),
        "PEFT's default": (config(right_cost, target_modules=None), "PEFT then takes its default"),
        "always q and v": (
            config(right_cost, target_modules=["q_proj", "v_proj"]),
            "asked for were",
        ),
        "head targeted": (
            config(right_cost, target_modules=["q_proj", "v_proj", "lm_head"]),
            "output head is among",
        ),
        "embeddings saved": (
            config(right_cost, modules_to_save=["embed_tokens"]),
            "more than A and B",
        ),
        "α forgotten": (config(right_cost, lora_alpha=8), "twice the rank"),
        "a rank": (lambda m, b, t: b // right_cost(m, t), "That is a rank"),
        "a dictionary": (lambda m, b, t: {"r": b // right_cost(m, t)}, "this is a dict"),
    },
}
