"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F

from sftlab.classroom.answers import equivalent, refused, right
from sftlab.loss import IGNORE_INDEX, sft_loss, token_nll
from sftlab.train import train_step

ID = "16.train_loop"


def set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate


def loss_of(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return sft_loss(logits, batch["labels"])


def parts_of(batch, size):
    rows = len(batch["labels"])
    for start in range(0, rows, size or rows):
        yield {name: tensor[start : start + (size or rows)] for name, tensor in batch.items()}


@right(ID)
def with_train_step(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        set_rate(optimizer, rate)
        model.train()
        losses.append(train_step(model, batch, optimizer, micro_batch_size=micro_batch_size))
        if on_step:
            on_step(len(losses), losses[-1])
    model.eval()
    return losses


@right(ID)
def written_out(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for number in range(len(batches)):
        batch = batches[number]
        set_rate(optimizer, rates[number])
        model.train()
        model.zero_grad()
        trained = (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
        whole = 0.0
        for part in parts_of(batch, micro_batch_size):
            logits = model(part["input_ids"], attention_mask=part["attention_mask"]).logits
            share = token_nll(logits, part["labels"]).sum() / trained
            share.backward()
            whole += share.item()
        optimizer.step()
        losses.append(whole)
        if on_step is not None:
            on_step(number + 1, whole)
    model.eval()
    return tuple(losses)


@right(ID)
def with_extra_evaluation(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        with torch.no_grad():
            model.eval()
            loss_of(model, batch)
        losses += with_train_step(model, [batch], optimizer, [rate], None, micro_batch_size)
        if on_step:
            on_step(len(losses), losses[-1])
    model.eval()
    return losses


@right(ID)
def backward_once(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    found = []
    for step, (batch, rate) in enumerate(zip(batches, rates, strict=True), 1):
        model.train(True)
        total = (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
        sums = []
        for part in parts_of(batch, micro_batch_size):
            hidden = model.model(input_ids=part["input_ids"], attention_mask=part["attention_mask"])
            logits = model.lm_head(hidden.last_hidden_state)[:, :-1].flatten(0, 1)
            targets = part["labels"][:, 1:].flatten()
            sums.append(F.cross_entropy(logits, targets, reduction="sum"))
        loss = torch.stack(sums).sum() / total
        optimizer.zero_grad(set_to_none=False)
        loss.backward()
        for group in optimizer.param_groups:
            group.update(lr=rate)
        optimizer.step()
        found.append(loss.item())
        if callable(on_step):
            on_step(step, found[-1])
    model.train(False)
    return found


@right(ID)
def by_autograd(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    weights = [p for p in model.parameters() if p.requires_grad]
    planned, losses = iter(rates), []
    for batch in batches:
        model.train()
        total = (batch["labels"][:, 1:] != IGNORE_INDEX).sum().item()
        gradients, loss = [torch.zeros_like(p) for p in weights], 0.0
        for part in parts_of(batch, micro_batch_size):
            count = (part["labels"][:, 1:] >= 0).sum()
            if not count:
                continue
            share = loss_of(model, part) * count / total
            found = torch.autograd.grad(share, weights)
            gradients = [a + b for a, b in zip(gradients, found, strict=True)]
            loss += share.item()
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        set_rate(optimizer, next(planned))
        optimizer.step()
        losses.append(loss)
        if on_step is not None:
            on_step(len(losses), loss)
    model.eval()
    return losses


@right(ID)
def with_the_models_loss(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    """Calls the model with positional ids, and returns tensors without graphs."""
    losses = []
    for batch, rate in zip(batches, rates, strict=False):
        set_rate(optimizer, rate)
        model.train()
        optimizer.zero_grad()
        total = (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
        summed = 0
        for part in parts_of(batch, micro_batch_size):
            targets = part["labels"][:, 1:].reshape(-1)
            logits = model(part["input_ids"], part["attention_mask"]).logits[:, :-1]
            nll = F.nll_loss(
                logits.log_softmax(-1).reshape(len(targets), -1), targets, reduction="sum"
            )
            (nll / total).backward()
            summed += nll.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(summed / total)
        on_step and on_step(len(losses), losses[-1].item())
    model.eval()
    return torch.stack(losses)


@refused(ID, "Expected at ['losses'][0]")
def shuffled(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    batches = list(batches)
    random.Random(1).shuffle(batches)
    return with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


@refused(ID, "It sets the random seed itself (torch.manual_seed)")
def reseeds(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    torch.manual_seed(0)
    return with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


@refused(ID, "step's learning rate")
def rates_reversed(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches, optimizer, rates[::-1], on_step, micro_batch_size)


@refused(ID, "changes its own input (argument 2")
def batches_popped(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    while batches:
        step = len(losses)
        losses += with_train_step(
            model, [batches.pop(0)], optimizer, [rates[step]], None, micro_batch_size
        )
        if on_step:
            on_step(step + 1, losses[-1])
    return losses


@refused(ID, "It takes (model, batches, optimizer, rates)")
def without_options(model, batches, optimizer, rates):
    return with_train_step(model, batches, optimizer, rates)


equivalent(
    ID,
    "There are as many rates as batches, float32 is the default, and these short gradients need no clipping.",
    "without `strict=` in `zip(batches, rates, strict=True)`",
    "`True` becomes `False`",
)
