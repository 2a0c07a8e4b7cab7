"""Train a model in a process with a memory limit between its sizes in 16 and in 4 bits.

python -m sftlab.memory.limit '[{"shape": "llama-3.2-1b", "weights": "nf4", "r": 8}]' 2000000000

The weights are random and are created layer by layer: each layer is packed before the next one is
created. The limit is set by the operating system (RLIMIT_DATA). It counts memory that the process
can write, not the shared libraries it maps.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
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

# Shape -> bytes in addition to what the process holds with all libraries loaded.
ALLOWED = {"smollm2-135m": 220_000_000, "llama-3.2-1b": 2_000_000_000}
STEPS, RATE = 2, 1e-3
DRAWN = 8192  # rows of a weight that are random numbers; later ones repeat them
PATIENCE = 120  # seconds; the small shape takes ten on an idle processor


def example(weights: str, shape: str = "llama-3.2-1b") -> Run:
    """Return the run of notebook 21: one 8-token example, rank 8."""
    return Run(shape, batch=1, length=8, trained_per_row=4, r=8, weights=weights)


def build_by_layer(run: Run) -> PreTrainedModel:
    """Build a run's model with random weights, layer by layer; with "nf4", each layer is packed.

    All layers are copies of the first one, and the embedding repeats its first rows. Drawing a
    billion random numbers would take half a minute, and the values do not affect memory. Packed
    layers compute in float32, because many processors have no fast products in bfloat16.

    Raises:
        WorkbookError: there is not enough memory; the message names the layer.
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
                    for layer in quantize_model_linears(layers[0]).modules():
                        if hasattr(layer, "compute_dtype"):
                            layer.compute_dtype = torch.float32
            else:
                layers[number] = copy.deepcopy(layers[0])
                layers[number].self_attn.layer_idx = number
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)  # this was on meta as well
    model.tie_weights()
    return model


def _fill(part: nn.Module) -> None:
    """Allocate a part of the model that is on meta, with weights as at the start of pretraining."""
    part.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for weight in part.parameters():
        if weight.dim() == 1:  # of a norm
            weight.data.fill_(1)
            continue
        drawn = weight.data[:DRAWN].normal_(0, 0.02, generator=generator)
        for rows in weight.data[DRAWN:].split(DRAWN):
            rows.copy_(drawn[: len(rows)])


def _on_meta(run: Run) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config(run.shape), dtype=WEIGHTS[run.weights])


@contextmanager
def _room(what: str) -> Iterator[None]:
    """Turn the allocator's error into a WorkbookError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise WorkbookError(f"no room for {what}: the system grants no more memory") from error


def train(model: PreTrainedModel, run: Run, steps: int) -> list[float]:
    """Add LoRA and train on one batch of random tokens; return the loss before each step."""
    assert run.r is not None  # full fine-tuning is not attempted
    with _room("a training step"):
        inject_lora(model, run.targets, r=run.r, lora_alpha=2 * run.r, seed=0).train()
        batch = a_batch(run, model.config.vocab_size)
        optimizer = torch.optim.AdamW(lora_parameters(model), lr=RATE, weight_decay=0.0)
        return [train_step(model, batch, optimizer) for _ in range(steps)]


def attempts(runs: Sequence[Run], allowed: int) -> list[dict]:
    """Attempt the runs one after the other in this process, which stays limited afterwards.

    The peak of a process never falls: put the smaller run first.
    """
    import resource  # imported here because Windows has no such module

    for run in runs:
        train(build_by_layer(run.small()), run.small(), 1)  # excludes what libraries allocate
    level = process_bytes()
    limit = written_bytes() + allowed
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    found = []
    for run in runs:
        found.append(attempt(run, level))
        gc.collect()
    return found


def attempt(run: Run, level: int) -> dict:
    """Load and train the model; ``level`` is what the process held before, in bytes.

    Returns:
        ``fits``, whether it succeeded; ``said``, the error message if not; ``loaded``, the increase
        of the process's memory in bytes after loading the model (0 if it does not fit); ``peak``,
        the largest increase in bytes so far; ``losses``, the loss before each step.
    """
    found = {"fits": False, "said": "", "loaded": 0, "losses": []}
    try:
        model = build_by_layer(run)
        found["loaded"] = process_bytes() - level
        found["losses"] = train(model, run, STEPS)
        found["fits"] = True
    except WorkbookError as error:
        found["said"] = str(error)
    return {**found, "peak": process_peak_bytes() - level}


def in_limited_process(runs: Sequence[Run], allowed: int, patience: float = PATIENCE) -> list[dict]:
    """Return `attempts`, made in a new process. Only Linux enforces such a limit.

    Args:
        patience: seconds until it is stopped.

    Raises:
        WorkbookError: the system is not Linux, the runs are too slow, or they failed for another
            reason than lack of memory.
    """
    if sys.platform != "linux":
        raise WorkbookError("only Linux holds a process to a limit of its data (RLIMIT_DATA)")
    described = json.dumps([run.settings() for run in runs])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sftlab.memory.limit", described, str(allowed)],
            env={**os.environ, **FIXED_THRESHOLD},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        raise WorkbookError(f"this processor takes more than {patience} s for it") from None
    if done.returncode:
        said = (done.stderr.strip() or "it was killed").split("\n")
        raise WorkbookError(f"the limited process failed: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(arguments: list[str]) -> int:
    """Attempt runs, given as JSON, under a limit in bytes; print the results as a line of JSON."""
    runs, allowed = arguments
    print(json.dumps(attempts([Run(**run) for run in json.loads(runs)], int(allowed))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
