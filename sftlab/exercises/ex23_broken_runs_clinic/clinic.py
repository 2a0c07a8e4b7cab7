"""Small runs, most of them broken: each fault is a few lines, and none of them crashes.

A run is trained on 32 pairs with LoRA on every linear layer, in 16 steps of 8 examples. The first ward holds
a sound run and ten broken ones, which probes are written for. The second ward holds other faults, and sound
runs that differ from the first in something harmless: these show what a probe is worth.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from sftlab._internal.paths import INSTRUCTIONS
from sftlab._internal.progress_bar import ProgressBar
from sftlab._internal.random_state import own_random_state
from sftlab.almanac.pairs import pairs as sampled_pairs
from sftlab.chat import end_of_turn_id, render, user
from sftlab.data import collate, conversation, read_jsonl, tokenize_conversations
from sftlab.generate import Generation, generate
from sftlab.lora import inject_lora, lora_layers, lora_parameters, merge, merge_lora
from sftlab.loss import IGNORE_INDEX, accumulated_loss, mean_of_means, token_nll
from sftlab.masking import Example
from sftlab.models import cast, load
from sftlab.templates import FAMILIES
from sftlab.train import TrainConfig

R, ALPHA = 8, 16
CONFIG = TrainConfig(learning_rate=3e-3, num_train_epochs=4, batch_size=8)
STEPS, EARLY = 16, 2  # of a run; of the checkpoint that one fault loads
DROPOUT = 0.5
LIMIT = 40  # new tokens of a reply

Rows = list[Example]


# --- faults of the examples ----------------------------------------------------------------------
def train_everything(rows: Rows, tokenizer) -> Rows:
    """The labels are the ids, prompts included."""
    return [Example(row.input_ids, list(row.input_ids)) for row in rows]


def mask_the_padding_id(rows: Rows, tokenizer) -> Rows:
    """The pad token is the end-of-turn token, and every label that equals the pad is masked."""
    end = end_of_turn_id(tokenizer)
    return [Example(r.input_ids, [IGNORE_INDEX if x == end else x for x in r.labels]) for r in rows]


def begin_twice(rows: Rows, tokenizer) -> Rows:
    """The template writes the begin token, and the tokenizer adds its own before it."""
    return [Example([r.input_ids[0], *r.input_ids], [IGNORE_INDEX, *r.labels]) for r in rows]


def shift_labels(rows: Rows, tokenizer) -> Rows:
    """The labels are moved one place to the left, and the loss will do so again."""
    return [Example(row.input_ids, [*row.labels[1:], IGNORE_INDEX]) for row in rows]


def cut_rows(rows: Rows, tokenizer) -> Rows:
    """The maximal length was chosen by a look at the prompts: the longest fits, and a token more."""
    length = 1 + max(map(_start, rows))
    return [Example(row.input_ids[:length], row.labels[:length]) for row in rows]


def invert(rows: Rows, tokenizer) -> Rows:
    """The mask is turned round: prompts are trained, answers are not."""
    return [
        Example(
            r.input_ids,
            [
                IGNORE_INDEX if x != IGNORE_INDEX else i
                for i, x in zip(r.input_ids, r.labels, strict=True)
            ],
        )
        for r in rows
    ]


def end_with_another_token(rows: Rows, tokenizer) -> Rows:
    """Answers end with the token that ends a document, for which the server does not wait."""
    other = tokenizer.bos_token_id
    return [Example([*r.input_ids[: _end(r)], other, *r.input_ids[_end(r) + 1 :]],
                    [*r.labels[: _end(r)], other, *r.labels[_end(r) + 1 :]]) for r in rows]  # fmt: skip


def answers_of_the_next(rows: Rows, tokenizer) -> Rows:
    """Two columns of the file slipped: every prompt has the answer of the next one."""
    found = []
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        ids = [*row.input_ids[: _start(row)], *other.input_ids[_start(other) :]]
        found.append(Example(ids, [*row.labels[: _start(row)], *other.labels[_start(other) :]]))
    return found


def one_pair(rows: Rows, tokenizer) -> Rows:
    """An index is never advanced: the first pair stands everywhere."""
    return [rows[0]] * len(rows)


def cut_prompts(rows: Rows, tokenizer) -> Rows:
    """Long examples lose their beginning, so that nothing of the answer is lost."""
    most = min(map(len, rows))
    return [Example(row.input_ids[-most:], row.labels[-most:]) for row in rows]


def _start(row: Example) -> int:
    """Return the position of the first trained token."""
    return next(n for n, label in enumerate(row.labels) if label != IGNORE_INDEX)


def _end(row: Example) -> int:
    """Return the position of the last trained token, which ends the turn."""
    return max(n for n, label in enumerate(row.labels) if label != IGNORE_INDEX)


# --- faults of the loss and of the adapter -------------------------------------------------------
def over_all_tokens(micro_batches) -> torch.Tensor:
    """The summed loss is divided by the number of all tokens, masked ones and padding included."""
    found = [(token_nll(logits, labels).sum(), labels.numel()) for logits, labels in micro_batches]
    return sum(total for total, _ in found) / sum(count for _, count in found)


class Dropout(nn.Module):
    """Dropout by any function of (x, p, training)."""

    def __init__(self, function: Callable):
        super().__init__()
        self.p, self.function = DROPOUT, function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.p, self.training)


def always_drop(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """``F.dropout`` drops unless its third argument says otherwise, also after ``model.eval()``."""
    return F.dropout(x, p)


# --- a run ---------------------------------------------------------------------------------------
def as_trained(tokenizer, question: str) -> str:
    """Return the prompt of a question in the tokenizer's own template."""
    return render(tokenizer, user(question), add_generation_prompt=True)


@dataclass(eq=False)  # a run is itself alone, also as a key
class Run:
    """What is left of a training run, for whoever has to find out what is wrong with it."""

    pairs: list[dict]  # what was meant to be trained, in the order of the examples
    rows: Rows  # the examples as they were trained
    combine: Callable  # how micro-batches of (logits, labels) become one loss
    model: nn.Module  # as it is served
    tokenizer: PreTrainedTokenizerBase
    losses: list[float] = field(default_factory=list)
    first: list[int] = field(default_factory=list)  # the examples of the first step
    adapter: dict[str, torch.Tensor] = field(default_factory=dict)  # A and B after training
    early: dict[str, torch.Tensor] = field(default_factory=dict)  # and after a few steps
    base: dict[str, torch.Tensor] = field(default_factory=dict)  # the weights they stand beside
    scale: float = ALPHA / R
    text_of: Callable = as_trained  # (tokenizer, question) to the prompt as text

    def prompt(self, question: str) -> list[int]:
        """Return the ids that the served model is given."""
        text = self.text_of(self.tokenizer, question)
        return self.tokenizer.encode(text, add_special_tokens=False)

    def ask(self, questions: Sequence[str], limit: int = LIMIT) -> list[Generation]:
        """Return what the served model answers, greedily."""
        prompts = [self.prompt(question) for question in questions]
        with own_random_state(0):  # nothing should be random here; if it is, the same each time
            return generate(self.model, self.tokenizer, prompts, max_new_tokens=limit)


# --- faults of serving ---------------------------------------------------------------------------
def _copied(run: Run) -> Run:
    return replace(run, model=copy.deepcopy(run.model))


@torch.no_grad()
def merge_without_r(run: Run) -> Run:
    """The adapter is merged with α in place of α/r."""
    run = _copied(run)
    for name, layer in lora_layers(run.model).items():
        layer.base.weight.copy_(merge(layer.base.weight, layer.A, layer.B, layer.alpha, 1))
        run.model.set_submodule(name, layer.base)
    return run


def load_nothing(run: Run) -> Run:
    """The names in the file have a prefix more than the model's, and a loose loader takes none."""
    run = _copied(run)
    for layer in lora_layers(run.model).values():
        nn.init.zeros_(layer.B)
    named = {f"base_model.model.{n}": t for n, t in run.adapter.items()}
    run.model.load_state_dict(named, strict=False)
    return run


def load_early(run: Run) -> Run:
    """A checkpoint from the beginning of the training is served."""
    run = _copied(run)
    run.model.load_state_dict(run.early, strict=False)
    return run


@torch.no_grad()
def apply_twice(run: Run) -> Run:
    """The adapter was merged, and is added once more."""
    run = _copied(run)
    for layer in lora_layers(run.model).values():
        layer.base.weight.add_(layer.scale * (layer.B @ layer.A))
    return run


def another_family(tokenizer, question: str) -> str:
    """Return the prompt in another family's template."""
    served = copy.copy(tokenizer)
    served.chat_template = FAMILIES["inst"]
    return as_trained(served, question)


def without_header(tokenizer, question: str) -> str:
    """Return the prompt without the assistant header that opens the answer."""
    return render(tokenizer, user(question))


def with_system_turn(tokenizer, question: str) -> str:
    """Return the prompt after a system turn, which no training example had."""
    turn = {"role": "system", "content": "You are a helpful assistant."}
    return render(tokenizer, [turn, *user(question)], add_generation_prompt=True)


def merged(run: Run) -> Run:
    """The adapter is merged as it should be."""
    return replace(run, model=merge_lora(copy.deepcopy(run.model)))


def merged_in_16_bits(run: Run) -> Run:
    """The adapter is merged as it should be, and the model is stored in bfloat16."""
    return replace(run, model=cast(merge_lora(copy.deepcopy(run.model)), torch.bfloat16))


# --- the wards -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Kind:
    """What is different about a run. Without arguments: nothing."""

    where: str = ""  # where the fault is; "" for a sound run
    rows: Callable = lambda rows, tokenizer: rows
    training: Mapping = field(default_factory=dict)  # options of ``train``
    drop: Callable | None = None
    combine: Callable = accumulated_loss
    serve: Callable = lambda run: run
    text_of: Callable = as_trained
    other_pairs: bool = False
    seed: int = 0  # added to the seed

    @property
    def trained(self) -> tuple:
        """What sets the training apart; kinds that agree in it can share one."""
        return (
            self.rows,
            tuple(self.training.items()),
            self.drop,
            self.combine,
            self.other_pairs,
            self.seed,
        )


HEALTHY = "sound"
FIRST = {
    HEALTHY: Kind(),
    "prompts trained too": Kind("examples", rows=train_everything),
    "end-of-turn token masked": Kind("examples", rows=mask_the_padding_id),
    "begin token doubled": Kind("examples", rows=begin_twice),
    "labels shifted twice": Kind("examples", rows=shift_labels),
    "answers cut off": Kind("examples", rows=cut_rows),
    "mean of means": Kind("loss", combine=mean_of_means),
    "dropout in evaluation": Kind("adapter", drop=always_drop),
    "merged without r": Kind("serving", serve=merge_without_r),
    "adapter not loaded": Kind("serving", serve=load_nothing),
    "another family's template": Kind("serving", text_of=another_family),
}
SECOND = {
    "sound, another seed": Kind(seed=100),
    "sound, other pairs": Kind(other_pairs=True),
    "sound, merged": Kind(serve=merged),
    "sound, merged in bfloat16": Kind(serve=merged_in_16_bits),
    "prompts trained, answers masked": Kind("examples", rows=invert),
    "another token ends the answer": Kind("examples", rows=end_with_another_token),
    "answers of the next pair": Kind("examples", rows=answers_of_the_next),
    "one pair everywhere": Kind("examples", rows=one_pair),
    "prompts cut at the front": Kind("examples", rows=cut_prompts),
    "divided by all tokens": Kind("loss", combine=over_all_tokens),
    "gradients not cleared": Kind("optimizer", training={"clear": False}),
    "learning rate too low": Kind("optimizer", training={"learning_rate": 1e-3}),
    "half of the adapters frozen": Kind("optimizer", training={"frozen": 0.5}),
    "an early checkpoint": Kind("serving", serve=load_early),
    "adapter applied twice": Kind("serving", serve=apply_twice),
    "no assistant header": Kind("serving", text_of=without_header),
    "a system turn": Kind("serving", text_of=with_system_turn),
}
KINDS = FIRST | SECOND


# What a notebook trains live: enough kinds of each ward.
SHOWN = (HEALTHY, "prompts trained too", "end-of-turn token masked", "labels shifted twice", "mean of means",
         "dropout in evaluation", "merged without r", "adapter not loaded", "another family's template")  # fmt: skip
UNSEEN = ("sound, other pairs", "sound, merged", "sound, merged in bfloat16", "answers of the next pair",
          "an early checkpoint", "adapter applied twice", "no assistant header", "a system turn")  # fmt: skip


def broken(names: Sequence[str]) -> list[str]:
    """Return those of some kinds of run that have a fault."""
    return [name for name in names if KINDS[name].where]


def patient(name: str = "almanac"):
    """Return the base, and its tokenizer with a template that writes the begin token itself.

    Most families' templates do (Llama's, Gemma's), the embedded model's does not.
    """
    model, tokenizer = load(name)
    tokenizer = copy.copy(tokenizer)
    begin = tokenizer.bos_token
    if begin and not render(tokenizer, user("a")).startswith(begin):
        tokenizer.chat_template = f"{{{{ '{begin}' }}}}{tokenizer.chat_template}"
    return model, tokenizer


def pairs(other: bool = False) -> list[dict]:
    """Return the 32 pairs that a run is trained on, or 32 others."""
    return sampled_pairs(32, 7) if other else read_jsonl(INSTRUCTIONS / "handful.jsonl")


def sound_rows(tokenizer, some: Sequence[dict]) -> Rows:
    """Return pairs as examples, tokenized and masked as they should be, in their order."""
    return tokenize_conversations(tokenizer, [conversation(pair) for pair in some]).examples


def adapted(model: nn.Module, seed: int, drop: Callable | None = None) -> nn.Module:
    """Return the model with fresh LoRA layers, and with this dropout, if any, before each adapter."""
    inject_lora(model, "all-linear", R, ALPHA, seed=seed)
    if drop:
        for layer in lora_layers(model).values():
            layer.register_module("dropout", Dropout(drop))
    return model


def adapter_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return copies of the matrices A and B by name."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if n.endswith((".A", ".B"))}


def train(
    run: Run, seed: int, steps: int = STEPS, learning_rate: float = CONFIG.learning_rate,
    clear: bool = True, frozen: float = 0.0,
) -> None:  # fmt: skip
    """Train the run's model on its examples, and note losses and adapter.

    Args:
        clear: whether gradients are set to zero before each step.
        frozen: share of the adapters, the first ones, that are left as they are.
    """
    config = replace(CONFIG, learning_rate=learning_rate)
    layers = lora_layers(run.model)
    for layer in list(layers.values())[: int(frozen * len(layers))]:
        layer.A.requires_grad_(False)
        layer.B.requires_grad_(False)
    parameters = [p for p in lora_parameters(run.model) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    run.base = {n: layer.base.weight.detach().clone() for n, layer in layers.items()}
    rng, order = Random(seed), []
    run.model.train()
    with own_random_state(seed):
        for step in range(steps):
            if len(order) < config.batch_size:
                order = order + rng.sample(range(len(run.rows)), len(run.rows))
            chosen, order = order[: config.batch_size], order[config.batch_size :]
            run.first = run.first or chosen
            optimizer.param_groups[0]["lr"] = config.learning_rate_at(step, STEPS)
            if clear:
                optimizer.zero_grad()
            loss = run.combine(micro_batches(run, [run.rows[i] for i in chosen]))
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, config.max_grad_norm or math.inf)
            optimizer.step()
            run.losses.append(loss.item())
            if step + 1 == EARLY:
                run.early = adapter_of(run.model)
    run.model.eval()
    run.adapter = adapter_of(run.model)


def micro_batches(run: Run, rows: Rows) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return (logits, labels) of micro-batches of one example, cut from a single forward pass."""
    batch = collate(rows, run.tokenizer.pad_token_id or 0)
    labels = batch.pop("labels")
    logits = run.model(**batch, use_cache=False).logits
    return list(zip(logits.split(1), labels.split(1), strict=True))


def trained_as(kind: Kind, seed: int = 0, name: str = "almanac", steps: int = STEPS) -> Run:
    """Return a run of a kind after its training, before it is served."""
    model, tokenizer = patient(name)
    some = pairs(kind.other_pairs)
    rows = kind.rows(sound_rows(tokenizer, some), tokenizer)
    seed += kind.seed
    run = Run(some, rows, kind.combine, adapted(model, seed, kind.drop), tokenizer)
    train(run, seed, steps, **kind.training)
    return run


def served_as(kind: Kind, run: Run) -> Run:
    """Return a trained run as it is served; the run itself stays as it is."""
    return kind.serve(replace(run, text_of=kind.text_of))


def blind(seed: int = 0) -> dict[str, str]:
    """Return letter -> kind of the runs that a notebook examines without their names."""
    return dict(zip("ABCDEFGH", Random(seed).sample(UNSEEN, len(UNSEEN)), strict=True))


def admit(
    names: Sequence[str], seed: int = 0, name: str = "almanac",
    trainings: dict[tuple, Run] | None = None,
) -> dict[str, Run]:  # fmt: skip
    """Return runs by their kinds. Kinds that differ only in the serving share one training.

    Args:
        trainings: runs after training, from earlier calls with the same seed; new ones are added.
    """
    trainings = {} if trainings is None else trainings
    ward = {}
    with ProgressBar(len(names), "runs") as bar:
        for each in names:
            kind = KINDS[each]
            if kind.trained not in trainings:
                trainings[kind.trained] = trained_as(kind, seed, name)
            ward[each] = served_as(kind, trainings[kind.trained])
            bar.update()
        bar.done = f"{len(names)} runs; {len(trainings)} trainings so far"
    return ward
