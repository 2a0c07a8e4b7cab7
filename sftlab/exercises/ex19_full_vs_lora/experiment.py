"""Full fine-tuning against LoRA: memory, time, bytes on disk, and what SmolLM2 learns.

``memory``  two steps in a new process: the peak and all parts, with random weights
``malloc``  the peak again, with glibc's malloc left unchanged
``time``    seconds per step of all variants, interleaved, the fastest of several rounds
``disk``    bytes of the saved file
``score``   SmolLM2-135M-Instruct tuned on 32 pairs, 12 steps of 8 examples: loss on the responses
            to 60 held-out questions, in nats per token. Learning rates half a decade apart with
            seed 0; the best of each method, ``BEST``, with further seeds. ``none`` is the model
            before tuning. Plain ChatML, without the system turn that the model's own template adds

LoRA has r = 8, α = 16, on all linear layers. Fetch the model for ``score`` first: ``python -m
sftlab fetch smollm2-instruct``. This takes about twelve minutes on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_model

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.adapters import save_adapter
from sftlab.almanac.pairs import pairs
from sftlab.chat import CHATML
from sftlab.data import conversation, read_jsonl, tokenize_conversations
from sftlab.exercises.recipes import response_nll
from sftlab.fetch import PACKAGES
from sftlab.lora import inject_lora
from sftlab.memory.measure import a_batch, in_a_fresh_process
from sftlab.memory.plan import Run, build
from sftlab.models import load
from sftlab.train import TrainConfig, sft_train, train_step

RECORD = "full_vs_lora"  # data/results/full_vs_lora.json

R = 8
METHODS = ("full", "lora")
REAL, SHAPE, EMBEDDED = "smollm2-instruct", "smollm2-135m", "almanac"
BATCHES = {  # (batch, length); the first of each is used for timing
    EMBEDDED: ((16, 64),),
    SHAPE: ((4, 64), (1, 64), (4, 256)),
}
RATES = {"full": (3e-5, 1e-4, 3e-4), "lora": (3e-4, 1e-3, 3e-3, 1e-2)}
BEST = {"full": 1e-4, "lora": 3e-3}  # the best of these with seed 0
SEEDS = 3
PAIRS, EPOCHS, BATCH, QUESTIONS = 32, 3, 8, 60
ROUNDS = 6


def a_run(shape: str, method: str, batch: int, length: int, recompute: bool = False) -> Run:
    """Return a run to plan and measure; the second half of each sequence is trained."""
    r = R if method == "lora" else None
    return Run(shape, batch, length, length // 2, r=r, recompute=recompute)


def variants(shape: str) -> dict[str, Run]:
    """Return both methods, with and without recomputation, on the first batch of the shape."""
    batch, length = BATCHES[shape][0]
    return {
        method + (", recomputed" if recompute else ""): a_run(
            shape, method, batch, length, recompute
        )
        for recompute in (False, True)
        for method in METHODS
    }


def step_seconds(runs: Mapping[str, Run], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the seconds of one optimizer step of each run: the fastest of ``rounds`` rounds.

    In every round each run takes one step, so that other load on the machine affects all of them.
    Compare the ratios within one call, not numbers from different calls.
    """
    ready = {}
    for name, run in runs.items():
        model = build(run)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
        ready[name] = model, a_batch(run, model.config.vocab_size), optimizer
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, step in ready.items():
            began = time.perf_counter()
            train_step(*step)
            if turn:  # the first round is a warm-up
                best[name] = min(best[name], time.perf_counter() - began)
    return best


def saved_bytes(shape: str, method: str) -> int:
    """Return the bytes of the weight file to keep after training, in float32."""
    model = build(a_run(shape, method, 1, 4))
    with TemporaryDirectory() as folder:
        if method == "full":
            save_model(model, str(Path(folder) / "model.safetensors"))
        else:
            save_adapter(model, folder)
        return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def tune_and_score(method: str, rate: float, seed: int) -> dict:
    """Tune SmolLM2-135M-Instruct on the seed's pairs; return the loss on held-out responses."""
    model, tokenizer = load(REAL)
    tokenizer.chat_template = CHATML
    losses = []
    if method != "none":
        if method == "lora":
            inject_lora(model, "all-linear", r=R, lora_alpha=2 * R, seed=seed)
        rows = tokenize_conversations(
            tokenizer, [conversation(row) for row in pairs(PAIRS, seed)]
        ).examples
        config = TrainConfig(
            learning_rate=rate,
            num_train_epochs=EPOCHS,
            batch_size=BATCH,
            seed=seed,
            precision="fp32",
        )
        history = sft_train(model, rows, config, tokenizer.pad_token_id, progress=False)
        if not history.finished:
            raise KeyboardInterrupt  # an incomplete run is not measured
        losses = history.losses
    asked = Random(0).sample(read_jsonl(INSTRUCTIONS / "heldout.jsonl"), QUESTIONS)
    rows = tokenize_conversations(
        tokenizer, [conversation(question) for question in asked]
    ).examples
    return {
        "nll": response_nll(model, rows, tokenizer.pad_token_id, batch_size=10),
        "losses": losses,
        "weights": PACKAGES[REAL].member_sha256[:16],
    }


# The run to repeat when the code has changed. The memory of a process varies by some percent
# between recordings; bytes on disk do not. (A test compares the planned tensors with the record.)
CONFIRM = {"kind": "disk", "shape": "almanac", "method": "lora"}


def run(kind: str, **chosen) -> dict:
    """Run one measurement; ``chosen`` are its other settings."""
    if kind == "memory":
        return in_a_fresh_process(a_run(**chosen))
    if kind == "malloc":
        run = variants(chosen["shape"])[chosen["method"]]
        return {"process": in_a_fresh_process(run, fixed_threshold=False)["process"]}
    if kind == "time":
        seconds = step_seconds(variants(chosen["shape"]))
        batch, length = BATCHES[chosen["shape"]][0]
        return {"seconds": seconds, "tokens": batch * length}
    if kind == "disk":
        return {"bytes": saved_bytes(**chosen)}
    return tune_and_score(**chosen)


def settings() -> list[dict]:
    """Return the settings of all runs by kind."""
    memory = [
        {"shape": shape, "method": method, "batch": b, "length": n, "recompute": recompute}
        for shape, batches in BATCHES.items()
        for b, n in batches
        for recompute in ((False, True) if (b, n) in (batches[0], batches[-1]) else (False,))
        for method in METHODS
    ]
    shapes = [{"shape": shape} for shape in BATCHES]
    disk = [{**shape, "method": method} for shape in shapes for method in METHODS]
    score = [{"method": "none", "rate": 0.0, "seed": 0}]
    score += [{"method": m, "rate": rate, "seed": 0} for m in METHODS for rate in RATES[m]]
    score += [{"method": m, "rate": BEST[m], "seed": s} for s in range(1, SEEDS) for m in METHODS]
    malloc = [{"shape": SHAPE, "method": method} for method in METHODS]
    kinds = {"memory": memory, "malloc": malloc, "time": shapes, "disk": disk, "score": score}
    return [{"kind": kind, **chosen} for kind, listed in kinds.items() for chosen in listed]
