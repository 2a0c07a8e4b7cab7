"""The check of notebook 13: one training step, checked by the loss it returns and the weights it leaves."""

from __future__ import annotations

import math

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sftlab.classroom.checking import Case, Exercise, mistake
from sftlab.loss import IGNORE_INDEX, sft_loss
from sftlab.train import train_step

ID = "13.train_step"
RATE = 0.1


def _arguments(stale: bool = False):
    """A tiny random model, a batch with masked prompts and padding, and plain SGD, whose step shows the gradient's size."""
    config = LlamaConfig(vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, tie_word_embeddings=True)  # fmt: skip
    state = torch.get_rng_state()
    torch.manual_seed(3)
    model = LlamaForCausalLM(config)
    torch.set_rng_state(state)
    batch = {
        "input_ids": torch.tensor([[1, 5, 7, 9, 2], [1, 6, 2, 3, 3]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "labels": torch.tensor(
            [
                [IGNORE_INDEX, IGNORE_INDEX, 7, 9, 2],
                [IGNORE_INDEX, 6, 2, IGNORE_INDEX, IGNORE_INDEX],
            ]
        ),
    }
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    if stale:
        for p in model.parameters():
            p.grad = torch.full_like(p, 0.5)
    return model, batch, optimizer


def _weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _after(step, stale: bool) -> tuple[float, torch.Tensor]:
    """The loss and weights that a way of stepping leaves."""
    model, batch, optimizer = _arguments(stale)
    loss = step(model, batch, optimizer)
    return float(loss), _weights(model)


def _step(model, batch, optimizer, loss_of, zero=True):
    """One step on ``loss_of(logits, batch)``; the loss on the batch's labels is returned."""
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    if zero:
        optimizer.zero_grad()
    loss_of(logits, batch).backward()
    optimizer.step()
    return _loss(logits.detach(), batch).item()


def _loss(logits, batch):
    return sft_loss(logits, batch["labels"])


def _plain(model, batch, optimizer):
    return _step(model, batch, optimizer, _loss)


@mistake(ID, "Gradients of an earlier step were added to this one: PyTorch accumulates them. Set them to zero before `backward()`.")  # fmt: skip
def _gradients_left_over(model, batch, optimizer):
    return _step(model, batch, optimizer, _loss, zero=False)


@mistake(ID, "It trained on the prompt and the padding too: the weights moved as if `input_ids` were the labels. The batch has `labels`.")  # fmt: skip
def _on_everything(model, batch, optimizer):
    return _step(model, batch, optimizer, lambda logits, b: sft_loss(logits, b["input_ids"]))


@mistake(ID, "The step is five times too large: the gradient is that of the *sum* over the five trained tokens, not of their mean.")  # fmt: skip
def _summed(model, batch, optimizer):
    return _step(model, batch, optimizer, lambda logits, b: 5 * _loss(logits, b))


@mistake(ID, "The weights moved uphill: the loss grows. Minimise the loss, do not maximise it.")
def _uphill(model, batch, optimizer):
    return _step(model, batch, optimizer, lambda logits, b: -_loss(logits, b))


def _verify(stale: bool):
    def verify(result, arguments) -> str | None:
        model = arguments[0]
        before, after = _weights(_arguments()[0]), _weights(model)
        loss, wanted = _after(_plain, stale)
        _, clipped = _after(train_step, stale)
        if isinstance(result, torch.Tensor):
            return "Return the loss as a number: a tensor keeps the whole graph of the step alive. `.item()` gives the number."
        if result is None:
            return "It returns nothing. Return the loss, so that the loop can show it."
        if torch.equal(after, before):
            if all(p.grad is None or not p.grad.any() for p in model.parameters()):
                return "The weights did not move and no gradient is there: was `backward()` called, and were the gradients kept until the step?"
            return "The weights did not move. There is a gradient, but who takes the step?"
        if not (
            torch.allclose(after, wanted, atol=1e-6) or torch.allclose(after, clipped, atol=1e-6)
        ):
            for known in EXERCISES[ID].mistakes:
                if torch.allclose(after, _after(known.answer, stale)[1], atol=1e-6):
                    return known.message
            return "The weights moved, but not by one step along the gradient of the batch's mean loss over its trained tokens."
        with torch.no_grad():
            later = sft_loss(
                model(
                    arguments[1]["input_ids"], attention_mask=arguments[1]["attention_mask"]
                ).logits,
                arguments[1]["labels"],
            ).item()
        if not isinstance(result, (int, float)) or not math.isclose(result, loss, rel_tol=1e-4):
            if isinstance(result, (int, float)) and math.isclose(result, later, rel_tol=1e-4):
                return "The step is right, but you return the loss *after* it. The loss that was minimised is the one before."
            return f"The step is right, but the returned loss is not that of the batch before it: {loss:.3f} expected."
        return None

    return verify


EXERCISES = {
    ID: Exercise(
        id=ID,
        title="One training step",
        reference=train_step,
        cases=[
            Case("a fresh model, two rows of unequal length, SGD", _arguments, verify=_verify(False), in_place=True),
            Case("the same with gradients left over from before", lambda: _arguments(True), verify=_verify(True), in_place=True),
        ],
        hints=[
            "Four things, in this order: the loss, a clean slate for the gradients, the gradients, the step.",
            "The model gives `.logits`; `sft_loss(logits, batch['labels'])` does the masking and the shift; `loss.backward()` writes the "
            "gradients; the optimiser zeroes them and takes the step.",
            "Return the number you would plot: the loss before the step, without its graph.",
        ],
        why="The package's version can also cut the batch into micro-batches, share it among several processes, and limit the gradient's length. "
        "None of this changes the step on a small batch: each part's summed loss is divided by the trained tokens of the *whole* batch.",
        points=2,
    )
}  # fmt: skip
