"""Whether a causal language model of any architecture can be trained here, tried on the model.

transformers builds about 190 of them. Some are not causal, some add terms to their loss, some read
the weight of a layer past the layer. No list of names is complete, so each check makes a trial call.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sftlab.lora import lora_layers, lora_parameters
from sftlab.loss import IGNORE_INDEX, model_loss, trial
from sftlab.targets import linear_layers, output_head, unfit_layers

LENGTH, PADDING = 16, 3  # tokens per row of a trial batch, and how many of the second are padding


class Limits(NamedTuple):
    """What a model declares that it can read."""

    positions: int | None  # tokens per row
    hard: bool  # True: a longer row is an error, False: it is only outside what was trained
    vocabulary: int  # token ids are below this


def limits(model) -> Limits:
    """Return the limits of a model, read from its text configuration and its embeddings.

    The limit on the positions is hard if the model has a table of them, learned (GPT-2) or computed
    (GPT-J). Rotary positions are computed as needed, so a longer row is possible.
    """
    config = model.config.get_text_config(decoder=True)
    tokens = model.get_input_embeddings()
    positions = getattr(config, "max_position_embeddings", getattr(config, "max_seq_len", None))
    if positions is None or positions < 1:  # XLNet says -1
        return Limits(None, False, tokens.weight.shape[0])
    reader = model.get_decoder()
    learned = [m for m in reader.modules() if isinstance(m, nn.Embedding) and m is not tokens]
    # Some tables begin with a few rows for padding.
    hard = any(positions <= m.num_embeddings <= positions + 4 for m in learned)
    hard |= any(b.ndim > 1 and b.shape[0] == positions for b in reader.buffers())
    hard |= config.model_type == "mpt"  # has no table: its position biases end there
    return Limits(positions, hard, tokens.weight.shape[0])


def _trial_batch(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return two rows (2, 16) of the same tokens; the end of the second is padding.

    The tokens are those of the batch's longest row, repeated as often as needed.
    """
    lengths = batch["attention_mask"].sum(1)
    row = int(lengths.argmax())
    ids = batch["input_ids"][row, : max(int(lengths[row]), 1)].repeat(LENGTH)[:LENGTH]
    ids = torch.stack([ids, ids])
    mask = torch.ones_like(ids)
    mask[1, -PADDING:] = 0
    ids[1, -PADDING:] = ids[1, 0]
    labels = ids.where(mask == 1, IGNORE_INDEX)
    labels[:, :2] = IGNORE_INDEX  # as a prompt
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def check_loss(model, batch: dict[str, Tensor]) -> str | None:
    """Return why the model cannot be trained here, in one sentence; None if it can.

    In a trial call, the model has to return logits for tokens and a mask alone, earlier positions
    must not depend on later ones or on padding, and ``model_loss`` must equal the loss that the
    model itself returns for ``labels`` (in nats per trained token, within 1e-4; 2e-2 for weights of
    16 bits). Weights, gradients, modes and random state stay as they are.

    Args:
        batch: any batch of ``data.collate``; 16 tokens of it are used.
    """
    name, rows = type(model).__name__, _trial_batch(batch)
    pairs = []  # the model's own loss and ours, in eval mode and in training mode
    with trial(model) as reseed:
        try:
            for training in (False, True):
                model.train(training)
                reseed(0)
                found = model(**rows, use_cache=False)
                reseed(0)
                total, count = model_loss(model, rows)
                pairs.append((found.loss.item(), total.item() / count))
                if not training:
                    logits = found.logits.detach().float()
                    if said := _not_causal(model, logits, rows):
                        return said
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # models raise many types for an argument that they lack
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            return f"{name} cannot be trained with tokens, a mask and labels alone: {type(error).__name__}: {reason}"  # fmt: skip
    for own, ours in pairs:
        if not abs(own - ours) <= _rounding(model) * max(1.0, abs(ours)):
            return (
                f"{name}'s own loss of a trial batch is {own:.4f} nats, the mean over its trained "
                f"tokens is {ours:.4f}: {_difference(model, logits, rows, own)}"
            )
    return None


def _rounding(model) -> float:
    """Return the relative difference that may come from rounding alone."""
    return 1e-4 if model.dtype in (torch.float32, torch.float64) else 2e-2


def _not_causal(model, logits: Tensor, rows: dict[str, Tensor]) -> str | None:
    """Return a sentence if the logits are not one row per token that depends on earlier tokens."""
    name = type(model).__name__
    if logits.shape[:2] != rows["labels"].shape:
        return f"{name} returns logits of shape {tuple(logits.shape)} for {tuple(rows['labels'].shape)} tokens"  # fmt: skip
    if logits.isnan().any():
        return f"{name} returns logits that are no numbers (NaN): load it anew, or in float32"
    whole, padded = logits[:, :-PADDING]
    differ = whole != padded  # masked entries of the vocabulary may be -inf in both
    noise = _rounding(model) * whole[whole.isfinite()].abs().max()
    if not ((whole - padded)[differ].abs() > noise).any():
        return None
    return (
        f"{name} is not causal: what it predicts depends on the tokens that follow, or on padding; "
        + "load it with is_decoder=True in its configuration, or "
        * (getattr(model.config, "is_decoder", None) is False)
        + "choose a causal model"
    )


def _difference(model, logits: Tensor, rows: dict[str, Tensor], own: float) -> str:
    """Return what the model's own loss is, as far as it can be found out, with the remedy."""
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "output_router_logits", False):
        return (
            "it adds a loss for the balance of its experts, which is not supported; set "
            "output_router_logits to false in its configuration to train without"
        )
    labels = rows["labels"]
    unshifted = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten()).item()
    if abs(own - unshifted) < 1e-3:
        return "it compares each position with its own token, not with the next one"
    return "its loss is another one, which is not supported; choose another model"


PAST = "its weight is read past the layer, so the adapter is without effect"
UNUSED = "it was not called: it serves other inputs than text, or experts that got no token"
CUT_OFF = "it was called, but the loss does not depend on its output"


def silent_adapters(model, batch: dict[str, Tensor]) -> dict[str, str]:
    """Return the LoRA layers that no gradient reaches in a trial call in training mode, and why.

    The reasons are ``PAST`` (fused kernels take the weight and do not call the layer), ``UNUSED``
    (no fault: a vision tower, an expert without a token) and ``CUT_OFF`` (as in an indexer, whose
    output only selects).

    Args:
        batch: as in ``check_loss``.
    """
    layers, called = lora_layers(model), set()
    rows = _trial_batch(batch)
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, layer in layers.items()
    ]
    try:
        with trial(model):
            model.train()
            silent = set(layers) - _reached(model, rows, {n: x.B for n, x in layers.items()})
            silent -= _reached(model, rows, {n: layers[n].A for n in silent})  # if A starts at zero
            idle = {n: layers[n].base.weight for n in silent - called}
            frozen = {n: p for n, p in idle.items() if p.is_floating_point() and not p.requires_grad}  # fmt: skip
            try:
                for p in frozen.values():
                    p.requires_grad_(True)
                past = _reached(model, rows, frozen)
            finally:
                for p in frozen.values():
                    p.requires_grad_(False)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: PAST if name in past else CUT_OFF if name in called else UNUSED
        for name in layers
        if name in silent
    }


def _reached(model, rows: dict[str, Tensor], named: Mapping[str, Tensor]) -> set[str]:
    """Return the names whose parameters get a gradient that is not zero."""
    if not named:
        return set()
    loss = model_loss(model, rows)[0]
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n for n, g in zip(named, found, strict=True) if g is not None and bool(g.any())}


def check_adapters(model, batch: dict[str, Tensor]) -> str | None:
    """Return why the LoRA layers cannot be trained, in one sentence; None if they can.

    The reason is an adapter without effect (``PAST`` in ``silent_adapters``). Nothing is changed.

    Args:
        batch: as in ``check_loss``.
    """
    past = [name for name, why in silent_adapters(model, batch).items() if why == PAST]
    if not past:
        return None
    return (
        f"{past[0]} ({len(past)} layers in all) cannot take an adapter: {PAST}; name target_modules "
        f"one by one, without {', '.join(sorted({name.split('.')[-1] for name in past}))}"
    )


def left_out(model: nn.Module, target_modules: str | Sequence[str] = "all-linear") -> list[str]:
    """Return what ``"all-linear"`` does not adapt: one line for each kind of weight, largest first.

    These are experts held as one parameter, routers, convolutions, and layers that cannot take an
    adapter. Embeddings, the output head, biases and norms are never adapted and not listed. The list
    is empty if the targets are named one by one. It is the same before and after ``inject_lora``.
    """
    if target_modules != "all-linear" and list(target_modules) != ["all-linear"]:
        return []
    head, unfit = output_head(model), unfit_layers(model)
    known: list[nn.Module] = [layer.base for layer in lora_layers(model).values()] or [
        layer for name, layer in linear_layers(model).items() if name not in unfit
    ]
    known += [m for m in model.modules() if isinstance(m, nn.Embedding)]
    known += [model.get_submodule(head)] if head else []
    ours = {id(p) for p in lora_parameters(model)}
    skipped = {id(p) for module in known for p in module.parameters()} | ours
    count: Counter[tuple[str, tuple, str]] = Counter()
    size: Counter[tuple[str, tuple, str]] = Counter()
    every = 0
    for name, p in model.named_parameters():
        every += 0 if id(p) in ours else p.numel()
        if p.ndim < 2 or name.endswith("bias") or id(p) in skipped:
            continue
        owner = name.rpartition(".")[0]
        kind = type(model.get_submodule(owner)).__name__
        why = unfit.get(owner, f"belongs to {kind}, which is no plain linear layer")
        what = (re.sub(r"[.]\d+(?=[.])", ".*", name), tuple(p.shape), why)
        count[what] += 1
        size[what] += p.numel()
    return [
        f"not adapted: {what[0]}, {count[what]} × {what[1]}, {share / every:.1%} of the weights; {what[2]}"
        for what, share in size.most_common()
    ]
