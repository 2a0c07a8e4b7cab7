"""Two of the workbook's experiments on real models: 4 bits, and first pairs.

``qlora``      notebook 21: an adapter on a base model in 4 bits and on the same model in 16 bits:
               loss on held-out responses, gradients before and after an answer, logits after
               reloading
``first``      notebook 13: the base of Gemma 3 270M before any fine-tuning, and after 32 or 64
               pairs in 24 steps, in Gemma's template; also its continuations of bare instructions

Base models and products are in bfloat16, adapters (r = 8, α = 16, all linear layers) in float32.
SmolLM2 is fine-tuned with plain ChatML, without the system turn that its own template adds. Fetch
the models first (``python -m sftlab fetch smollm2-instruct``, and ``gemma3-270m``); they are 4-bit
reconstructions of the published ones. This takes about twenty minutes on two cores, half a minute
to two minutes per measurement. It can be stopped and resumed.
"""

from __future__ import annotations

from random import Random
from tempfile import TemporaryDirectory

import torch

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.adapters import load_adapter, save_adapter
from sftlab.almanac.pairs import pairs
from sftlab.chat import CHATML
from sftlab.data import collate, conversation, read_jsonl, tokenize_conversations
from sftlab.exercises.recipes import response_nll
from sftlab.fetch import PACKAGES
from sftlab.generate import answer, generate
from sftlab.lora import inject_lora, lora_parameters
from sftlab.loss import model_loss
from sftlab.memory.count import memory_report
from sftlab.models import load
from sftlab.quantized_layers import quantize_model_linears
from sftlab.scoring import RUBRIC, behaviour, score_answer
from sftlab.train import TrainConfig, sft_train

RECORD = "real_models"  # data/results/real_models.json

SMOL, GEMMA, EMBEDDED = "smollm2-instruct", "gemma3-270m", "almanac"
SEEDS = {"first": 1, "qlora": 1}
QUESTIONS = 60  # held-out questions for the loss
# Learning rate, epochs of 32 pairs, batch size: as in notebook 13, and suited to 135 million
# weights.
RECIPES = {EMBEDDED: (3e-3, 12, 16), SMOL: (1e-3, 3, 8), GEMMA: (1e-3, 6, 8)}


def base(name: str):
    """Load a base model in bfloat16 and its tokenizer, with plain ChatML for SmolLM2."""
    model, tokenizer = load(name, dtype=torch.bfloat16)
    if name == SMOL:
        tokenizer.chat_template = CHATML
    return model, tokenizer


def tune(model, tokenizer, rows: list[dict], rate: float, seed: int, **settings) -> list[float]:
    """Add adapters to the model and train them on the rows; return the losses."""
    inject_lora(model, "all-linear", r=8, lora_alpha=16, seed=seed)
    examples = tokenize_conversations(tokenizer, [conversation(row) for row in rows]).examples
    config = TrainConfig(learning_rate=rate, seed=seed, precision="bf16", **settings)
    history = sft_train(model, examples, config, tokenizer.pad_token_id, progress=False)
    if not history.finished:
        raise KeyboardInterrupt  # an incomplete run is not measured
    return history.losses


def questions() -> list[dict]:
    """Return held-out questions, the same for every run; their subjects are in no pair."""
    return Random(0).sample(read_jsonl(INSTRUCTIONS / "heldout.jsonl"), QUESTIONS)


def four_bits(model: str, stored: str, seed: int) -> dict:
    """Fine-tune on 32 pairs over a base model in "nf4" or "bf16"; run the tests of notebook 21."""
    rate, epochs, batch_size = RECIPES[model]
    network, tokenizer = base(model)
    before = memory_report(network)
    if stored == "nf4":
        quantize_model_linears(network)
    after = memory_report(network)
    rows = tokenize_conversations(
        tokenizer, [conversation(question) for question in questions()]
    ).examples
    untuned = response_nll(network, rows, tokenizer.pad_token_id, batch_size=10)
    losses = tune(network, tokenizer, pairs(32, seed), rate, seed, num_train_epochs=epochs, batch_size=batch_size)  # fmt: skip
    batch = collate(rows[:4], tokenizer.pad_token_id)

    def gradients() -> list[torch.Tensor]:
        network.train()
        network.zero_grad()
        model_loss(network, batch)[0].backward()
        network.eval()
        return [p.grad.clone() for p in lora_parameters(network)]

    earlier = gradients()
    (reply,) = answer(network, tokenizer, ["What is the capital of Kenya?"], max_new_tokens=20)
    same = [torch.equal(a, b) for a, b in zip(earlier, gradients(), strict=True)]
    with TemporaryDirectory() as folder:
        save_adapter(network, folder)
        again, _ = base(model)
        if stored == "nf4":
            quantize_model_linears(again)
        load_adapter(again, folder)
    ids = batch["input_ids"]
    with torch.inference_mode():
        equal = torch.equal(network(ids).logits, again.eval()(ids).logits)
    return {
        "nll": response_nll(network, rows, tokenizer.pad_token_id, batch_size=10),
        "untuned": untuned,
        "losses": losses,
        "bytes": {kind: [before[kind][1], after[kind][1]] for kind in ("linear", "whole")},
        "gradients_kept": all(same) and all(g.abs().max() > 0 for g in earlier),
        "logits_kept": equal,
        "answer": reply.text,
    }


def first_pairs(model: str, count: int, seed: int) -> dict:
    """Fine-tune a base model on ``count`` pairs (0 for none) and test it on held-out questions."""
    rate, epochs, batch_size = RECIPES[model]
    network, tokenizer = base(model)
    asked = questions()
    prompts = [question["prompt"] for question in asked]
    found: dict = {}
    if not count:
        bare = [g.text for g in generate(network, tokenizer, prompts, max_new_tokens=32)]
        does = [
            behaviour(t, q["answer"], q.get("value", "")) for q, t in zip(asked, bare, strict=True)
        ]
        found["bare"] = {what: does.count(what) for what in ("answered", "continued", "stopped")}
        found["bare_answers"] = bare[:6]
    else:
        epochs = epochs * 32 // count  # the same number of steps
        rows = pairs(count, seed)
        found["losses"] = tune(
            network, tokenizer, rows, rate, seed, num_train_epochs=epochs, batch_size=batch_size
        )
    written = answer(network, tokenizer, prompts, max_new_tokens=40)
    scores = [score_answer(q, g.text, g.stopped) for q, g in zip(asked, written, strict=True)]
    return {
        **found,
        **{line: "".join(str(int(getattr(s, line))) for s in scores) for line in RUBRIC},
        "answers": [g.text for g in written],
    }


KINDS = {
    "qlora": four_bits,
    "first": first_pairs,
}


def run(kind: str, model: str, **chosen) -> dict:
    """Run one measurement; ``chosen`` are its other settings."""
    found = KINDS[kind](model, **chosen)
    return found | ({"weights": PACKAGES[model].member_sha256[:16]} if model in PACKAGES else {})


def settings() -> list[dict]:
    """Return the settings of all runs, the fast ones first."""
    found = [{"kind": "first", "model": m, "count": 0, "seed": 0} for m in (EMBEDDED, GEMMA)]
    found += [
        {"kind": "first", "model": m, "count": count, "seed": seed}
        for seed in range(SEEDS["first"])
        for m in (EMBEDDED, GEMMA)
        for count in (32, 64)
    ]
    found += [
        {"kind": "qlora", "model": m, "stored": stored, "seed": seed}
        for seed in range(SEEDS["qlora"])
        for m in (EMBEDDED, SMOL)
        for stored in ("nf4", "bf16")
    ]
    return found
