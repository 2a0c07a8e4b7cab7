"""The check of notebook 16: the training loop, checked by what the model saw and the weights it ends with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sftlab.classroom.checking import Case, Exercise
from sftlab.loss import IGNORE_INDEX, mean_of_means, sft_loss
from sftlab.train import sft_train, train_loop

RATES = (0.2, 0.8, 0.6, 0.3)
OWN_RATE = 0.05  # what the optimiser starts with: to be replaced at every step
LENGTHS = ((3, 6, 4), (8, 3, 3), (5, 7, 3), (4, 3, 8))  # of the rows of each batch
FIRST = 10  # row n begins with token FIRST + n, so that a forward pass tells which rows it got


class _Batches(list):
    """Batches that set the random state when their turn comes, as the package's do."""

    seed = None

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            self.seed = 7000 + number
            torch.manual_seed(self.seed)
            yield batch


def _batches() -> _Batches:
    found, row = _Batches(), 0
    for lengths in LENGTHS:
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        labels, mask = torch.full_like(ids, IGNORE_INDEX), torch.zeros_like(ids)
        for place, length in enumerate(lengths):
            tokens = torch.tensor([FIRST + row, 1, *(2 + (row + k) % 8 for k in range(length - 2))])
            ids[place, :length], mask[place, :length] = tokens, 1
            labels[place, 2:length] = tokens[2:]
            row += 1
        found.append({"input_ids": ids, "labels": labels, "attention_mask": mask})
    return found


def _arguments(asks: bool = False, micro_batch_size: int | None = None):
    """A tiny random model that notes what happens to it; its embedding is frozen. SGD, whose step shows the gradient."""
    config = LlamaConfig(vocab_size=24, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=1, tie_word_embeddings=True)  # fmt: skip
    state = torch.get_rng_state()
    torch.manual_seed(5)
    model = LlamaForCausalLM(config).eval()
    torch.set_rng_state(state)
    model.model.embed_tokens.requires_grad_(False)
    batches, log = _batches(), []
    model.seen = log

    def note_forward(module, _, inputs):
        if torch.is_grad_enabled():
            rows = (inputs["input_ids"][:, 0] - FIRST).tolist()
            own_seed = batches.seed in (None, torch.initial_seed())
            log.append(("forward", rows, module.training, own_seed))

    model.model.register_forward_pre_hook(note_forward, with_kwargs=True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=OWN_RATE)
    optimizer.register_step_pre_hook(lambda o, *_: log.append(("step", o.param_groups[0]["lr"])))

    def on_step(done, loss):
        log.append(("told", done, loss))
        model.eval()  # whoever asks the model something turns training off

    given = (model, batches, optimizer, list(RATES), on_step if asks else None, micro_batch_size)
    return given[: 6 if micro_batch_size else 5 if asks else 4]


def _weights(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _plain(zero=True, means=False, everything=False, summed=False, micro_batch_size=None):
    """The losses and weights after a loop written out, or one with a known mistake."""
    model, batches, optimizer, rates, *_ = _arguments()
    losses = []
    for batch, rate in zip(batches, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        labels = batch["input_ids"] if everything else batch["labels"]
        loss = sft_loss(logits, labels)
        losses.append(loss.item())
        if means:
            size = micro_batch_size or 1
            parts = range(0, len(labels), size)
            loss = mean_of_means((logits[k : k + size], labels[k : k + size]) for k in parts)
        if zero:
            optimizer.zero_grad()
        (loss * ((labels[:, 1:] != IGNORE_INDEX).sum() if summed else 1)).backward()
        optimizer.step()
    return losses, _weights(model)


# Weights that known mistakes leave behind.
WEIGHT_MISTAKES = (
    ({"zero": False}, "Gradients of earlier batches were added to later ones: PyTorch accumulates them. Set them to zero for every batch."),
    ({"means": True}, "Each micro-batch's own mean was averaged, so a token in a short one weighs more. Divide the summed loss of every micro-batch by the trained tokens of the **whole** batch."),
    ({"everything": True}, "It trained on prompts and padding too: the weights moved as if `input_ids` were the labels. A batch has `labels`."),
    ({"summed": True}, "The steps are too large: the gradient is that of the **sum** over the trained tokens, not of their mean."),
)  # fmt: skip


def _seen(log: Sequence[tuple], micro_batch_size: int | None) -> str | None:
    """What is wrong with the rows that the model was trained on, or with how."""
    forwards = [event for event in log if event[0] == "forward"]
    if not forwards:
        return "The model was given no batch (with gradients on). Go through `batches` and train on each."
    rows = [row for event in forwards for row in event[1]]
    batch_of = [number for number, lengths in enumerate(LENGTHS, 1) for _ in lengths]
    order = list(dict.fromkeys(batch_of[row] for row in rows))
    if missing := [n for n in range(1, len(LENGTHS) + 1) if n not in order]:
        last = " The loop ends one batch too early." if missing == [len(LENGTHS)] else ""
        return f"Batch {missing[0]} of {len(LENGTHS)} was never trained on.{last}"
    if order != sorted(order):
        return f"The batches came in the order {order}. They are shuffled already, by a plan that a resumed run repeats: take them as they come."
    if len(set(rows)) < len(batch_of):
        return f"Of {len(batch_of)} rows the model saw only {len(set(rows))}: do the micro-batches cover the whole batch?"
    if len(rows) > len(batch_of):
        return "Some rows were trained on more than once. Each batch is for one step."
    if micro_batch_size and (size := max(len(event[1]) for event in forwards)) > micro_batch_size:
        return f"A forward pass had {size} rows, but `micro_batch_size` allows {micro_batch_size}: the memory may not hold more."
    if not forwards[0][2]:
        return (
            "The model was in eval mode: dropout would be off. Say `model.train()` before the step."
        )
    if not all(event[2] for event in forwards):
        return "After `on_step` the model was in eval mode, and training went on in it. Say `model.train()` for **every** step."
    if not all(event[3] for event in forwards):
        return "It sets the random seed itself, so every step would draw the same dropout. The batches bring their own random state: leave it alone."
    return None


def _steps(log: Sequence[tuple]) -> str | None:
    """What is wrong with the optimiser's steps and their rates."""
    rates = [event[1] for event in log if event[0] == "step"]
    if not rates:
        return "The given `optimizer` never took a step. With one of your own, its state (and a resumed run's) would be lost."
    if len(rates) != len(RATES):
        many = (
            "A step after each micro-batch? Add their gradients up, then step once."
            if len(rates) > len(RATES)
            else "Step once for each batch."
        )
        return f"The optimiser took {len(rates)} steps on {len(RATES)} batches. {many}"  # fmt: skip
    if rates == [OWN_RATE] * len(RATES):
        return "Every step had the optimiser's own rate. Put each step's rate into `group['lr']` of `optimizer.param_groups`."
    if rates[1:] == list(RATES[:-1]):
        return "The rates come one step late: each was set after the step that it was meant for."
    if rates[:-1] == list(RATES[1:]):
        return "The rates come one step early: the first step had the second rate."
    if rates != list(RATES):
        return f"The steps had the rates {[round(rate, 3) for rate in rates]}; planned were {list(RATES)}."
    return None


def _shape(result) -> str | None:
    """What is wrong with the kind of thing that was returned."""
    if result is None:
        return "It returns nothing. Return the losses, one per step, so that they can be plotted."
    if isinstance(result, (int, float, torch.Tensor)):
        return "It returns one number. Return the list of all losses, one per step."
    if not isinstance(result, (list, tuple)):
        return f"Return a list of the losses; this is a `{type(result).__name__}`."
    if any(isinstance(loss, torch.Tensor) for loss in result):
        return "The losses are tensors, and each keeps the graph of its step alive. `.item()` gives the number."
    return None


def _losses(result: Sequence, expected: Sequence[float]) -> str | None:
    if len(result) != len(expected):
        return f"It returns {len(result)} losses for {len(expected)} steps."
    for number, (got, wanted) in enumerate(zip(result, expected, strict=True), 1):
        if not isinstance(got, (int, float)) or not math.isclose(got, wanted, rel_tol=1e-4):
            return f"The steps are right, but the loss returned for step {number} is not that of the batch before the step: {wanted:.4f} expected."
    return None


def _verify(result, arguments) -> str | None:
    model, _, _, _, on_step, micro_batch_size, *_ = (*arguments, None, None)
    log = list(model.seen)
    embedding, before = model.model.embed_tokens.weight, _arguments()[0].model.embed_tokens.weight
    if embedding.requires_grad or not torch.equal(embedding, before):
        return "A frozen weight (the embedding) was trained. What requires no gradient is to stay as it is."
    message = _seen(log, micro_batch_size) or _steps(log) or _shape(result)
    if message:
        return message
    losses, wanted = _plain()
    after = _weights(model)
    if not torch.allclose(after, wanted, atol=2e-6):
        for mistake, told in WEIGHT_MISTAKES:
            if torch.allclose(
                after, _plain(**mistake, micro_batch_size=micro_batch_size)[1], atol=2e-6
            ):
                return told
        return "The weights moved, but not by one step per batch along the gradient of its mean loss over its trained tokens."
    told = [event[1:] for event in log if event[0] == "told"]
    if on_step and [done for done, _ in told] != list(range(1, len(RATES) + 1)):
        return f"`on_step(steps_done, loss)` is to be called once after every step, with 1, 2, 3, …; it was told {[done for done, _ in told]}."
    if message := _losses(result, losses) or (
        _losses([x for _, x in told], losses) if on_step else None
    ):
        return message  # fmt: skip
    if model.training:
        return "The model is left in train mode: the next answer would be drawn with dropout. End with `model.eval()`."
    return None


EXERCISES = {
    "16.train_loop": Exercise(
        id="16.train_loop",
        title="The training loop",
        reference=train_loop,
        cases=[
            Case("four batches, four rates, a model with a frozen embedding", _arguments, verify=_verify, in_place=True),
            Case("the same with an `on_step` that turns training off", lambda: _arguments(asks=True), verify=_verify, in_place=True),
            Case("the same with `micro_batch_size=2`: at most two rows in a forward pass", lambda: _arguments(micro_batch_size=2), verify=_verify, in_place=True),
        ],
        hints=[
            "One pass over `zip(batches, rates)`. For each pair: the rate, train mode, one step, note the loss, tell `on_step`.",
            "The optimiser reads its rate from `group['lr']` of each group in `optimizer.param_groups`, at the moment of the step.",
            "`train_step(model, batch, optimizer, micro_batch_size=micro_batch_size)` does the rest: it zeroes the gradients, divides by the trained tokens "
            "of the whole batch, steps, and returns the loss as a number.",
        ],
        why="`sft_train` below plans the batches and rates, hands them to this loop, and uses `on_step` for the bar and the checkpoints. It needs no "
        "loop of its own to pause or to resume: a resumed run is the same call with the batches and rates that are left.",
        points=3,
        shows=(sft_train,),
    )
}  # fmt: skip
