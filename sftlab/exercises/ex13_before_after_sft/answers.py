"""Right answers of many kinds, and wrong ones that a general rule refuses."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sftlab.classroom.answers import equivalent, refused, right
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


@right(ID)
def without_graph(model, batch, optimizer):
    """Returns a tensor without a graph, which holds the number alone."""
    for p in model.parameters():
        p.grad = None
    loss = loss_of(model, batch)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.detach()


@right(ID)
def numpy_number(model, batch, optimizer):
    """Divides by the number of trained tokens itself, and returns a NumPy number."""
    model.train()
    optimizer.zero_grad()
    log = model(**{k: batch[k] for k in FIELDS[:2]}).logits[:, :-1].log_softmax(-1)
    targets = batch["labels"][:, 1:]
    nll = -log.gather(-1, targets.clamp(min=0)[..., None])[..., 0][targets >= 0]
    (nll.sum() / len(nll)).backward()
    optimizer.step()
    optimizer.zero_grad()
    return nll.detach().numpy().mean()


@refused(ID, "Tried: gradients of an earlier step are left over")
def zeroed_only_afterwards(model, batch, optimizer):
    loss = loss_of(model, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


@refused(ID, "Expected at ['length of the change of the weights']")
def clipped_too_short(model, batch, optimizer):
    loss = loss_of(model, batch)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    optimizer.step()
    return loss.item()


@refused(ID, "takes exactly one step")
def steps_by_hand(model, batch, optimizer):
    optimizer.zero_grad()
    loss = loss_of(model, batch)
    loss.backward()
    with torch.no_grad():
        for group in optimizer.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad
    return loss.item()


@refused(ID, "Expected at ['loss']")
def perplexity(model, batch, optimizer):
    return 2.718281828 ** usual(model, batch, optimizer)


@refused(ID, "does not require grad")
def detached(model, batch, optimizer):
    optimizer.zero_grad()
    loss = loss_of(model, batch).detach()
    loss.backward()
    optimizer.step()
    return loss.item()


@refused(ID, "changes its own input (argument 2")
def labels_popped(model, batch, optimizer):
    labels = batch.pop("labels")
    loss = usual(model, {**batch, "labels": labels}, optimizer)
    return loss


equivalent(
    ID,
    "The stub has neither settings nor several processes, and the cases' gradients have a norm below 1, which clipping leaves alone.",
    "without `check_clipping(max_grad_norm)`",
    "without `if micro_batch_size is not None:`",
    "without `check_whole('micro_batch_size', micro_batch_size, 1)`",
    "`check_whole('micro_batch_size', micro_batch_size, 1)` becomes `check_whole(micro_batch_size, 'micro_batch_size', 1)`",
    "`1` becomes `2`",
    "`1` becomes `0`",
    "without `add_gradients(trainable)`",
    "without `if max_grad_norm:`",
    "without `torch.nn.utils.clip_grad_norm_(trainable, max_grad_norm)`",
)
equivalent(
    ID,
    "No batch is empty, and no sequence is as short as one token.",
    "`max(rows, 1)` becomes `max(1, rows)`",
    "`1` becomes `2` #2",
    "`1` becomes `0` #2",
    "`1` becomes `0` #3",
)
