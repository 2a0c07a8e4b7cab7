"""Plan the memory of a training step before it runs, from shapes alone.

Two copies of the model, with one and with two layers, run on tensors that have a shape but no data
(PyTorch's FakeTensorMode). What they save for the backward pass is counted; the difference is what
each further layer saves. The plan therefore works for any architecture and uses the same code as
training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sftlab._internal.paths import MODELS
from sftlab._internal.random_state import own_random_state
from sftlab.errors import WorkbookError
from sftlab.lora import inject_lora
from sftlab.memory import shapes
from sftlab.memory.count import TrainingBytes, saved_for_backward, stored_bytes
from sftlab.quant import bits_per_parameter
from sftlab.quantized_layers import quantize_model_linears

EMBEDDED = "almanac"
# Sequences of equal length need no mask. transformers drops the mask after reading its values,
# which fake tensors do not have. It creates no mask for an attention implementation of a name it
# does not know.
NO_MASK = "sdpa_without_a_mask"
AttentionInterface.register(NO_MASK, sdpa_attention_forward)
WEIGHTS = {"fp32": torch.float32, "bf16": torch.bfloat16, "nf4": torch.bfloat16}


@dataclass(frozen=True)
class Run:
    """A training run, as far as it affects memory. AdamW; all sequences have the same length."""

    shape: str = EMBEDDED  # or a name from sftlab.memory.shapes
    batch: int = 8  # sequences
    length: int = 64  # tokens per sequence
    trained_per_row: int = 32  # trained tokens at the end of each sequence
    r: int | None = None  # LoRA rank; None for full fine-tuning
    targets: str | tuple[str, ...] = "all-linear"
    weights: str = "fp32"  # storage: "fp32", "bf16" or "nf4" (double quantization)
    recompute: bool = False  # activation checkpointing: save only each layer's input
    padded: bool = False  # sequences of different lengths, so attention needs a mask

    def __post_init__(self) -> None:
        if isinstance(self.targets, list):  # from JSON
            object.__setattr__(self, "targets", tuple(self.targets))
        if self.weights not in WEIGHTS:
            raise WorkbookError(f"weights is {self.weights!r}; use one of {', '.join(WEIGHTS)}")
        if self.weights == "nf4" and self.r is None:
            raise WorkbookError(
                "4-bit weights cannot be trained themselves: give a rank r for LoRA"
            )
        if not 0 < self.trained_per_row < self.length:
            raise WorkbookError(
                f"trained_per_row is {self.trained_per_row}; of {self.length} tokens in a row at "
                f"least 1 and at most {self.length - 1} can be trained: the first has no forecast"
            )

    def settings(self) -> dict:
        """Return the run as keyword arguments that can be stored as JSON."""
        return asdict(self)

    def small(self) -> Run:
        """Return a tiny run on the embedded model that uses the same code."""
        return replace(self, shape=EMBEDDED, batch=1, length=4, trained_per_row=2)


def config(shape: str) -> PretrainedConfig:
    """Return the configuration of the embedded model or of a named shape."""
    if shape == EMBEDDED:
        return AutoConfig.from_pretrained(MODELS / "almanac-base")
    return shapes.config(shape)


@own_random_state()
def build(run: Run) -> PreTrainedModel:
    """Return the model of a run with random weights, ready for training."""
    model = AutoModelForCausalLM.from_config(config(run.shape), dtype=WEIGHTS[run.weights])
    if run.weights == "nf4":
        quantize_model_linears(model)
    if run.recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if run.r:
        inject_lora(model, run.targets, r=run.r, lora_alpha=2 * run.r)
    return model.train()


def peak_training_bytes(
    weights: int,
    gradients: int,
    optimizer: int,
    activations: int,
    logits: int,
    in_flight: int,
    largest: int,
) -> int:
    """Return the peak memory of a training step with AdamW, in bytes, from its parts.

    Weights (with adapters) and optimizer state are always in memory. The rest peaks at one of three
    moments:

    1. Backward pass of the loss: all activations, plus two arrays of the size of the logits. These
       are the gradients of the logits and of the log-probabilities, which themselves count as
       activations.
    2. Backward pass of the last layer: the logits are freed; ``in_flight`` is allocated.
    3. End of the step: the activations are freed. All gradients are held, plus two arrays of the
       size of the ``largest`` trained matrix. They are the temporaries of AdamW's denominator, or
       the two gradients of a tied embedding that are added.

    Args:
        weights, gradients, optimizer, activations: sizes in bytes.
        logits: size of the logits in bytes.
        in_flight: bytes of temporary results in the backward pass of the last layer.
        largest: bytes of the largest trained matrix.
    """
    loss = activations + 2 * logits
    last_layer = activations - logits + in_flight
    end = gradients + 2 * largest
    return weights + optimizer + max(loss, last_layer, end)


@cache
def plan(run: Run) -> TrainingBytes:
    """Return the memory of one optimizer step in bytes, without running it.

    The last layer has two gradients of the MLP's width in flight and, with activation
    checkpointing, its own recomputed activations. The largest trained matrix may be the tied
    embedding.
    """
    shape = config(run.shape)
    forward = replace(run, recompute=False)  # recomputation is counted below
    one, two = _dry_run(forward, layers=1), _dry_run(forward, layers=2)
    further = shape.num_hidden_layers - 1
    frozen, trained, moments, saved = (
        one[part] + further * (two[part] - one[part])
        for part in ("frozen", "trained", "moments", "saved")
    )
    tokens, size = run.batch * run.length, WEIGHTS[run.weights].itemsize
    logits = run.batch * run.trained_per_row * shape.vocab_size * 4  # float32 for every model
    again = 0  # what one layer saves when it is recomputed
    if run.recompute:  # only the input of each layer is saved
        again = two["saved"] - one["saved"]
        inputs = shape.num_hidden_layers * tokens * shape.hidden_size * size
        saved = one["saved"] - again + inputs
    in_flight = again + 2 * tokens * shape.intermediate_size * size
    peak = peak_training_bytes(
        frozen + trained, trained, moments, saved, logits, in_flight, one["largest"]
    )
    return TrainingBytes(
        weights=frozen or trained,
        adapters=trained if frozen else 0,
        gradients=trained,
        optimizer=moments,
        activations=saved,
        peak=peak,
    )


@cache
def _dry_run(run: Run, layers: int) -> dict[str, int]:
    """Return the bytes of a model with this number of layers and of what its forward pass saves."""
    shape = config(run.shape)
    shape.num_hidden_layers = layers
    with FakeTensorMode():
        model = AutoModelForCausalLM.from_config(
            shape,
            dtype=WEIGHTS[run.weights],
            attn_implementation="sdpa" if run.padded else NO_MASK,
        ).train()
        frozen_linears = []
        if run.r:
            inject_lora(model, run.targets, r=run.r, lora_alpha=2 * run.r)
            frozen_linears = _quantised(model) if run.weights == "nf4" else []
        with saved_for_backward(model) as saved:
            loss = _loss(model, run)
        count = sum(storage.nbytes() for storage in saved.values())
        del loss
    packed = sum(_nf4_bytes(p.numel()) - stored_bytes(p) for p in frozen_linears)
    trained = [p for p in model.parameters() if p.requires_grad]
    return {
        "frozen": sum(stored_bytes(p) for p in model.parameters() if not p.requires_grad) + packed,
        "trained": sum(stored_bytes(p) for p in trained),
        # of AdamW, with a step counter for each parameter
        "moments": sum(2 * stored_bytes(p) + 4 for p in trained),
        "largest": max(stored_bytes(p) for p in trained),
        "saved": count,
    }


def _loss(model: PreTrainedModel, run: Run) -> Tensor:
    """Compute the loss as in `sftlab.loss.model_loss`; the trained positions are known here."""
    ids = torch.zeros(run.batch, run.length, dtype=torch.long)
    mask = torch.ones_like(ids) if run.padded else None
    decoder = model.get_decoder()
    hidden = decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    scored = hidden[:, -run.trained_per_row - 1 : -1].flatten(0, 1).clone()
    logits = model.get_output_embeddings()(scored).float()
    return torch.nn.functional.cross_entropy(logits, ids.new_zeros(len(logits)), reduction="sum")


def _quantised(model: nn.Module) -> list[Tensor]:
    """Return the weights that `quantize_model_linears` packs: all linear layers except the head."""
    linears = (m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head")
    return [layer.weight for layer in linears]


def _nf4_bytes(parameters: int) -> int:
    """Return the bytes of an NF4 matrix with double quantization, code tables and mean scale."""
    return round(parameters * bits_per_parameter(double=True) / 8) + 4 * (16 + 256 + 1)
