"""The check of notebook 13: one training step, checked by the weights it leaves and the loss it returns."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch

from sftlab._internal.random_state import own_random_state
from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.loss import IGNORE_INDEX, sft_loss
from sftlab.train import train_step

ID = "13.train_step"


@functools.cache
def _template():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=23, hidden_size=12, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, tie_word_embeddings=True)  # fmt: skip
    with own_random_state(seed=3):
        model = LlamaForCausalLM(config).eval()
    model.model.norm.weight.data.fill_(
        0.1
    )  # gradients of a norm below 1, which no clipping changes
    return model


def tiny_model():
    """Return a new model of random weights, always the same."""
    return copied(_template())


def copied(module: torch.nn.Module, made: dict | None = None) -> torch.nn.Module:
    """Return a copy with weights and layers of its own, several times faster than deepcopy.

    ``made`` holds the copies made so far, so that tied weights stay tied.
    """
    new, made = copy.copy(module), {} if made is None else made
    vars(new).update({name: v.copy() for name, v in vars(module).items() if isinstance(v, dict)})
    for name, weight in module._parameters.items():
        if weight is not None and weight not in made:
            made[weight] = torch.nn.Parameter(weight.detach().clone(), weight.requires_grad)
        new._parameters[name] = made.get(weight)
    for name, buffer in module._buffers.items():
        new._buffers[name] = buffer if buffer is None else buffer.clone()
    for name, layer in module._modules.items():
        new._modules[name] = copied(layer, made)
    return new


def batch_of(*sequences: tuple[list[int], int]) -> dict[str, torch.Tensor]:
    """Return a batch of (ids, prompt length) pairs, padded on the right with token 3."""
    width = max(len(ids) for ids, _ in sequences)
    ids = torch.full((len(sequences), width), 3)
    labels, mask = torch.full_like(ids, IGNORE_INDEX), torch.zeros_like(ids)
    for row, (tokens, prompt) in enumerate(sequences):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def count_steps(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Let the optimizer count its steps in ``steps``."""

    def note(optimizer, *_) -> None:
        optimizer.steps += 1

    optimizer.steps = 0
    optimizer.register_step_post_hook(note)
    return optimizer


def _arguments(*sequences: tuple[list[int], int], stale: bool = False, groups: bool = False):
    """A model, a batch and SGD, whose step shows the size of the gradient."""
    model = tiny_model()
    weights = list(model.parameters())
    if groups:
        parts = [{"params": weights[:3]}, {"params": weights[3:], "lr": 0.3}]
        optimizer = torch.optim.SGD(parts, lr=0.7, momentum=0.9)
    else:
        optimizer = torch.optim.SGD(weights, lr=0.7)
    if stale or groups:
        for weight in weights:
            weight.grad = torch.full_like(weight, 0.02)
    if groups:  # a step taken earlier, which leaves a momentum
        optimizer.step()
    return model, batch_of(*sequences), count_steps(optimizer)


# --- Mistakes ------------------------------------------------------------------------------------
def _logits(model, batch):
    return model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def _loss(logits, batch):
    return sft_loss(logits, batch["labels"])


def _step(model, batch, optimizer, loss_of=_loss, zero=True, same=False):
    """Step on ``loss_of(logits, batch)``; return the right loss, or with ``same`` the one used."""
    logits = _logits(model, batch)
    if zero:
        optimizer.zero_grad()
    loss = loss_of(logits, batch)
    loss.backward()
    optimizer.step()
    return (loss if same else _loss(logits.detach(), batch)).item()


@mistake(ID, "Gradients of an earlier step are added to those of this one: PyTorch accumulates them. Set them to zero before backward().")  # fmt: skip
def _gradients_left_over(model, batch, optimizer):
    return _step(model, batch, optimizer, zero=False)


NO_GRADIENT = "The optimizer takes its step without a gradient of this batch. In which order are gradients set to zero, computed by backward() and used by the step?"


@mistake(ID, NO_GRADIENT)
def _no_backward(model, batch, optimizer):
    optimizer.zero_grad()
    optimizer.step()
    return _loss(_logits(model, batch), batch).item()


@mistake(ID, NO_GRADIENT)
def _neither_zero_nor_backward(model, batch, optimizer):
    loss = _loss(_logits(model, batch), batch).item()
    optimizer.step()
    return loss


@mistake(ID, NO_GRADIENT)
def _step_before_backward(model, batch, optimizer):
    loss = _loss(_logits(model, batch), batch)
    optimizer.step()
    loss.backward()
    return loss.item()


@mistake(ID, "The optimizer never takes a step, so no weight moves.")
def _no_step(model, batch, optimizer):
    return _loss(_logits(model, batch), batch).item()


TWO_STEPS = "The optimizer takes two steps. One call is one training step."


@mistake(ID, TWO_STEPS)
def _two_steps(model, batch, optimizer):
    loss = _step(model, batch, optimizer)
    _step(model, batch, optimizer)
    return loss


@mistake(ID, TWO_STEPS)
def _two_steps_on_one_gradient(model, batch, optimizer):
    loss = _step(model, batch, optimizer)
    optimizer.step()
    return loss


@mistake(ID, "Each sequence gets a step of its own. One call is one step, on the mean over all sequences of the batch.")  # fmt: skip
def _step_per_sequence(model, batch, optimizer):
    rows = range(len(batch["labels"]))
    losses = [_step(model, {k: v[i : i + 1] for k, v in batch.items()}, optimizer) for i in rows]
    return sum(losses) / len(losses)


@mistake(ID, "Only the first sequence of the batch is used. The step follows the mean over the trained tokens of all of them.")  # fmt: skip
def _first_sequence(model, batch, optimizer):
    return _step(model, {k: v[:1] for k, v in batch.items()}, optimizer)


OWN_STEP = "The weights move, but not by a step of the given optimizer. It holds each parameter's learning rate and the state of earlier steps."


@mistake(ID, OWN_STEP)
def _own_optimizer(model, batch, optimizer):
    return _step(model, batch, torch.optim.SGD(model.parameters(), lr=optimizer.defaults["lr"]))


@mistake(ID, OWN_STEP)
def _own_adam(model, batch, optimizer):
    return _step(model, batch, torch.optim.AdamW(model.parameters()))


@mistake(ID, "The weights move uphill, so the loss grows. The step has to follow the gradient of the loss, not of its negative.")  # fmt: skip
def _uphill(model, batch, optimizer):
    return _step(model, batch, optimizer, lambda logits, b: -_loss(logits, b))


def _wrong_loss(message: str, loss_of: Callable[[Any, dict], Any]) -> None:
    """Declare a step on another loss, which returns the right loss or the one it used."""

    def right_loss_returned(model, batch, optimizer):
        return _step(model, batch, optimizer, loss_of)

    def same_loss_returned(model, batch, optimizer):
        return _step(model, batch, optimizer, loss_of, same=True)

    mistake(ID, message)(right_loss_returned)
    mistake(ID, message)(same_loss_returned)


def _per_token(logits, batch):
    """The loss of each token, 0 where it is not trained."""
    flat = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="none"
    )
    return flat.view(len(logits), -1)


def _shifted(labels):
    return torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)


_wrong_loss(
    "The step uses prompt and padding tokens too, as if input_ids were the labels. The batch has labels of its own.",
    lambda logits, b: sft_loss(logits, b["input_ids"]),
)
_wrong_loss(
    "The step uses the prompt tokens too. Their labels are -100, and they have no loss.",
    lambda logits, b: sft_loss(logits, b["input_ids"].where(b["attention_mask"] > 0, IGNORE_INDEX)),
)
_wrong_loss(
    "The step is too large: its gradient is that of the sum over the trained tokens, not of their mean.",
    lambda logits, b: _per_token(logits, b).sum(),
)
_wrong_loss(
    "The summed loss is divided by the number of sequences. Divide it by the number of trained tokens.",
    lambda logits, b: _per_token(logits, b).sum() / len(logits),
)
_wrong_loss(
    "The loss is averaged over all positions, trained or not. Positions with the label -100 do not count.",
    lambda logits, b: _per_token(logits, b).mean(),
)
_wrong_loss(
    "Each sequence's own mean is averaged, so a token in a short answer weighs more. Divide the sum of the whole batch by all its trained tokens.",
    lambda logits, b: (_per_token(logits, b).sum(1) / (b["labels"][:, 1:] >= 0).sum(1)).mean(),
)
_wrong_loss(
    "The count of trained tokens includes the first label of a sequence. No earlier token predicts it, so it has no loss and does not count.",
    lambda logits, b: _per_token(logits, b).sum() / (b["labels"] != IGNORE_INDEX).sum(),
)
_wrong_loss(
    "The step is twice as large: its gradient is added up twice. One backward() on the loss is enough.",
    lambda logits, b: 2 * _loss(logits, b),
)
_wrong_loss(
    "The summed loss is divided by the number of tokens that are no padding. Divide it by the number of trained tokens: prompt tokens have no loss.",
    lambda logits, b: _per_token(logits, b).sum() / b["attention_mask"].sum(),
)
_wrong_loss(
    "The logits at a position are compared with the token at the same position, which the model has just read. They predict the next one.",
    lambda logits, b: torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), b["labels"].flatten()
    ),
)
_wrong_loss(
    "The logits at a position are compared with the token before it. They predict the next one.",
    lambda logits, b: torch.nn.functional.cross_entropy(
        logits[:, 1:].flatten(0, 1), b["labels"][:, :-1].flatten()
    ),
)
_wrong_loss(
    "Trained tokens with the id 0 are left out. 0 is an id like any other; only -100 means that a token has no loss.",
    lambda logits, b: sft_loss(logits, b["labels"].where(b["labels"] > 0, IGNORE_INDEX)),
)
_wrong_loss(
    "The label -100 is replaced by 0, so prompt and padding are trained on token 0. -100 means that a token has no loss.",
    lambda logits, b: sft_loss(logits, b["labels"].clamp(min=0)),
)
_wrong_loss(
    "The labels are shifted twice, so each token predicts the one after the next. sft_loss shifts them itself.",
    lambda logits, b: sft_loss(logits, _shifted(b["labels"])),
)


def _returning(message: str, change: Callable[[Any, tuple], Any]) -> None:
    """Declare a right step that returns something else than the loss before it."""

    def another_number_returned(*given):
        return change(_step(*given), given)

    mistake(ID, message)(another_number_returned)


_returning("It returns nothing. Return the loss, so that the loop can show it.", lambda loss, _: None)  # fmt: skip
_returning("The returned loss keeps its graph, and with it all activations of the step stay in memory. Return its number.",
           lambda loss, _: torch.tensor(loss, requires_grad=True))  # fmt: skip
_returning("The step is right, but the loss returned is the one after it. Return the loss that the step was taken on.",
           lambda _, given: _loss(_logits(*given[:2]), given[1]).item())  # fmt: skip
_returning("The step is right, but the loss returned is the sum over the trained tokens. Return their mean.",
           lambda loss, given: loss * (given[1]["labels"][:, 1:] != IGNORE_INDEX).sum().item())  # fmt: skip


# --- Cases ---------------------------------------------------------------------------------------
def _change(result: Any, given: tuple) -> dict:
    before = torch.cat([weight.flatten() for weight in _template().parameters()])
    change = torch.cat([weight.detach().flatten() for weight in given[0].parameters()]) - before
    return {"length of the change of the weights": change.norm().item(), "change": change}


def _steps(result: Any, given: tuple) -> dict:
    return {"number of steps of the optimizer": given[2].steps} | _change(result, given)


def _returned(result: Any, given: tuple) -> dict:
    return {"loss": result, "keeps its graph": bool(getattr(result, "requires_grad", False))}


def _loss_alone(result: Any, given: tuple) -> dict:
    return {"loss": result}


def _both(result: Any, given: tuple) -> dict:
    return {"loss": result} | _change(result, given)


ONE, OTHER = ([1, 5, 0, 9, 2], 2), ([1, 6, 2], 2)


def _case(rule: str, describe: str, *sequences: tuple, observe=_change, **options) -> Case:
    return Case(
        describe, lambda: _arguments(*sequences, **options), train_step, 2e-6,
        in_place=(0, 2), rule=rule, observe=observe,
    )  # fmt: skip


CASES = (
    _case("mean", "the loss that is returned for one sequence", ONE, observe=_loss_alone),
    _case("mean", "one sequence, its first two tokens are the prompt", ONE),
    _case("mean", "two sequences with 3 and 1 trained tokens, the second padded", ONE, OTHER, observe=_both),
    _case("mean", "a sequence without a prompt", ([1, 5, 7, 9], 0), OTHER, observe=_both),
    _case("fresh", "gradients of an earlier step are left over", ONE, stale=True),
    _case("step", "an optimizer with momentum and two groups of parameters", ONE, groups=True, observe=_steps),
    _case("before", "what is returned for one sequence", ONE, observe=_returned),
)  # fmt: skip

EXERCISES = {
    ID: Exercise(
        ID,
        "One training step",
        train_step,
        CASES,
        asks="Run one training step on a batch, and return the loss of the batch before the step.\n\n"
        "model(input_ids=..., attention_mask=...).logits are (batch, length, vocabulary).\n"
        "batch: input_ids, attention_mask, labels: tensors (batch, length), padded on the right.",
        rules={
            "mean": "The step follows the gradient of sft_loss(logits, labels), clipped to norm 1 or not.",
            "fresh": "Gradients left over from an earlier step have no effect.",
            "step": "The given optimizer takes exactly one step.",
            "before": "The loss is returned as a number without its graph, which would fill the memory.",
            "unchanged": "The batch stays as it is.",
        },
        hints=(
            "Four things are needed: the loss, no gradients from before, the gradients of this batch, the step. In which order?",
            ("fresh", "backward() adds to the gradients that are there, and the step uses whatever it finds."),
            "The place to look is between the loss and the step. What is returned is the loss computed before it, as a number.",
        ),
        path="Begin with the forward pass: the model gives logits, and sft_loss masks and shifts. Then make sure that no old gradient is left, "
        "compute the new ones, and let the optimizer step. Read the number out of the loss last. The usual wrong turn is the order: set to zero "
        "after backward(), the gradients are gone before the step.",
        why="The package's version can also split the batch into micro-batches, share it among several processes, and clip the gradient. "
        "None of this changes the step here: each part's summed loss is divided by the trained tokens of the *whole* batch, and these gradients are short.",
        points=2,
    )
}  # fmt: skip
