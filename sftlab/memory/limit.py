"""A model of 1.2 billion weights in a process that may hold 2 GB: 16 bits do not fit, 4 bits train.

python -m sftlab.memory.limit '{"shape": "llama-3.2-1b", "weights": "nf4", "r": 8}' 2000000000

The weights are random, and come layer by layer: each is packed before the next one is there.
The limit is the operating system's (RLIMIT_DATA): it counts what a process writes, not the
libraries that it maps.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora, lora_parameters
from sftlab.memory.measure import (
    FIXED_THRESHOLD,
    a_batch,
    process_bytes,
    process_peak_bytes,
    written_bytes,
)
from sftlab.memory.plan import WEIGHTS, Run, config
from sftlab.quantized_layers import quantize_model_linears
from sftlab.train import train_step

ALLOWED = 2_000_000_000  # bytes beyond what the process holds when all libraries are loaded
STEPS, RATE = 2, 1e-3
PATIENCE = 120  # seconds; a processor with bfloat16 products needs 20


def example(weights: str) -> Run:
    """What notebook 21 attempts: the shape of Llama 3.2 1B, one row of 32 tokens, LoRA of rank 8."""
    return Run("llama-3.2-1b", batch=1, length=32, trained_per_row=16, r=8, weights=weights)


def build_by_layer(run: Run) -> PreTrainedModel:
    """The model of a run with random weights; "nf4" packs each layer before the next is there.

    All layers are copies of one: drawing a billion numbers takes half a minute, and memory does not
    care which numbers it holds.

    Raises:
        WorkbookError: the memory does not suffice; with the layer at which it ended.
    """
    model = _on_meta(run)
    layers = model.model.layers
    with _room("the embedding"):
        _fill(model.model.embed_tokens)
        _fill(model.model.norm)
    for number in range(len(layers)):
        with _room(f"layer {number + 1} of {len(layers)}"):
            if number == 0:
                _fill(layers[0])
                if run.weights == "nf4":
                    quantize_model_linears(layers[0])
            else:
                layers[number] = copy.deepcopy(layers[0])
                layers[number].self_attn.layer_idx = number
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)  # was on meta as well
    model.tie_weights()
    return model


def _fill(part: nn.Module) -> None:
    """Real memory for a part of the model on meta, with numbers as at the start of a pretraining."""
    part.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for weight in part.parameters():
        norm = weight.dim() == 1
        weight.data.fill_(1) if norm else weight.data.normal_(0, 0.02, generator=generator)


def _on_meta(run: Run) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config(run.shape), dtype=WEIGHTS[run.weights])


@contextmanager
def _room(what: str) -> Iterator[None]:
    """Turn the allocator's complaint into a sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise WorkbookError(f"no room for {what}: the system grants no more memory") from error


def train(model: PreTrainedModel, run: Run, steps: int) -> list[float]:
    """Put LoRA on the model and train on one batch of random tokens; the loss before each step."""
    assert run.r is not None  # without adapters there is nothing to attempt
    with _room("a training step"):
        inject_lora(model, run.targets, r=run.r, lora_alpha=2 * run.r, seed=0).train()
        batch = a_batch(run, model.config.vocab_size)
        optimizer = torch.optim.AdamW(lora_parameters(model), lr=RATE, weight_decay=0.0)
        return [train_step(model, batch, optimizer) for _ in range(steps)]


def attempt(run: Run, allowed: int) -> dict:
    """Load and train under the limit, in this process, which stays limited.

    Returns:
        ``fits``; ``said``, the error if it does not; ``loaded``, the bytes that the process holds
        more with the model in it, 0 if it does not fit; ``peak``, the most it ever held more;
        ``losses``, the loss before each step.
    """
    import resource  # here: Windows has no such module

    train(build_by_layer(run.small()), run.small(), 1)  # threads and tables of libraries: not ours
    level = process_bytes()
    limit = written_bytes() + allowed
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    found = {"fits": False, "said": "", "loaded": 0, "losses": []}
    try:
        model = build_by_layer(run)
        found["loaded"] = process_bytes() - level
        found["losses"] = train(model, run, STEPS)
        found["fits"] = True
    except WorkbookError as error:
        found["said"] = str(error)
    return {**found, "peak": process_peak_bytes() - level}


def in_limited_process(run: Run, allowed: int = ALLOWED) -> dict:
    """`attempt` in a process of its own. Linux alone enforces such a limit.

    Raises:
        WorkbookError: not on Linux; too slow; or it ended otherwise than by want of memory.
    """
    if sys.platform != "linux":
        raise WorkbookError("only Linux holds a process to a limit of its data (RLIMIT_DATA)")
    command = [
        sys.executable,
        "-m",
        "sftlab.memory.limit",
        json.dumps(run.settings()),
        str(allowed),
    ]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **FIXED_THRESHOLD},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise WorkbookError(
            f"this processor takes more than {PATIENCE} s for it: it has no bfloat16 products"
        ) from None
    if done.returncode:
        said = (done.stderr.strip() or "it was killed").split("\n")
        raise WorkbookError(f"the limited process failed: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str]) -> int:
    """Attempt a run, given as JSON, under a limit in bytes; print what happened as a line of JSON."""
    run, allowed = arguments
    print(json.dumps(attempt(Run(**json.loads(run)), int(allowed))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
