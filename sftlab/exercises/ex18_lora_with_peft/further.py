"""Further runs on the new facts: what the five seeds of ``experiment`` left open, and the trained wording.

``fresh seeds``  ``down`` and all linear layers once more, with ten seeds that were drawn after the five others.
                 ``down`` had been picked as the best of five sets, so these ten alone compare it.
``lower rate``   all linear layers with three times the budget were best at the lowest learning rate of the grid.
``wordings``     four sets at their learning rates, measured on the trained wording, too.

Training is that of ``experiment.run``, and so are ``validation``, ``test`` and ``exact``: wordings that were not
trained. All further measurements have a wording in their name, ``trained`` or ``test``:

``trained wording``                    loss on the answers, in nats per token
``trained exact``                      share of the questions that are answered exactly
``trained values``, ``test values``    loss on the tokens of the value alone: of "The capital of Nigeria is Abuja."
                                       these are the tokens of "Abuja"

It takes about ten minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from sftlab.chat import render
from sftlab.data import conversation
from sftlab.exercises.ex18_lora_with_peft.experiment import (
    BUDGET,
    FACTS,
    MORE,
    SEEDS,
    SETS,
    adapted,
    batches,
    measure,
    new_facts,
)
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.trade_off import exact_share, examples
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.memory.count import lora_config_for
from sftlab.models import load
from sftlab.train import train_step

RECORD = "lora_targets_further"  # data/results/lora_targets_further.json

FRESH, LOWER, WORDINGS = "fresh seeds", "lower rate", "wordings"
FRESH_SEEDS = range(SEEDS, SEEDS + 10)
FRESH_RATES = {"all linear": (6.4e-3, 1.28e-2), "down": (6.4e-3, 1.28e-2, 2.56e-2)}
TUNED = {
    "all linear": 6.4e-3,
    "q, v": 6.4e-3,
    "MLP": 1.28e-2,
    "down": 1.28e-2,
}  # of the first seeds


def value_examples(tokenizer, rows: Iterable[dict]) -> list[Example]:
    """Return the rows as examples in which only the tokens of the value have a label."""
    found = []
    for row in rows:
        text = render(tokenizer, conversation(row))
        start = text.rindex(row["response"]) + row["response"].rindex(row["value"])
        stop = start + len(row["value"])
        told = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids, spans = told["input_ids"], told["offset_mapping"]
        within = [begin < stop and end > start for begin, end in spans]
        labels = [i if kept else IGNORE_INDEX for i, kept in zip(ids, within, strict=True)]
        found.append(Example(ids, labels))
    return found


def trained_on_facts(targets: str, budget: int, learning_rate: float, seed: int):
    """Return the base after training on the new facts, as in ``experiment.run``, and its tokenizer."""
    model, tokenizer = load("almanac")
    model = adapted(model, lora_config_for(model, budget, SETS[targets]), seed)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    for batch in batches(tokenizer, FACTS, seed):
        train_step(model, batch, optimizer, max_grad_norm=None)
    return model, tokenizer


def by_wording(model, tokenizer) -> dict[str, float]:
    """Return the measurements of the module docstring."""
    model.eval()
    trained, test = new_facts(0), new_facts(2)
    told = {
        "trained wording": examples(tokenizer, trained),
        "trained values": value_examples(tokenizer, trained),
        "test values": value_examples(tokenizer, test),
    }
    found = {name: response_nll(model, some, tokenizer.pad_token_id) for name, some in told.items()}
    return found | {"trained exact": exact_share(model, tokenizer, trained)}


def run(
    part: str, task: str, targets: str, budget: int, learning_rate: float, seed: int
) -> dict[str, float]:
    """Train adapters on one set of layers; return their number and all measurements.

    part, task: name the run; the task is always that of the new facts.
    """
    model, tokenizer = trained_on_facts(targets, budget, learning_rate, seed)
    layers = model.peft_config["default"]
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    measured = measure(model, tokenizer, FACTS) | by_wording(model, tokenizer)
    return {"rank": layers.r, "trained": count} | measured


def settings() -> list[dict]:
    """Return all settings, part by part."""
    arms = [(WORDINGS, name, BUDGET, rate, range(SEEDS)) for name, rate in TUNED.items()]
    arms += [(LOWER, "all linear", MORE, 1.6e-3, range(SEEDS))]
    arms += [
        (FRESH, name, BUDGET, rate, FRESH_SEEDS)
        for name, rates in FRESH_RATES.items()
        for rate in rates
    ]
    return [
        {"part": part, "task": FACTS, "targets": name, "budget": budget, "learning_rate": rate, "seed": seed}
        for part, name, budget, rate, seeds in arms
        for seed in seeds
    ]  # fmt: skip
