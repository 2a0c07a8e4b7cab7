"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F

from sftlab.classroom.answers import refused, right
from sftlab.loss import IGNORE_INDEX, sft_loss
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
        optimizer.param_groups[0]["lr"] = rates[number]
        model.train()
        model.zero_grad()
        trained = (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
        whole = 0.0
        for part in parts_of(batch, micro_batch_size):
            share = loss_of(model, part) * (part["labels"][:, 1:] != IGNORE_INDEX).sum() / trained
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
            share = loss_of(model, part) * (part["labels"][:, 1:] >= 0).sum() / total
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


@refused(ID, "PyTorch accumulates")
def gradients_left_over(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        set_rate(optimizer, rate)
        model.train()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


@refused(ID, "one batch too early")
def last_batch_forgotten(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches[:-1], optimizer, rates[:-1], on_step, micro_batch_size)


@refused(ID, "Batch 1 of 4 was never")
def first_batch_forgotten(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches[1:], optimizer, rates[1:], on_step, micro_batch_size)


@refused(ID, "take them as they come")
def shuffled(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    batches = list(batches)
    random.Random(1).shuffle(batches)
    return with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


@refused(ID, "more than once")
def two_epochs(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    first = with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)
    return first + with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


@refused(ID, "was in eval mode: dropout would be off")
def never_train(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        set_rate(optimizer, rate)
        losses.append(train_step(model, batch, optimizer, micro_batch_size=micro_batch_size))
        if on_step:
            on_step(len(losses), losses[-1])
    return losses


@refused(ID, "training went on in it")
def train_only_once(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    model.train()
    losses = never_train(model, batches, optimizer, rates, on_step, micro_batch_size)
    model.eval()
    return losses


@refused(ID, "left in train mode")
def left_in_train_mode(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)
    model.train()
    return losses


@refused(ID, "sets the random seed itself")
def reseeds(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        torch.manual_seed(0)
        losses += with_train_step(model, [batch], optimizer, [rate], None, micro_batch_size)
        if on_step:
            on_step(len(losses), losses[-1])
    return losses


@refused(ID, "the optimiser's own rate")
def rates_ignored(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    own = [optimizer.param_groups[0]["lr"]] * len(rates)
    return with_train_step(model, batches, optimizer, own, on_step, micro_batch_size)


@refused(ID, "one step late")
def rates_late(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    own = [optimizer.param_groups[0]["lr"], *rates[:-1]]
    return with_train_step(model, batches, optimizer, own, on_step, micro_batch_size)


@refused(ID, "one step early")
def rates_early(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    early = [*rates[1:], rates[-1]]
    return with_train_step(model, batches, optimizer, early, on_step, micro_batch_size)


@refused(ID, "planned were")
def rates_reversed(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches, optimizer, rates[::-1], on_step, micro_batch_size)


@refused(ID, "A frozen weight")
def unfreezes(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    model.requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


@refused(ID, "never took a step")
def own_optimizer(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    optimizer = torch.optim.AdamW(model.parameters())
    return with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


@refused(ID, "weighs more")
def mean_of_micro_means(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        set_rate(optimizer, rate)
        model.train()
        optimizer.zero_grad()
        parts = list(parts_of(batch, micro_batch_size))
        for part in parts:
            (loss_of(model, part) / len(parts)).backward()
        with torch.no_grad():
            losses.append(loss_of(model, batch).item())
        optimizer.step()
        if on_step:
            on_step(len(losses), losses[-1])
    model.eval()
    return losses


@refused(ID, "then step once")
def a_step_per_micro_batch(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        set_rate(optimizer, rate)
        model.train()
        found = [train_step(model, part, optimizer) for part in parts_of(batch, micro_batch_size)]
        losses.append(sum(found) / len(found))
        if on_step:
            on_step(len(losses), losses[-1])
    model.eval()
    return losses


@refused(ID, "`micro_batch_size` allows 2")
def micro_batch_ignored(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches, optimizer, rates, on_step)


@refused(ID, "cover the whole batch")
def only_the_first_micro_batch(
    model, batches, optimizer, rates, on_step=None, micro_batch_size=None
):
    cut = [next(parts_of(batch, micro_batch_size)) for batch in batches]
    return with_train_step(model, cut, optimizer, rates, on_step)


@refused(ID, "prompts and padding")
def trained_on_everything(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    changed = [{**batch, "labels": batch["input_ids"]} for batch in batches]
    return with_train_step(model, changed, optimizer, rates, on_step, micro_batch_size)


@refused(ID, "not of their mean")
def summed(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        set_rate(optimizer, rate)
        model.train()
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        (loss * (batch["labels"][:, 1:] != IGNORE_INDEX).sum()).backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


@refused(ID, "never took a step")
def no_step(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    model.train()
    losses = []
    for batch in batches:
        loss = loss_of(model, batch)
        loss.backward()
        losses.append(loss.item())
    model.eval()
    return losses


@refused(ID, "once after every step")
def on_step_forgotten(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches, optimizer, rates, None, micro_batch_size)


@refused(ID, "once after every step")
def on_step_from_zero(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    tell = (lambda done, loss: on_step(done - 1, loss)) if on_step else None
    return with_train_step(model, batches, optimizer, rates, tell, micro_batch_size)


@refused(ID, "returns nothing")
def nothing_returned(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


@refused(ID, "returns one number")
def last_loss(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)[-1]


@refused(ID, "are tensors")
def tensors(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    found = with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)
    return [torch.tensor(loss) for loss in found]


@refused(ID, "before the step")
def loss_afterwards(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        with_train_step(model, [batch], optimizer, [rate], None, micro_batch_size)
        with torch.no_grad():
            losses.append(loss_of(model, batch).item())
        if on_step:
            on_step(len(losses), losses[-1])
    return losses
