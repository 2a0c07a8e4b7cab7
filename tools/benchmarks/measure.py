"""The measurements of `make bench`, as an experiment has them: settings, and one run for each.

``steps``     all contenders in turn, some sittings each: seconds per step, and their losses
``limit``     the rate of matrix products in the model's shapes, and the share that a step reaches
``profile``   where the time of a step goes
``memory``    the peak of a contender's process over its level before the model was built
``decode``    tokens per second: `sftlab.generate` and transformers' ``generate()``, in turn
``scaling``   seconds of our LoRA step over rows and tokens per row
``packing``   our LoRA step on padded, length-sorted and packed examples, in turn: tokens per second
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from statistics import median

import torch

from sftlab.data import collate
from sftlab.errors import WorkbookError
from sftlab.exercises.ex24_packing import costs
from sftlab.lora import inject_lora
from sftlab.loss import IGNORE_INDEX
from sftlab.memory.measure import FIXED_THRESHOLD, a_batch, process_bytes, process_peak_bytes
from sftlab.memory.plan import Run, build
from sftlab.models import load
from sftlab.packing import collate_packed
from sftlab.train import planned_batches, train_step
from tools.benchmarks.contenders import (
    ALPHA,
    BATCH,
    CONTENDERS,
    METHODS,
    R,
    fresh,
    plan,
    ready,
    rows,
)
from tools.benchmarks.limit import linear_shapes, operations_of_steps, product_rate
from tools.benchmarks.profile import shares

SHAPES = ("smollm2-135m", "almanac")
SITTINGS = 5
STEPS = {"smollm2-135m": 4, "almanac": 24}  # of a sitting; the first of each is not timed
SETS = {"short": costs.short, "mixed": costs.mixed}
# Padded mixed examples would need 7 GB of activations on SmolLM2.
LAYOUTS = ((SHAPES[0], "short"), (SHAPES[1], "short"), (SHAPES[1], "mixed"))
PACKED_EXAMPLES, PACKED_SITTINGS = {"smollm2-135m": 16, "almanac": 48}, 3
NEW_TOKENS, PROMPTS = 32, (1, 16, 64)
SCALING = {"smollm2-135m": (((8, 32), (8, 64), (8, 128), (8, 256)), ((1, 64), (2, 64), (4, 64), (16, 64)))}  # fmt: skip


def settings() -> list[dict]:
    """In the order in which they are run."""
    found = [{"kind": "steps", "shape": s, "method": m} for s in SHAPES for m in METHODS]
    found += [
        {"kind": "limit", "shape": s, "method": m, "name": name}
        for s in SHAPES
        for m in METHODS
        for name in ("ours, fp32", "ours, bf16")
    ]
    found += [
        {"kind": "profile", "method": m, "name": name}
        for m in METHODS
        for name in ("ours, fp32", "ours, bf16")
    ]
    found += [
        {"kind": "memory", "shape": SHAPES[0], "method": m, "name": who.name}
        for m in METHODS
        for who in CONTENDERS
    ]
    found += [{"kind": "decode", "shape": s} for s in SHAPES]
    found += [
        {"kind": "scaling", "shape": shape, "batch": b, "length": n}
        for shape, grids in SCALING.items()
        for grid in grids
        for b, n in grid
    ]
    found += [{"kind": "packing", "shape": shape, "lengths": name} for shape, name in LAYOUTS]
    return found


def run(kind: str, **chosen) -> dict:
    """One measurement."""
    return {
        "steps": steps,
        "limit": limit,
        "profile": profile,
        "memory": memory,
        "decode": decode,
        "scaling": scaling,
        "packing": packing,
    }[kind](**chosen)


def steps(shape: str, method: str) -> dict:
    """Every contender in turn, sitting by sitting: all its step times, and its first losses."""
    trainers = {who.name: ready(who, shape, method, STEPS[shape]) for who in CONTENDERS}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    losses: dict[str, list[float]] = {}
    for _ in range(SITTINGS):
        for name, train in trainers.items():
            timed = train()
            seconds[name].append(sum(timed.seconds) / len(timed.seconds))
            losses.setdefault(name, timed.losses)  # of the first sitting, from the common start
    batches = planned_batches(rows(), plan(method, STEPS[shape]))[1:]
    kept = [collate([rows()[row] for row in batch], 0) for batch in batches]
    return {
        "seconds": seconds,
        "losses": losses,
        "tokens": sum(int(b["attention_mask"].sum()) for b in kept) / len(kept),
        "trained": sum(int((b["labels"] != IGNORE_INDEX).sum()) for b in kept) / len(kept),
    }


def limit(shape: str, method: str, name: str) -> dict:
    """The rate of the products alone, and of the products of whole steps, interleaved."""
    model, optimizer, precision, batches = _plain(shape, method, name)
    shapes = linear_shapes(model)
    operations = sum(operations_of_steps(model, batches))
    tokens = round(sum(b["input_ids"].numel() for b in batches) / len(batches))
    rates, reached = [], []
    for turn in range(SITTINGS + 1):
        rates.append(product_rate(shapes, tokens, precision))
        began = time.perf_counter()
        for batch in batches:
            train_step(model, batch, optimizer, precision=precision)
        if turn:  # the first one warms up
            reached.append(operations / (time.perf_counter() - began))
    return {"limit": median(rates), "reached": median(reached), "operations": operations}


def _plain(shape: str, method: str, name: str) -> tuple:
    """Model, optimiser, precision and two batches of one of ours, for steps without the trainer."""
    who = next(who for who in CONTENDERS if who.name == name)
    model = fresh(shape, who.stored(method)).train()
    if method == "lora":
        inject_lora(model, "all-linear", r=R, lora_alpha=ALPHA, seed=0)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True
    )
    chosen = planned_batches(rows(), plan(method, 2))
    batches = [collate([rows()[row] for row in batch], 0) for batch in chosen]
    return model, optimizer, "bf16" if who.bf16 else "fp32", batches


def profile(method: str, name: str) -> dict:
    """Where the time of a step on SmolLM2's shapes goes; the first step warms up."""
    model, optimizer, precision, batches = _plain(SHAPES[0], method, name)
    train_step(model, batches[0], optimizer, precision=precision)
    return shares(lambda: train_step(model, batches[1], optimizer, precision=precision), R)


def memory(shape: str, method: str, name: str) -> dict:
    """The peak of a process of its own, in bytes over its level with everything imported."""
    command = [sys.executable, "-m", "tools.benchmarks.measure", json.dumps([shape, method, name])]
    environment = {**os.environ, **FIXED_THRESHOLD}
    done = subprocess.run(
        command, env=environment, capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        raise WorkbookError(f"measuring {name} on {shape} failed: {done.stderr.strip()[-300:]}")
    return {"bytes": json.loads(done.stdout.splitlines()[-1])}


def decode(shape: str) -> dict:
    """Tokens per second of both ways of decoding, greedily, no stop, for batches of several sizes."""
    from sftlab.generate import generate

    model = fresh(shape, "fp32").eval()
    _, tokenizer = load("almanac")
    tokenizer.eos_token = tokenizer.bos_token = tokenizer.chat_template = None  # nothing stops
    prompts = [list(row.input_ids[:16]) for row in rows()]
    found: dict[str, dict[str, float]] = {"ours": {}, "transformers": {}}
    for count in PROMPTS:
        ids = torch.tensor([(p * 16)[:16] for p in prompts[:count]])

        def ours(ids=ids):
            return generate(model, tokenizer, ids.tolist(), max_new_tokens=NEW_TOKENS)

        def theirs(ids=ids):
            mask = torch.ones_like(ids)
            return model.generate(
                ids, attention_mask=mask, do_sample=False, pad_token_id=0,
                min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS,
            )  # fmt: skip

        taken: dict[str, list[float]] = {"ours": [], "transformers": []}
        for turn in range(SITTINGS):
            for name, way in (("ours", ours), ("transformers", theirs)):
                began = time.perf_counter()
                way()
                if turn:
                    taken[name].append(time.perf_counter() - began)
        for name, times in taken.items():
            found[name][str(count)] = count * NEW_TOKENS / median(times)
    return found


def scaling(shape: str, batch: int, length: int) -> dict:
    """The median of some steps on rows of one length, half of each trained."""
    run = Run(shape, batch, length, length // 2, r=R)
    model = build(run)
    made = a_batch(run, model.config.vocab_size)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True
    )
    taken = []
    for turn in range(4):
        began = time.perf_counter()
        train_step(model, made, optimizer)
        if turn:
            taken.append(time.perf_counter() - began)
    return {"seconds": median(taken)}


def packing(shape: str, lengths: str) -> dict:
    """Tokens per second of steps on the same examples, padded, sorted by length and packed, in turn."""
    model = fresh(shape, "fp32").train()
    inject_lora(model, "all-linear", r=R, lora_alpha=ALPHA, seed=0)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True
    )
    examples = SETS[lengths](load("almanac")[1], PACKED_EXAMPLES[shape])
    batches: dict[str, list[dict]] = {}
    for way in costs.WAYS:
        order = sorted(examples, key=len) if way == costs.SORTED else examples
        steps = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        if way == costs.PACKED:
            batches[way] = [collate_packed(step, costs.SIZE, 0) for step in steps]
        else:
            batches[way] = [collate(step, 0) for step in steps]
    train_step(model, batches[costs.PACKED][0], optimizer)  # warms up
    rates: dict[str, list[float]] = {way: [] for way in costs.WAYS}
    for _ in range(PACKED_SITTINGS):
        for way, each in batches.items():
            began = time.perf_counter()
            for batch in each:
                train_step(model, batch, optimizer)
            tokens = sum(example.end for example in examples)
            rates[way].append(tokens / (time.perf_counter() - began))
    return {"rates": rates}


def main() -> int:
    """The peak of one contender in this process, on stdout as JSON."""
    shape, method, name = json.loads(sys.argv[1])
    who = next(who for who in CONTENDERS if who.name == name)
    ready(who, "almanac", method, 2)()  # libraries and threads are not the model's
    level = process_bytes()
    ready(who, shape, method, 2)()
    print(json.dumps(process_peak_bytes() - level))
    return 0


if __name__ == "__main__":
    sys.exit(main())
