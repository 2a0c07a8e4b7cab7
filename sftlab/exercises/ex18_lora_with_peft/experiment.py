"""The same number of LoRA parameters on different layers, for two tasks; and on the same layers, other numbers.

``answers``    32 pairs on facts that the base knows, another 32 for every seed. Tested on questions about
               other facts: what is learned is to answer.
``new facts``  the 29 facts that are in no document of the base, each as one question and its answer. Tested
               on the same facts in other words: what is learned is the facts.

Every run uses PEFT, AdamW at a constant learning rate, α = 2r and the largest rank that the budget allows. The
learning rate of an arm is chosen on ``validation``, the result is reported on ``test``: both are losses on
answers, in nats per token, after the last step. ``exact`` is the share of the test questions that are answered
exactly. A seed sets the matrices A, the order and, for answers, the pairs. It takes about forty minutes on
one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice

import torch

from sftlab._internal.random_state import own_random_state
from sftlab.almanac.facts import all_items
from sftlab.almanac.pairs import pairs, row
from sftlab.classroom.peft_compat import peft
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.short_runs import endless_batches, fact_questions
from sftlab.exercises.trade_off import exact_share, examples
from sftlab.memory.count import lora_config_for
from sftlab.models import load
from sftlab.train import train_step

RECORD = "lora_targets"  # data/results/lora_targets.json

SETS = {
    "all linear": "all-linear",
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "q, v": ["q_proj", "v_proj"],
    "q, k": ["q_proj", "k_proj"],
    "MLP": ["gate_proj", "up_proj", "down_proj"],
    "down": ["down_proj"],
}
BUDGET = 81_408  # parameters: rank 4 on all linear layers of the embedded model
LESS, MORE = BUDGET // 4, 3 * BUDGET  # the larger rank on q and v is 63; v has 64 outputs
SEVERAL = ("all linear", "q, v")  # the sets that are trained with all three budgets
ANSWERS, FACTS = "answers", "new facts"
STEPS = {ANSWERS: 24, FACTS: 48}
RATES = {
    ANSWERS: (1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2),
    FACTS: (3.2e-3, 6.4e-3, 1.28e-2, 2.56e-2),
}
FURTHER = {  # learning rates beyond the grid, where its end was best
    (ANSWERS, "down", BUDGET): (8e-4,),
    (FACTS, "q, v", MORE): (8e-4, 1.6e-3),
    (FACTS, "all linear", LESS): (5.12e-2,),
}
BATCH, PAIRS, QUESTIONS, ASKED, SEEDS = 16, 32, 60, 40, 5


@cache
def new_facts(phrasing: int) -> tuple[dict, ...]:
    """Return the facts that are in no document of the base, in one of their phrasings."""
    unread = (item for item in all_items() if item.stratum == "absent")
    return tuple({**row(i, i.questions[phrasing]), "answer": i.answer} for i in unread)


def questions(task: str) -> tuple[tuple[dict, ...], tuple[dict, ...]]:
    """Return what is asked, for validation and for the result."""
    return (new_facts(1), new_facts(2)) if task == FACTS else fact_questions(6, QUESTIONS)


def batches(tokenizer, task: str, seed: int) -> Iterator[dict]:
    """Yield the batches of a task, in an order that depends on the seed."""
    rows = new_facts(0) if task == FACTS else pairs(PAIRS, seed, skills=())
    made = examples(tokenizer, rows)
    yield from islice(endless_batches(made, BATCH, seed, tokenizer.pad_token_id), STEPS[task])


def adapted(model, config, seed: int):
    """Return the model with PEFT's adapters, whose matrices A follow the seed."""
    with own_random_state(seed):
        return peft.get_peft_model(model, config)


def measure(model, tokenizer, task: str) -> dict[str, float]:
    """Return the losses and the share of exact answers of the module docstring."""
    model.eval()
    pad_id, asked = tokenizer.pad_token_id, questions(task)
    losses = [response_nll(model, examples(tokenizer, some), pad_id) for some in asked]
    exact = exact_share(model, tokenizer, asked[1][:ASKED])
    return {"validation": losses[0], "test": losses[1], "exact": exact}


def run(task: str, targets: str, budget: int, learning_rate: float, seed: int) -> dict[str, float]:
    """Train adapters on one set of layers; return their number and the measurements."""
    model, tokenizer = load("almanac")
    config = lora_config_for(model, budget, SETS[targets])
    model = adapted(model, config, seed)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    for batch in batches(tokenizer, task, seed):
        train_step(model, batch, optimizer, max_grad_norm=None)
    size = {"rank": config.r, "trained": sum(p.numel() for p in trained)}
    return size | measure(model, tokenizer, task)


def settings() -> list[dict]:
    """Return all settings: first every set at one budget, then some at others, for new facts."""
    arms = [(targets, BUDGET, task) for targets in SETS for task in STEPS]
    arms += [(targets, budget, FACTS) for targets in SEVERAL for budget in (LESS, MORE)]
    return [
        {"task": task, "targets": targets, "budget": budget, "learning_rate": rate, "seed": seed}
        for targets, budget, task in arms
        for seed in range(SEEDS)
        for rate in (*RATES[task], *FURTHER.get((task, targets, budget), ()))
    ]
