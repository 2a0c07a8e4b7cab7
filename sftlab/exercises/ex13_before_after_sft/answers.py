"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sftlab.classroom.answers import refused, right
from sftlab.loss import IGNORE_INDEX, sft_loss

ID = "13.train_step"
FIELDS = "input_ids", "attention_mask", "labels"


def loss_of(model, batch):
    found = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return sft_loss(found.logits, batch["labels"])


@right(ID)
def usual(model, batch, optimizer):
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    optimizer.step()
    return loss.item()


@right(ID)
def models_own_loss(model, batch, optimizer):
    loss = model(**batch).loss
    model.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss)


@right(ID)
def cross_entropy_and_clipping(model, batch, optimizer):
    logits = model(batch["input_ids"], batch["attention_mask"]).logits[:, :-1]
    loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@right(ID)
def by_closure(model, batch, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        return loss

    return optimizer.step(closure).item()


@right(ID)
def by_autograd(model, batch, optimizer):
    loss = loss_of(model, batch)
    parameters = list(model.parameters())
    for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        p.grad = gradient
    optimizer.step()
    return loss.detach().tolist()


@right(ID)
def row_by_row(model, batch, optimizer):
    optimizer.zero_grad()
    trained = (batch["labels"][:, 1:] != IGNORE_INDEX).sum()
    total = 0.0
    for ids, mask, labels in zip(*map(batch.get, FIELDS), strict=True):
        length = int(mask.sum())
        logits = model(ids[None, :length]).logits[0, :-1]
        part = F.cross_entropy(logits, labels[1:length], reduction="sum") / trained
        part.backward()
        total += part.item()
    optimizer.step()
    return total


@refused(ID, "who takes the step")
def no_step(model, batch, optimizer):
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    return loss.item()


@refused(ID, "was `backward()` called")
def no_backward(model, batch, optimizer):
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    optimizer.step()
    return loss.item()


@refused(ID, "was `backward()` called")
def zeroed_too_late(model, batch, optimizer):
    loss = loss_of(model, batch)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@refused(ID, "not by one step along the gradient")
def two_steps(model, batch, optimizer):
    loss = usual(model, batch, optimizer)
    usual(model, batch, optimizer)
    return loss


@refused(ID, "five times too large")
def loss_summed_as_well(model, batch, optimizer):
    optimizer.zero_grad()
    logits = model(batch["input_ids"], batch["attention_mask"]).logits[:, :-1]
    loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum")
    loss.backward()
    optimizer.step()
    return loss.item()


@refused(ID, "as a number")
def a_tensor(model, batch, optimizer):
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    optimizer.step()
    return loss


@refused(ID, "returns nothing")
def nothing_returned(model, batch, optimizer):
    usual(model, batch, optimizer)


@refused(ID, "*after* it")
def loss_afterwards(model, batch, optimizer):
    usual(model, batch, optimizer)
    with torch.no_grad():
        return loss_of(model, batch).item()


@refused(ID, "not that of the batch")
def another_loss_returned(model, batch, optimizer):
    return 10 * usual(model, batch, optimizer)


@refused(ID, "does not require grad")
def detached(model, batch, optimizer):
    optimizer.zero_grad()
    loss = loss_of(model, batch).detach()
    loss.backward()
    optimizer.step()
    return loss.item()
