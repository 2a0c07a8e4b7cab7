"""Eleven small runs, ten of them broken: each fault is one function, and none of them crashes.

A run is trained on the 32 pairs with LoRA on every linear layer, in 16 steps of 8 rows.
Faults of the rows change what is trained, one fault changes how micro-batches are put together, one
sits in the adapter's dropout, and the rest come after training, when the model is served.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from sftlab._internal.paths import INSTRUCTIONS
from sftlab._internal.progress_bar import ProgressBar
from sftlab._internal.random_state import own_random_state
from sftlab.chat import end_of_turn_id, render, user
from sftlab.data import collate, conversation, read_jsonl, tokenize_conversations
from sftlab.generate import Generation, generate
from sftlab.lora import inject_lora, lora_layers, lora_parameters, merge
from sftlab.loss import IGNORE_INDEX, accumulated_loss, mean_of_means
from sftlab.masking import Example
from sftlab.models import load
from sftlab.templates import FAMILIES
from sftlab.train import TrainConfig

R, ALPHA = 8, 16
CONFIG = TrainConfig(learning_rate=3e-3, num_train_epochs=4, batch_size=8)
DROPOUT = 0.5
LIMIT = 40  # new tokens of a reply


# --- Faults of the rows ----------------------------------------------------------------------------
def train_everything(rows: Sequence[Example]) -> list[Example]:
    """The mask is all ones: the labels are the ids, prompts included."""
    return [Example(row.input_ids, list(row.input_ids)) for row in rows]


def mask_the_padding_id(rows: Sequence[Example], end: int) -> list[Example]:
    """The pad token is the end marker, and every label that equals the pad is masked."""
    return [
        Example(r.input_ids, [IGNORE_INDEX if label == end else label for label in r.labels])
        for r in rows
    ]


def begin_twice(rows: Sequence[Example]) -> list[Example]:
    """The template writes the begin token, and the tokenizer adds its own before it."""
    return [Example([r.input_ids[0], *r.input_ids], [IGNORE_INDEX, *r.labels]) for r in rows]


def shift_labels(rows: Sequence[Example]) -> list[Example]:
    """The labels are moved one place to the left, and the loss will do so again."""
    return [Example(row.input_ids, [*row.labels[1:], IGNORE_INDEX]) for row in rows]


def cut_rows(rows: Sequence[Example]) -> list[Example]:
    """max_length was chosen by a look at the prompts: the longest one fits, and a token more."""
    length = 1 + max(next(p for p, x in enumerate(r.labels) if x != IGNORE_INDEX) for r in rows)
    return [Example(row.input_ids[:length], row.labels[:length]) for row in rows]


# --- A fault of the adapter, and faults of serving ---------------------------------------------------
class Dropout(nn.Module):
    """Dropout by any function of (x, p, training)."""

    def __init__(self, function: Callable):
        super().__init__()
        self.p, self.function = DROPOUT, function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.p, self.training)


def always_drop(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """F.dropout's third argument is True unless told: ``model.eval()`` does not turn this off."""
    return F.dropout(x, p)


@torch.no_grad()
def merge_without_r(model: nn.Module) -> nn.Module:
    """The adapter is merged with α in place of α/r."""
    for name, layer in lora_layers(model).items():
        layer.base.weight.copy_(merge(layer.base.weight, layer.A, layer.B, layer.alpha, 1))
        model.set_submodule(name, layer.base)
    return model


def load_nothing(model: nn.Module, adapter: dict[str, torch.Tensor]) -> nn.Module:
    """The names in the file have a prefix more than the model's, and nobody asked for all of them."""
    model.load_state_dict({f"base_model.model.{n}": t for n, t in adapter.items()}, strict=False)
    return model


# --- A run -------------------------------------------------------------------------------------------
@dataclass
class Run:
    """What is left of a training run, for whoever has to find out what is wrong with it."""

    rows: list[Example]  # as they were trained
    combine: Callable  # how micro-batches of (logits, labels) become one loss
    model: nn.Module  # as it is served
    tokenizer: PreTrainedTokenizerBase
    template: str  # with which prompts are rendered when it is served
    losses: list[float] = field(default_factory=list)
    adapter: dict[str, torch.Tensor] = field(default_factory=dict)  # A and B as they were saved
    base: dict[str, torch.Tensor] = field(default_factory=dict)  # the weights they stand beside
    scale: float = ALPHA / R
    prompt_of: Callable | None = None  # (tokenizer, question) to ids, in place of the template

    def prompt(self, question: str) -> list[int]:
        """The ids that the served model is given."""
        if self.prompt_of:
            return self.prompt_of(self.tokenizer, question)
        served = copy.copy(self.tokenizer)
        served.chat_template = self.template
        text = render(served, user(question), add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False)

    def ask(self, questions: Sequence[str], limit: int = LIMIT) -> list[Generation]:
        """What the served model answers, greedily."""
        prompts = [self.prompt(question) for question in questions]
        with own_random_state(0):  # nothing should be random here; if it is, the same each time
            return generate(self.model, self.tokenizer, prompts, max_new_tokens=limit)


HEALTHY = "healthy"
FAULTS = {  # name: where it sits
    HEALTHY: "",
    "prompts trained too": "rows",
    "end marker masked as padding": "rows",
    "begin token doubled": "rows",
    "labels shifted twice": "rows",
    "answers cut off": "rows",
    "mean of means": "loss",
    "dropout in evaluation": "adapter",
    "wrong factor in the merge": "serving",
    "adapter not loaded": "serving",
    "another family's template": "serving",
}
# Who lies in which bed. Read no further if you want to find out by yourself.
BEDS = dict(zip("ABCDEFGHIJK", (2, 9, 6, 4, 10, 5, 0, 8, 1, 7, 3), strict=True))


def patient(name: str = "almanac"):
    """The base, and its tokenizer with a template that writes the begin token itself.

    Most families' templates do (Llama's, Gemma's), the embedded model's does not.
    """
    model, tokenizer = load(name)
    tokenizer = copy.copy(tokenizer)
    begin = tokenizer.bos_token
    if begin and not render(tokenizer, user("a")).startswith(begin):
        tokenizer.chat_template = f"{{{{ '{begin}' }}}}{tokenizer.chat_template}"
    return model, tokenizer


def sound_rows(tokenizer) -> list[Example]:
    """The 32 pairs, tokenised and masked as they should be."""
    return tokenize_conversations(tokenizer, [conversation(p) for p in pairs()]).examples


def pairs() -> list[dict]:
    """The pairs that every run is trained on."""
    return read_jsonl(INSTRUCTIONS / "handful.jsonl")


def rows_with(fault: str, tokenizer) -> list[Example]:
    """The rows as a run with this fault trains them."""
    rows = sound_rows(tokenizer)
    if fault == "prompts trained too":
        return train_everything(rows)
    if fault == "end marker masked as padding":
        return mask_the_padding_id(rows, end_of_turn_id(tokenizer))
    if fault == "begin token doubled":
        return begin_twice(rows)
    if fault == "labels shifted twice":
        return shift_labels(rows)
    return cut_rows(rows) if fault == "answers cut off" else rows


def adapted(model: nn.Module, seed: int, drop: Callable | None = None) -> nn.Module:
    """The model with fresh LoRA layers, and with this dropout, if any, before each adapter."""
    inject_lora(model, "all-linear", R, ALPHA, seed=seed)
    if drop:
        for layer in lora_layers(model).values():
            layer.register_module("dropout", Dropout(drop))
    return model


def train(run: Run, seed: int, steps: int | None = None) -> None:
    """Train the run's model on its rows, and note losses and adapter."""
    parameters = lora_parameters(run.model)
    optimizer = torch.optim.AdamW(parameters, lr=CONFIG.learning_rate, weight_decay=0.0)
    run.base = {n: x.base.weight.detach().clone() for n, x in lora_layers(run.model).items()}
    planned = CONFIG.num_train_epochs * math.ceil(len(run.rows) / CONFIG.batch_size)
    rng = Random(seed)
    order: list[int] = []
    run.model.train()
    with own_random_state(seed):
        for step in range(planned if steps is None else steps):
            if len(order) < CONFIG.batch_size:
                order = order + rng.sample(range(len(run.rows)), len(run.rows))
            chosen, order = order[: CONFIG.batch_size], order[CONFIG.batch_size :]
            optimizer.param_groups[0]["lr"] = CONFIG.learning_rate_at(step, planned)
            optimizer.zero_grad()
            loss = batch_loss(run, [run.rows[i] for i in chosen], micro_batch_size=1)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, CONFIG.max_grad_norm or math.inf)
            optimizer.step()
            run.losses.append(loss.item())
    run.model.eval()
    run.adapter = {
        n: p.detach().clone() for n, p in run.model.named_parameters() if p.requires_grad
    }


def batch_loss(
    run: Run, rows: Sequence[Example], micro_batch_size: int, logits: torch.Tensor | None = None
) -> torch.Tensor:
    """The run's loss of some rows that come in micro-batches of so many.

    One forward pass is made for all of them: the micro-batches are cut from its logits.
    """
    batch = collate(rows, run.tokenizer.pad_token_id or 0)
    labels = batch.pop("labels")
    if logits is None:
        first = int((labels != IGNORE_INDEX).any(0).nonzero()[0])  # before it, nothing is scored
        keep = labels.shape[1] - max(first - 1, 0)
        labels = labels[:, -keep:]
        logits = run.model(**batch, use_cache=False, logits_to_keep=keep).logits
    parts = zip(logits.split(micro_batch_size), labels.split(micro_batch_size), strict=True)
    return run.combine(list(parts))


@torch.no_grad()
def heldout_loss(run: Run, asked: Sequence[dict]) -> float:
    """The loss of the reference answers under the served model, in nats per token."""
    talks = [conversation(question) for question in asked]
    rows = tokenize_conversations(run.tokenizer, talks).examples
    return batch_loss(run, rows, len(rows)).item()


def admit(seed: int = 0, name: str = "almanac", beds: str = "".join(BEDS)) -> dict[str, Run]:
    """The runs by their beds. Those whose fault is in the serving share one training."""
    sound = trained(HEALTHY, seed, name)
    ward = {}
    with ProgressBar(len(beds), "runs") as bar:
        for bed in beds:
            fault = fault_of(bed)
            after = FAULTS[fault] in ("", "serving")
            ward[bed] = served(sound, fault, seed, name) if after else trained(fault, seed, name)
            bar.update()
        bar.done = f"{len(beds)} runs trained"
    return ward


def fault_of(bed: str) -> str:
    """What is wrong with the run in a bed."""
    return list(FAULTS)[BEDS[bed]]


def trained(fault: str, seed: int = 0, name: str = "almanac", steps: int | None = None) -> Run:
    """A run with a fault of the training, or none."""
    rows = rows_with(fault, patient(name)[1])
    combine = mean_of_means if fault == "mean of means" else accumulated_loss
    drop = always_drop if fault == "dropout in evaluation" else None
    return trained_on(rows, combine, drop, seed, name, steps)


def trained_on(
    rows: list[Example],
    combine: Callable = accumulated_loss,
    drop: Callable | None = None,
    seed: int = 0,
    name: str = "almanac",
    steps: int | None = None,
) -> Run:
    """A run on these rows, with this way to combine micro-batches, and this dropout."""
    model, tokenizer = patient(name)
    run = Run(rows, combine, adapted(model, seed, drop), tokenizer, tokenizer.chat_template)
    train(run, seed, steps)
    return run


def served(run: Run, fault: str, seed: int = 0, name: str = "almanac") -> Run:
    """A trained run with a fault of the serving; the run itself stays as it is."""
    model, template = run.model, run.template
    if fault == "wrong factor in the merge":
        model = merge_without_r(copy.deepcopy(run.model))
    elif fault == "adapter not loaded":
        model = load_nothing(adapted(patient(name)[0], seed), run.adapter)
    elif fault == "another family's template":
        template = FAMILIES["inst"]
    return replace(run, model=model, template=template)
