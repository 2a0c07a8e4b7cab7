"""The check of notebook 16: the training loop, checked by what the model saw, the steps, and the weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.exercises.ex13_before_after_sft.check import batch_of, tiny_model
from sftlab.loss import IGNORE_INDEX, ends_with_head, sft_loss, token_nll
from sftlab.train import sft_train, train_loop

ID = "16.train_loop"
STEEP = 6.0  # a weight of the last norm
OWN_RATE = 0.7  # what the optimizer starts with
_TRIED = {name: torch.ones(1, 1, dtype=torch.long) for name in ("input_ids", "attention_mask")}


def _arguments(
    batches: list[list], rates: tuple = (), asks: bool = False, micro: int | None = None,
    momentum: float = 0.0, left: float | None = None, steep: bool = False,
):  # fmt: skip
    """A model and an optimizer with two groups of parameters, both of which log what happens.

    ``rates`` defaults to the optimizer's own, so that only the cases about rates test them.

    Args:
        left: fills the gradients before the first step. steep: gradients of a norm above 1.
    """
    model, log = tiny_model(), []
    if steep:
        model.model.norm.weight.data.fill_(STEEP)
    for weight in model.parameters():
        weight.grad = None if left is None else torch.full_like(weight, left)
    ends_with_head(model, _TRIED)  # in eval mode, as `model_loss` does once, before the hooks
    model.log, model.start = log, [p.detach().clone() for p in model.parameters()]

    def forward(module, given, named):
        if torch.is_grad_enabled():
            ids = next(
                x
                for x in (*given, named.get("input_ids"), named.get("inputs_embeds"))
                if x is not None
            )
            log.append(("forward", len(ids), module.training))

    def change():
        pairs = zip(model.parameters(), model.start, strict=True)
        return torch.cat([(p.detach() - a).flatten() for p, a in pairs])

    def step(optimizer, *_):
        rates = [group["lr"] for group in optimizer.param_groups]
        log.append(("step", rates, change()))

    def on_step(done, loss):
        log.append(("told", done, loss, change().norm().item()))
        model.train(done == len(batches))  # eval mode, as whoever asks the model something does

    model.model.register_forward_pre_hook(forward, with_kwargs=True)
    weights = list(model.parameters())
    groups = [{"params": weights[:3]}, {"params": weights[3:]}]
    optimizer = torch.optim.SGD(groups, lr=OWN_RATE, momentum=momentum)
    optimizer.register_step_post_hook(step)
    rates = list(rates) or [OWN_RATE] * len(batches)
    given = (
        model,
        [batch_of(*rows) for rows in batches],
        optimizer,
        rates,
        on_step if asks else None,
        micro,
    )
    return given[: 6 if micro else 5 if asks else 4]


# --- Mistakes: a right loop, in which one part is exchanged -------------------------------------
def _parts(batch, size):
    rows = len(batch["labels"])
    for start in range(0, rows, size or rows):
        yield {name: tensor[start : start + (size or rows)] for name, tensor in batch.items()}


def _loss(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return sft_loss(logits, batch["labels"])


def _summed(model, batch):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return token_nll(logits, batch["labels"]).sum()


def _count(batch):
    return (batch["labels"][:, 1:] != IGNORE_INDEX).sum()


def _step(
    model,
    batch,
    optimizer,
    size,
    zero=True,
    parts=_parts,
    loss_of=lambda model, part, batch: _summed(model, part) / _count(batch),
):
    if zero:
        optimizer.zero_grad()
    total = 0.0
    for part in parts(batch, size):
        loss = loss_of(model, part, batch)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def _set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate


def _loop(model, batches, optimizer, rates, on_step=None, size=None, *, step=_step, rate=_set_rate, late=None,
          train="always", end=True, tell=lambda on_step, done, loss: on_step(done, loss)):  # fmt: skip
    losses = []
    for batch, planned in zip(batches, rates, strict=True):
        rate(optimizer, planned)
        if train == "always" or (train == "once" and not losses):
            model.train()
        losses.append(step(model, batch, optimizer, size))
        if late:
            late(optimizer, planned)
        if on_step:
            tell(on_step, len(losses), losses[-1])
    if end:
        model.eval()
    return losses


def _declared(message: str, loop: Callable[[tuple], Any]) -> None:
    def answer(model, batches, optimizer, rates, on_step=None, micro_batch_size=None):
        return loop((model, batches, optimizer, rates, on_step, micro_batch_size))

    mistake(ID, message)(answer)


def _flawed(message: str, **parts: Any) -> None:
    """Declare a loop of which one part is wrong."""
    _declared(message, lambda given: _loop(*given, **parts))


def _given(message: str, change: Callable[..., tuple]) -> None:
    """Declare a loop that uses other arguments than the given ones."""
    _declared(message, lambda given: _loop(*change(*given)))


def _returning(message: str, change: Callable[[list], Any]) -> None:
    """Declare a right loop that returns something else."""
    _declared(message, lambda given: change(_loop(*given)))


_flawed(
    "Gradients of earlier batches are added to those of later ones: PyTorch accumulates them. Set them to zero for every batch.",
    step=lambda *given: _step(*given, zero=False),
)


def _zero_after(model, batch, optimizer, size):
    loss = _step(model, batch, optimizer, size, zero=False)
    optimizer.zero_grad()
    return loss


_flawed("Gradients are set to zero after each step alone, so what an earlier run left in them is in the first step. Set them to zero before each batch.", step=_zero_after)  # fmt: skip


def _clipped(clip: Callable, each: bool):
    """Return a step that clips gradients, after each micro-batch or of the whole batch."""

    def step(model, batch, optimizer, size):
        optimizer.zero_grad()
        total = 0.0
        for part in _parts(batch, size):
            loss = _summed(model, part) / _count(batch)
            loss.backward()
            total += loss.item()
            if each:
                clip(model.parameters(), 1.0)
        if not each:
            clip(model.parameters(), 1.0)
        optimizer.step()
        return total

    return step


_flawed(
    "The gradients are clipped after each micro-batch, so the step depends on how the batch is split. Clip once, when the gradients of the whole batch are added up.",
    step=_clipped(torch.nn.utils.clip_grad_norm_, each=True),
)
_flawed(
    "Each element of the gradients is clipped, which changes their direction. Clip their norm, by `clip_grad_norm_`, or leave them as they are.",
    step=_clipped(torch.nn.utils.clip_grad_value_, each=False),
)
_flawed(
    "The steps use prompt and padding tokens too, as if input_ids were the labels. A batch has labels of its own.",
    step=lambda model, batch, *rest: _step(model, {**batch, "labels": batch["input_ids"]}, *rest),
)
_flawed(
    "The steps are too large: their gradients are those of the sum over the trained tokens, not of the mean.",
    step=lambda *given: _step(*given, loss_of=lambda model, part, batch: _summed(model, part)),
)
_flawed(
    "The count of trained tokens includes the first label of a sequence. No earlier token predicts it, so it has no loss and does not count.",
    step=lambda *given: _step(
        *given,
        loss_of=lambda model, part, batch: (
            _summed(model, part) / (batch["labels"] != IGNORE_INDEX).sum()
        ),
    ),
)
_flawed(
    "The loss is divided by the tokens that attention_mask counts, the prompt's among them. Divide by the trained tokens: labels that are not -100.",
    step=lambda *given: _step(
        *given,
        loss_of=lambda model, part, batch: _summed(model, part) / batch["attention_mask"].sum(),
    ),
)
_given("The last batch is left out. The loop ends one step too early.",
       lambda model, batches, optimizer, rates, *rest: (model, batches[:-1], optimizer, rates[:-1], *rest))  # fmt: skip
_given("The first batch is left out.",
       lambda model, batches, optimizer, rates, *rest: (model, batches[1:], optimizer, rates[1:], *rest))  # fmt: skip
_given("The batches are not taken in the given order. They are shuffled already, by a plan that a resumed run repeats.",
       lambda model, batches, *rest: (model, batches[::-1], *rest))  # fmt: skip
_given("Every batch is used twice. Each batch is for one step.",
       lambda model, batches, optimizer, rates, *rest: (model, [*batches, *batches], optimizer, [*rates, *rates], *rest))  # fmt: skip
_given("The given optimizer never takes a step. With another one, its state and that of a resumed run would be lost.",
       lambda model, batches, optimizer, *rest: (model, batches, torch.optim.AdamW(model.parameters()), *rest))  # fmt: skip
_flawed("The given optimizer never takes a step. Gradients alone move no weight.",
        step=lambda model, batch, *_: _loss(model, batch).item())  # fmt: skip


def _forget_first(model, batch, optimizer, size):
    optimizer.state.clear()
    return _step(model, batch, optimizer, size)


_flawed("The optimizer begins each step without its state: momentum, or AdamW's two averages, comes from earlier steps. Leave optimizer.state alone.", step=_forget_first)  # fmt: skip

_flawed(
    "Every step has the optimizer's own learning rate. Before each step, put the planned rate into the optimizer's parameter groups.",
    rate=lambda *_: None,
)
_flawed(
    "Only the first parameter group gets the learning rate. The optimizer may have several.",
    rate=lambda optimizer, rate: optimizer.param_groups[0].update(lr=rate),
)
_flawed(
    "The learning rates come one step late: each is set after the step that it is meant for.",
    rate=lambda *_: None, late=_set_rate,
)  # fmt: skip
TIMES_OWN = (
    "The optimizer's learning rate is multiplied by the planned one. The planned rate replaces it."
)
_flawed(
    TIMES_OWN,
    rate=lambda optimizer, rate: [
        group.update(lr=group["lr"] * rate) for group in optimizer.param_groups
    ],
)
_flawed(TIMES_OWN, rate=lambda optimizer, rate: _set_rate(optimizer, OWN_RATE * rate))
_given("The first learning rate is used for every step. Each step has a rate of its own.",
       lambda model, batches, optimizer, rates, *rest: (model, batches, optimizer, rates[:1] * len(rates), *rest))  # fmt: skip

_given("The learning rates come one step early: the first step has the second one.",
       lambda model, batches, optimizer, rates, *rest: (model, batches, optimizer, [*rates[1:], rates[-1]], *rest))  # fmt: skip

_flawed("The model is never put into train mode, so dropout would be off.", train="never")
_flawed(
    "The model is put into train mode once, before the loop. An on_step that generates text leaves it in eval mode, and training goes on in that mode.",
    train="once",
)
_flawed("The model is left in train mode, so its next answer would be drawn with dropout.", end=False)  # fmt: skip

_given("on_step is never called. It is called after every step, with the number of steps done and the loss.",
       lambda model, batches, optimizer, rates, on_step, *rest: (model, batches, optimizer, rates, None, *rest))  # fmt: skip
_flawed("on_step is told the number of the step from 0. It is told how many steps are done: 1 after the first one.",
        tell=lambda on_step, done, loss: on_step(done - 1, loss))  # fmt: skip
_flawed("The arguments of on_step are in the wrong order: first the number of steps done, then the loss.",
        tell=lambda on_step, done, loss: on_step(loss, done))  # fmt: skip


def _told_at_the_end(given: tuple, first: int = 0, end: bool = True) -> list:
    *others, on_step, size = given
    losses = _loop(*others, None, size)
    for done, loss in list(enumerate(losses, 1))[first:]:
        if on_step:
            on_step(done, loss)
    if end:
        given[0].eval()
    return losses


_declared("on_step is called once, after the last step. It is called after every step.", lambda given: _told_at_the_end(given, -1))  # fmt: skip
for _end in (True, False):
    _declared("on_step is called for all steps after the last one. It is called right after each step, so that it can look at the model.",
              functools.partial(_told_at_the_end, end=_end))  # fmt: skip


def _told_before_the_step(given: tuple) -> list:
    *others, on_step, size = given
    done = 0

    def step(model, batch, optimizer, size):
        nonlocal done
        done += 1
        optimizer.zero_grad()
        parts = [_summed(model, part) / _count(batch) for part in _parts(batch, size)]
        sum(parts).backward()
        if on_step:
            on_step(done, sum(parts).item())
        optimizer.step()
        return sum(parts).item()

    return _loop(*others, None, size, step=step)


_declared("on_step is called before the optimizer's step, so it sees the weights of one step earlier. It is called after the step.", _told_before_the_step)  # fmt: skip


def _eval_before_told(given: tuple) -> list:
    *others, on_step, size = given
    losses = _loop(
        *others, on_step and (lambda *told: (given[0].eval(), on_step(*told))), size, end=False
    )
    return losses if on_step else (given[0].eval(), losses)[1]


_declared("model.eval() comes before the last on_step, which may leave the model in another mode. Call it at the very end.", _eval_before_told)  # fmt: skip

_given("micro_batch_size is not used: a whole batch goes through one forward pass, for which the memory may not suffice.",
       lambda *given: (*given[:5], None))  # fmt: skip
_flawed(
    "The mean losses of the micro-batches are averaged, so a token in a short one weighs more. Divide each one's summed loss by the trained tokens of the whole batch.",
    step=lambda *given: _step(
        *given,
        loss_of=lambda model, part, batch: _loss(model, part) / len(list(_parts(batch, given[3]))),
    ),
)


def _means_of_filled(model, batch, optimizer, size):
    filled = [part for part in _parts(batch, size) if _count(part)]
    return _step(
        model,
        batch,
        optimizer,
        size,
        parts=lambda *_: filled,
        loss_of=lambda model, part, batch: _loss(model, part) / len(filled),
    )


_flawed(
    "Micro-batches without a trained token are skipped, but the mean losses of the others are averaged, so a token in a short one weighs more. Divide each summed loss by the trained tokens of the whole batch.",
    step=_means_of_filled,
)
_flawed(
    "Each micro-batch is weighted by its number of examples. Its weight is its share of the batch's trained tokens.",
    step=lambda *given: _step(
        *given,
        loss_of=lambda model, part, batch: (
            _loss(model, part) * len(part["labels"]) / len(batch["labels"])
        ),
    ),
)
_flawed(
    "A micro-batch without a trained token makes the loss NaN: its mean is 0/0. Add up the summed losses, and divide by the trained tokens of the whole batch.",
    step=lambda *given: _step(
        *given,
        loss_of=lambda model, part, batch: _loss(model, part) * _count(part) / _count(batch),
    ),
)


def _zero_for_each_part(model, batch, optimizer, size):
    total = 0.0
    for part in _parts(batch, size):
        optimizer.zero_grad()
        loss = _summed(model, part) / _count(batch)
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


_flawed("Gradients are set to zero for every micro-batch, so only the last one counts. Set them to zero once for the batch.", step=_zero_for_each_part)  # fmt: skip
_flawed(
    "The losses of the micro-batches are added without a division, so the step grows with their number.",
    step=lambda *given: _step(*given, loss_of=lambda model, part, batch: _loss(model, part)),
)


def _a_step_each(model, batch, optimizer, size):
    losses = [_step(model, part, optimizer, None) for part in _parts(batch, size)]
    return sum(losses) / len(losses)


_flawed("The optimizer takes a step after each micro-batch. Add up their gradients, and step once for the batch.", step=_a_step_each)  # fmt: skip
_flawed(
    "The rest of the batch is left out: the last micro-batch may be smaller than the others.",
    step=lambda *given: _step(*given, parts=lambda batch, size: [
        part for part in _parts(batch, size) if size is None or len(part["labels"]) == size
    ]),
)  # fmt: skip
_flawed(
    "Only the first micro-batch of each batch is used.",
    step=lambda *given: _step(*given, parts=lambda batch, size: list(_parts(batch, size))[:1]),
)
_flawed(
    "micro_batch_size is taken for the number of micro-batches. It is the number of examples in each.",
    step=lambda *given: _step(
        *given, parts=lambda batch, size: _parts(batch, size and -(-len(batch["labels"]) // size))
    ),
)

_returning("It returns nothing. Return the losses, one per step, so that they can be plotted.", lambda losses: None)  # fmt: skip
_returning("Only the last loss is returned. Return all of them, one per step.", lambda losses: losses[-1])  # fmt: skip
_returning("The mean of the losses is returned. Return all of them, one per step.", lambda losses: sum(losses) / len(losses))  # fmt: skip
_returning("The losses keep their graphs, and with them all activations stay in memory. Collect their numbers.",
           lambda losses: [torch.tensor(loss, requires_grad=True) for loss in losses])  # fmt: skip


def _loss_afterwards(model, batch, optimizer, size):
    _step(model, batch, optimizer, size)
    with torch.no_grad():
        return _loss(model, batch).item()


_flawed("The steps are right, but each loss is computed after its step. Return the losses before it.", step=_loss_afterwards)  # fmt: skip


# --- Cases ---------------------------------------------------------------------------------------
def _events(given: tuple, kind: str) -> list[tuple]:
    return [event[1:] for event in given[0].log if event[0] == kind]


def _losses(result: Any, given: tuple) -> dict:
    each = result if isinstance(result, (list, tuple)) else [result]
    graphs = any(getattr(loss, "requires_grad", False) for loss in each)
    return {"losses": result, "losses keep a graph": graphs}


def _changes(result: Any, given: tuple) -> dict:
    changes = [change for _, change in _events(given, "step")]
    return {
        "number of steps of the optimizer": len(changes),
        "losses": result,
        "length of the change of the weights after each step": [c.norm().item() for c in changes],
        "change": changes,
    }


def _rates(result: Any, given: tuple) -> dict:
    return {
        "learning rates of the groups in each step": [rates for rates, _ in _events(given, "step")]
    }


def _modes(result: Any, given: tuple) -> dict:
    in_steps, training = [], []
    for event in given[0].log:
        if event[0] == "forward":
            training.append(event[2])
        elif event[0] == "step":
            in_steps.append(all(training))
            training = []
    return {"train mode in each step": in_steps, "train mode at the end": given[0].training}


def _told(result: Any, given: tuple) -> dict:
    told = _events(given, "told")
    return {
        "calls of on_step": [call[:2] for call in told],
        "length of the change of the weights at each call": [call[2] for call in told],
    }


def _micro(result: Any, given: tuple) -> dict:
    largest = max(rows for rows, _ in _events(given, "forward"))
    return {"most examples in a forward pass": max(largest, given[5])} | _changes(result, given)


def _direction(result: Any, given: tuple) -> dict:
    """The first step, by its direction alone: clipping the norm changes only its length."""
    steps = [change / change.norm().clamp(min=1e-9) for _, change in _events(given, "step")]
    return {
        "losses": result,
        "number of steps of the optimizer": len(steps),
        "direction of the change of the weights": steps[:1],
    }


SHORT, LONG, MIDDLE = ([1, 6, 2], 2), ([1, 5, 0, 9, 8, 2], 0), ([1, 7, 4, 2], 2)
THREE = [[SHORT, LONG], [MIDDLE], [LONG, MIDDLE, SHORT]]
NO_ANSWER = ([1, 8, 4], 3)
FIVE = [[SHORT, LONG, MIDDLE, LONG, SHORT], [NO_ANSWER, NO_ANSWER, MIDDLE]]


def _case(rule: str, describe: str, observe, *arguments, **options) -> Case:
    return Case(
        f"`train_loop` on {describe}", lambda: _arguments(*arguments, **options), train_loop, 3e-6,
        in_place=(0, 2), rule=rule, observe=observe,
    )  # fmt: skip


CASES = (
    _case("losses", "one batch", _losses, [[MIDDLE]]),
    _case("step", "three batches, the planned rates are the optimizer's own", _changes, THREE),
    _case("step", "one batch, an earlier run has left its gradients", _changes, [[MIDDLE]], left=0.02),
    _case("step", "a batch with large gradients", _direction, FIVE[:1], steep=True),
    _case("state", "three batches, by an optimizer with momentum", _changes, THREE, momentum=0.9),
    _case("rate", "three batches with three learning rates", _rates, THREE, (0.2, 0.5, 0.3)),
    _case("mode", "two batches", _modes, THREE[:2]),
    _case("on_step", "three batches, with an on_step", _told, THREE, asks=True),
    _case("mode", "two batches, with an on_step that calls model.eval(), and model.train() after the last step", _modes, THREE[:2], asks=True),
    _case("micro", "a batch of five examples and one of three, the first two without a trained token, with micro_batch_size=2", _micro, FIVE, micro=2),
    _case("micro", "a batch of five examples with large gradients, with micro_batch_size=2", _direction, FIVE[:1], micro=2, steep=True),
)  # fmt: skip

EXERCISES = {
    ID: Exercise(
        ID,
        "The training loop",
        train_loop,
        CASES,
        asks="Train the model on every batch, and return the list of losses, one per step.\n\n"
        "batches: a list of dicts with input_ids, attention_mask and labels, each (examples, length); a label of -100 is not "
        "trained. rates: the learning rate of each step.",
        rules={
            "step": "The optimizer takes one step on each batch, in order, on the mean loss over its trained tokens, with its "
            "gradients alone. Clipping the norm of all to 1 is optional.",
            "state": "The optimizer keeps its state, such as momentum, from step to step.",
            "rate": "In each step, all parameter groups of the optimizer have the step's learning rate.",
            "mode": "The model is in train mode in every step, and in eval mode at the end, whatever mode on_step leaves it in.",
            "on_step": "on_step(steps_done, loss), if given, is called right after every step: 1, 2, 3, ...",
            "micro": "With micro_batch_size, no forward pass has more examples than that; losses and weights are the same as without it, "
            "even if a micro-batch has no trained token.",
            "losses": "Each loss is that of the whole batch before its step, a number without its graph.",
            "seed": "Set no random seed: with one in every step, each step would draw the same dropout.",
            "unchanged": "batches and rates stay as they are.",
        },
        hints=(
            "Go through batches and rates together. What has to be set before a step, and what has to happen after it?",
            ("rate", "The optimizer looks up its rate at the moment of the step, in each group of optimizer.param_groups."),
            "The place to look is the step itself: train_step of notebook 13 takes micro_batch_size as well, and returns the loss as a number.",
        ),
        path="Write the loop over pairs of batch and rate first, with one step and the list of losses. Then add, in the order of time: the rate "
        "before the step, train mode before the step, on_step after it, eval mode after the loop. The usual wrong turn is to call model.train() "
        "once before the loop: an on_step that generates text leaves the model in eval mode.",
        why="`sft_train` below plans the batches and rates, hands them to this loop, and uses `on_step` for the bar and the checkpoints. It needs no "
        "loop of its own to pause or to resume: a resumed run is the same call with the batches and rates that are left.",
        points=3,
        shows=(sft_train,),
    )
}  # fmt: skip
