"""Answers to the check of notebook 16, as students write them."""

import random

import torch

from sftlab.loss import IGNORE_INDEX, sft_loss
from sftlab.train import train_step


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


def with_train_step(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates):
        set_rate(optimizer, rate)
        model.train()
        losses.append(train_step(model, batch, optimizer, micro_batch_size=micro_batch_size))
        if on_step:
            on_step(len(losses), losses[-1])
    model.eval()
    return losses


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


def with_extra_evaluation(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates):
        with torch.no_grad():
            model.eval()
            loss_of(model, batch)
        losses += with_train_step(model, [batch], optimizer, [rate], None, micro_batch_size)
        if on_step:
            on_step(len(losses), losses[-1])
    return losses


def gradients_left_over(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates):
        set_rate(optimizer, rate)
        model.train()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def last_batch_forgotten(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches[:-1], optimizer, rates[:-1], on_step, micro_batch_size)


def first_batch_forgotten(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches[1:], optimizer, rates[1:], on_step, micro_batch_size)


def shuffled(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    batches = list(batches)
    random.Random(1).shuffle(batches)
    return with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


def two_epochs(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    first = with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)
    return first + with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


def never_train(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates):
        set_rate(optimizer, rate)
        losses.append(train_step(model, batch, optimizer, micro_batch_size=micro_batch_size))
        if on_step:
            on_step(len(losses), losses[-1])
    return losses


def train_only_once(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    model.train()
    losses = never_train(model, batches, optimizer, rates, on_step, micro_batch_size)
    model.eval()
    return losses


def left_in_train_mode(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)
    model.train()
    return losses


def reseeds(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates):
        torch.manual_seed(0)
        losses += with_train_step(model, [batch], optimizer, [rate], None, micro_batch_size)
        if on_step:
            on_step(len(losses), losses[-1])
    return losses


def rates_ignored(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    own = [optimizer.param_groups[0]["lr"]] * len(rates)
    return with_train_step(model, batches, optimizer, own, on_step, micro_batch_size)


def rates_late(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    own = [optimizer.param_groups[0]["lr"], *rates[:-1]]
    return with_train_step(model, batches, optimizer, own, on_step, micro_batch_size)


def rates_early(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    early = [*rates[1:], rates[-1]]
    return with_train_step(model, batches, optimizer, early, on_step, micro_batch_size)


def rates_reversed(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches, optimizer, rates[::-1], on_step, micro_batch_size)


def unfreezes(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    model.requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


def own_optimizer(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    optimizer = torch.optim.AdamW(model.parameters())
    return with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


def mean_of_micro_means(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates):
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


def a_step_per_micro_batch(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates):
        set_rate(optimizer, rate)
        model.train()
        found = [train_step(model, part, optimizer) for part in parts_of(batch, micro_batch_size)]
        losses.append(sum(found) / len(found))
        if on_step:
            on_step(len(losses), losses[-1])
    model.eval()
    return losses


def micro_batch_ignored(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches, optimizer, rates, on_step)


def only_the_first_micro_batch(
    model, batches, optimizer, rates, on_step=None, micro_batch_size=None
):
    cut = [next(parts_of(batch, micro_batch_size)) for batch in batches]
    return with_train_step(model, cut, optimizer, rates, on_step)


def trained_on_everything(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    changed = [{**batch, "labels": batch["input_ids"]} for batch in batches]
    return with_train_step(model, changed, optimizer, rates, on_step, micro_batch_size)


def summed(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates):
        set_rate(optimizer, rate)
        model.train()
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        (loss * (batch["labels"][:, 1:] != IGNORE_INDEX).sum()).backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def no_step(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    model.train()
    losses = []
    for batch in batches:
        loss = loss_of(model, batch)
        loss.backward()
        losses.append(loss.item())
    model.eval()
    return losses


def on_step_forgotten(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches, optimizer, rates, None, micro_batch_size)


def on_step_from_zero(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    tell = (lambda done, loss: on_step(done - 1, loss)) if on_step else None
    return with_train_step(model, batches, optimizer, rates, tell, micro_batch_size)


def nothing_returned(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)


def last_loss(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    return with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)[-1]


def tensors(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    found = with_train_step(model, batches, optimizer, rates, on_step, micro_batch_size)
    return [torch.tensor(loss) for loss in found]


def loss_afterwards(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
    losses = []
    for batch, rate in zip(batches, rates):
        with_train_step(model, [batch], optimizer, [rate], None, micro_batch_size)
        with torch.no_grad():
            losses.append(loss_of(model, batch).item())
        if on_step:
            on_step(len(losses), losses[-1])
    return losses


RIGHT = {
    "16.train_loop": {
        "with train_step": with_train_step,
        "written out": written_out,
        "with an evaluation in between": with_extra_evaluation,
    }
}

WRONG = {
    "16.train_loop": {
        "gradients left over": (gradients_left_over, "PyTorch accumulates"),
        "last batch forgotten": (last_batch_forgotten, "one batch too early"),
        "first batch forgotten": (first_batch_forgotten, "Batch 1 of 4 was never"),
        "shuffled": (shuffled, "take them as they come"),
        "two epochs": (two_epochs, "more than once"),
        "never in train mode": (never_train, "was in eval mode: dropout would be off"),
        "train mode only once": (train_only_once, "for every step"),
        "left in train mode": (left_in_train_mode, "left in train mode"),
        "reseeds": (reseeds, "sets the random seed itself"),
        "rates ignored": (rates_ignored, "the optimiser's own rate"),
        "rates late": (rates_late, "one step late"),
        "rates early": (rates_early, "one step early"),
        "rates reversed": (rates_reversed, "planned were"),
        "unfreezes": (unfreezes, "A frozen weight"),
        "own optimiser": (own_optimizer, "never took a step"),
        "no step": (no_step, "never took a step"),
        "mean of micro-batch means": (mean_of_micro_means, "weighs more"),
        "a step per micro-batch": (a_step_per_micro_batch, "then step once"),
        "micro_batch_size ignored": (micro_batch_ignored, "`micro_batch_size` allows 2"),
        "only the first micro-batch": (only_the_first_micro_batch, "cover the whole batch"),
        "trained on everything": (trained_on_everything, "prompts and padding"),
        "sum": (summed, "not of their mean"),
        "on_step forgotten": (on_step_forgotten, "once after every step"),
        "on_step counts from zero": (on_step_from_zero, "once after every step"),
        "nothing returned": (nothing_returned, "returns nothing"),
        "last loss only": (last_loss, "returns one number"),
        "tensors": (tensors, "are tensors"),
        "loss afterwards": (loss_afterwards, "before the step"),
    }
}
