"""Full fine-tuning against LoRA: memory of a training step, time, and bytes on disk.

``memory``  two steps in a new process: its peak and all parts, with random weights; five processes
            for SmolLM2's two lengths
``time``    seconds per step of all variants, interleaved, the fastest of several rounds
``disk``    bytes of the saved file

LoRA has r = 8, α = 16, on all linear layers. This takes about eight minutes on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_model

from sftlab.adapters import save_adapter
from sftlab.memory.count import TrainingBytes
from sftlab.memory.measure import a_batch, in_a_fresh_process, measure_training_bytes
from sftlab.memory.plan import Run, build, plan
from sftlab.memory.plan import config as plan_config
from sftlab.train import train_step

RECORD = "full_vs_lora"  # data/results/full_vs_lora.json

R = 8
METHODS = ("full", "lora")
SHAPE, EMBEDDED = "smollm2-135m", "almanac"
BATCHES = {  # (batch, length); the first of each is used for timing
    EMBEDDED: ((16, 64),),
    SHAPE: ((4, 64), (4, 256)),
}
PROCESSES = 5
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


FEW = {  # so few trained tokens that the logits no longer decide
    f"{name}, 4 trained tokens": replace(run, trained_per_row=4)
    for name, run in variants(EMBEDDED).items()
    if run.recompute
}


def seven_sizes(run: Run) -> tuple[int, ...]:
    """Return the arguments of ``peak_training_bytes``: bytes computed from the run's shapes."""
    parts, shape = plan(run), plan_config(run.shape)
    tokens, width = run.batch * run.length, shape.intermediate_size
    logits = 4 * run.batch * run.trained_per_row * shape.vocab_size
    in_flight = 4 * 2 * tokens * width
    if run.recompute:  # one layer's activations are made again
        spared = plan(replace(run, recompute=False)).activations - parts.activations
        in_flight += spared // shape.num_hidden_layers + 4 * tokens * shape.hidden_size
    largest = 4 * (R * width if run.r else shape.vocab_size * shape.hidden_size)
    held = parts.weights + parts.adapters, parts.gradients, parts.optimizer, parts.activations
    return *held, logits, in_flight, largest


def counted(run: Run) -> TrainingBytes:
    """Return the bytes of each part after a real step of AdamW, and of its peak."""
    model = build(run)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    return measure_training_bytes(model, optimizer, a_batch(run, model.config.vocab_size))


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


# The run to repeat when the code has changed. The memory of a process varies by some percent
# between recordings; bytes on disk do not. (A test compares the planned tensors with the record.)
CONFIRM = {"kind": "disk", "shape": "almanac", "method": "lora"}


def run(kind: str, number: int = 0, **chosen) -> dict:
    """Run one measurement; ``chosen`` are its other settings, ``number`` tells repetitions apart."""
    if kind == "memory":
        return in_a_fresh_process(a_run(**chosen))
    if kind == "time":
        seconds = step_seconds(variants(chosen["shape"]))
        batch, length = BATCHES[chosen["shape"]][0]
        return {"seconds": seconds, "tokens": batch * length}
    return {"bytes": saved_bytes(**chosen)}


def settings() -> list[dict]:
    """Return the settings of all runs by kind."""
    memory = [
        {"shape": shape, "method": method, "batch": b, "length": n, "recompute": again, "number": k}
        for k in range(PROCESSES)
        for shape, batches in BATCHES.items()
        for b, n in batches
        for again in (False, True)
        for method in METHODS
        if k == 0 or (shape == SHAPE and not again)
    ]
    shapes = [{"shape": shape} for shape in BATCHES]
    disk = [{**shape, "method": method} for shape in shapes for method in METHODS]
    kinds = {"memory": memory, "time": shapes, "disk": disk}
    return [{"kind": kind, **chosen} for kind, listed in kinds.items() for chosen in listed]
