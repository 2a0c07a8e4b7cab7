"""What is timed: our loop and TRL's SFTTrainer on the same weights, rows, rates and steps.

TRL is given the batches of our plan, in our order, so that all losses can be compared, save where
it is timed as it comes: ``TRL, default`` draws its own order, recomputes activations and runs in
bf16 autocast.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForCausalLM

from sftlab._internal.random_state import own_random_state
from sftlab.almanac.pairs import pairs
from sftlab.data import conversation, tokenize_conversations
from sftlab.lora import inject_lora, lora_layers
from sftlab.masking import Example
from sftlab.memory.plan import config as shape_config
from sftlab.models import load
from sftlab.train import TrainConfig, planned_batches, sft_train

METHODS = ("lora", "full")
RATES = {"lora": 1e-3, "full": 1e-4}
R, ALPHA = 8, 16
BATCH = 8  # rows per step
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Contender:
    """A way to train: in float32, or with the products of the forward pass in bfloat16."""

    name: str
    trl: bool
    bf16: bool = False
    default: bool = False  # TRL as it comes: products in bf16, weights in float32

    def stored(self, method: str) -> str:
        """The dtype of the weights: bf16 only where they are frozen, small steps would be lost."""
        return "bf16" if self.bf16 and method == "lora" and not self.default else "fp32"


CONTENDERS = (
    Contender("ours, fp32", trl=False),
    Contender("TRL tuned, fp32", trl=True),
    Contender("ours, bf16", trl=False, bf16=True),
    Contender("TRL tuned, bf16", trl=True, bf16=True),
    Contender("TRL default", trl=True, bf16=True, default=True),
)


@dataclass(frozen=True)
class Timed:
    """One sitting of one contender: seconds of each step after the first, and all losses."""

    seconds: list[float]
    losses: list[float]


@cache
def rows() -> list[Example]:
    """64 short pairs in the almanac's tokens, whose ids every model here has."""
    _, tokenizer = load("almanac")
    return tokenize_conversations(tokenizer, [conversation(row) for row in pairs(64, 0)]).examples


def plan(method: str, steps: int) -> TrainConfig:
    """A constant rate, no warm-up: TRL's and our schedules are then the same."""
    return TrainConfig(
        learning_rate=RATES[method],
        num_train_epochs=-(-steps * BATCH // len(rows())),
        max_steps=steps,
        batch_size=BATCH,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        precision="fp32",
    )


def fresh(shape: str, stored: str) -> torch.nn.Module:
    """The model with weights drawn from one seed, so that all contenders start alike."""
    with own_random_state(0):
        return AutoModelForCausalLM.from_config(shape_config(shape)).to(DTYPES[stored])


def ready(who: Contender, shape: str, method: str, steps: int) -> Callable[[], Timed]:
    """Build the contender's model once; each call of the result trains for so many steps."""
    return (_trl if who.trl else _ours)(who, shape, method, steps)


def _ours(who: Contender, shape: str, method: str, steps: int) -> Callable[[], Timed]:
    model = fresh(shape, who.stored(method))
    if method == "lora":
        inject_lora(model, "all-linear", r=R, lora_alpha=ALPHA, seed=0)
    settings = plan(method, steps)
    if who.bf16:
        settings = replace(settings, precision="bf16")

    def train() -> Timed:
        clock: list[float] = []
        found = sft_train(model, rows(), settings, 0, lambda *_: clock.append(time.perf_counter()), progress=False)  # fmt: skip
        return Timed(_between(clock[1:]), found.losses)  # the first call comes before the steps

    return train


def _trl(who: Contender, shape: str, method: str, steps: int) -> Callable[[], Timed]:
    # Heavy imports, needed here alone.
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    model = fresh(shape, who.stored(method))
    if method == "lora":
        model = _peft(model, shape)
    settings = plan(method, steps)
    order = [rows()[row] for batch in planned_batches(rows(), settings) for row in batch]
    data = Dataset.from_list(
        [{"input_ids": list(row.input_ids), "labels": list(row.labels)} for row in order]
    )
    _, tokenizer = load("almanac")
    tuned = {} if who.default else {"activation_checkpointing": False, "bf16": who.bf16}

    class Trainer(SFTTrainer):
        def _get_train_sampler(self, *given):
            if who.default:
                return super()._get_train_sampler(*given)
            return SequentialSampler(self.train_dataset)

    class Clock(TrainerCallback):
        def __init__(self):
            self.ends = []

        def on_step_end(self, *given, **named):
            self.ends.append(time.perf_counter())

    def train() -> Timed:
        clock = Clock()
        with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            arguments = SFTConfig(
                output_dir=folder,
                use_cpu=not torch.cuda.is_available(),
                report_to="none",
                disable_tqdm=True,
                per_device_train_batch_size=BATCH,
                max_steps=steps,
                learning_rate=settings.learning_rate,
                lr_scheduler_type="constant",
                warmup_steps=0,
                max_grad_norm=settings.max_grad_norm,
                weight_decay=settings.weight_decay,
                save_strategy="no",
                logging_steps=1,
                dataset_kwargs={"skip_prepare_dataset": True},
                **tuned,
            )
            trainer = Trainer(
                model=model,
                args=arguments,
                train_dataset=data,
                processing_class=tokenizer,
                callbacks=[clock],
            )
            trainer.train()
        logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return Timed(_between(clock.ends), logged)

    return train


def _peft(model: torch.nn.Module, shape: str) -> torch.nn.Module:
    """PEFT's adapters on every linear layer, from our start of A."""
    from peft import LoraConfig, get_peft_model

    wanted = LoraConfig(r=R, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, wanted)
    ours = lora_layers(
        inject_lora(fresh(shape, "fp32"), "all-linear", r=R, lora_alpha=ALPHA, seed=0)
    )
    with torch.no_grad():
        for name, layer in ours.items():
            theirs = model.base_model.model.get_submodule(name)
            theirs.lora_A["default"].weight.copy_(layer.A)
    return model


def _between(ends: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(ends)]
