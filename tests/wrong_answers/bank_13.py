"""Answers to the check of notebook 13, as students write them."""

import torch
import torch.nn.functional as F

from sftlab.loss import sft_loss


def logits_of(model, batch):
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def usual(model, batch, optimizer):
    optimizer.zero_grad()
    loss = sft_loss(logits_of(model, batch), batch["labels"])
    loss.backward()
    optimizer.step()
    return loss.item()


def models_own_loss(model, batch, optimizer):
    loss = model(**batch).loss
    model.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return float(loss)


def cross_entropy_and_clipping(model, batch, optimizer):
    logits = logits_of(model, batch)[:, :-1]
    loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def gradients_left_over(model, batch, optimizer):
    loss = sft_loss(logits_of(model, batch), batch["labels"])
    loss.backward()
    optimizer.step()
    return loss.item()


def no_step(model, batch, optimizer):
    optimizer.zero_grad()
    loss = sft_loss(logits_of(model, batch), batch["labels"])
    loss.backward()
    return loss.item()


def no_backward(model, batch, optimizer):
    optimizer.zero_grad()
    loss = sft_loss(logits_of(model, batch), batch["labels"])
    optimizer.step()
    return loss.item()


def zeroed_too_late(model, batch, optimizer):
    loss = sft_loss(logits_of(model, batch), batch["labels"])
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


def trained_on_everything(model, batch, optimizer):
    optimizer.zero_grad()
    loss = sft_loss(logits_of(model, batch), batch["input_ids"])
    loss.backward()
    optimizer.step()
    return loss.item()


def summed(model, batch, optimizer):
    optimizer.zero_grad()
    logits = logits_of(model, batch)[:, :-1]
    loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum")
    loss.backward()
    optimizer.step()
    return loss.item()


def uphill(model, batch, optimizer):
    optimizer.zero_grad()
    loss = sft_loss(logits_of(model, batch), batch["labels"])
    (-loss).backward()
    optimizer.step()
    return loss.item()


def a_tensor(model, batch, optimizer):
    optimizer.zero_grad()
    loss = sft_loss(logits_of(model, batch), batch["labels"])
    loss.backward()
    optimizer.step()
    return loss


def nothing_returned(model, batch, optimizer):
    usual(model, batch, optimizer)


def loss_afterwards(model, batch, optimizer):
    usual(model, batch, optimizer)
    with torch.no_grad():
        return sft_loss(logits_of(model, batch), batch["labels"]).item()


def another_loss_returned(model, batch, optimizer):
    return 10 * usual(model, batch, optimizer)


def detached(model, batch, optimizer):
    optimizer.zero_grad()
    loss = sft_loss(logits_of(model, batch).detach(), batch["labels"])
    loss.backward()
    optimizer.step()
    return loss.item()


RIGHT = {
    "13.train_step": {
        "usual": usual,
        "the model's own loss": models_own_loss,
        "cross_entropy, clipped": cross_entropy_and_clipping,
    }
}

WRONG = {
    "13.train_step": {
        "gradients left over": (gradients_left_over, "accumulates"),
        "no step": (no_step, "who takes the step"),
        "no backward": (no_backward, "was `backward()` called"),
        "zeroed too late": (zeroed_too_late, "was `backward()` called"),
        "trained on everything": (trained_on_everything, "prompt and the padding"),
        "sum": (summed, "five times too large"),
        "uphill": (uphill, "uphill"),
        "a tensor": (a_tensor, "as a number"),
        "nothing returned": (nothing_returned, "returns nothing"),
        "loss afterwards": (loss_afterwards, "*after* it"),
        "another loss": (another_loss_returned, "not that of the batch"),
        "detached": (detached, "does not require grad"),
    }
}
