"""Plan the memory of a training step before it is run: from shapes, with no weights.

Two copies of the model, of one and of two layers, are built and run with tensors that have a shape
and no content (PyTorch's FakeTensorMode). What they would save for the backward pass is counted;
the difference is what every further layer saves. So the plan holds for any architecture, and the
code that is planned is the code that trains.
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
# Rows of one length need no mask, and transformers drops it after a look at its content. Here there
# is no content to look at: for an attention of this name, unknown to it, it makes no mask at all.
NO_MASK = "sdpa_without_a_mask"
AttentionInterface.register(NO_MASK, sdpa_attention_forward)
WEIGHTS = {"fp32": torch.float32, "bf16": torch.bfloat16, "nf4": torch.bfloat16}


@dataclass(frozen=True)
class Run:
    """A training run, as far as its memory goes. AdamW, rows of one length."""

    shape: str = EMBEDDED  # or a name from sftlab.memory.shapes
    batch: int = 8  # rows
    length: int = 64  # tokens per row
    trained_per_row: int = 32  # at the end of each row
    r: int | None = None  # rank of LoRA; None trains every weight
    targets: str | tuple[str, ...] = "all-linear"
    weights: str = "fp32"  # how the model is stored: "fp32", "bf16", or "nf4" (double quantised)
    recompute: bool = False  # save each layer's input only, and run the layer again (checkpointing)
    padded: bool = False  # rows of several lengths: attention then needs a mask

    def __post_init__(self) -> None:
        if isinstance(self.targets, list):  # as JSON has it
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
        """The run as keyword arguments that JSON can hold."""
        return asdict(self)

    def small(self) -> Run:
        """A run that takes the same code in no time, on the embedded model."""
        return replace(self, shape=EMBEDDED, batch=1, length=4, trained_per_row=2)


def config(shape: str) -> PretrainedConfig:
    """The configuration of the embedded model, or of a shape by name."""
    if shape == EMBEDDED:
        return AutoConfig.from_pretrained(MODELS / "almanac-base")
    return shapes.config(shape)


@own_random_state()
def build(run: Run) -> PreTrainedModel:
    """The model of a run with random weights, ready to be trained."""
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
    """The most that is held at one moment of a training step with AdamW, from its parts in bytes.

    Weights (with adapters) and the optimiser's state are there all the time. The rest peaks at one
    of three moments:

    1. The loss is differentiated: all activations are held and, beside the log-probabilities that
       count among them, two more arrays of the size of the logits: the gradients of both.
    2. The last layer is: the logits are gone, what it has ``in_flight`` is there.
    3. The end: the activations are gone, all gradients are held, and beside them two arrays of the
       size of the ``largest`` trained matrix, which are AdamW's denominator for it, or the two
       gradients of a tied embedding that are added up.
    """
    loss = activations + 2 * logits
    last_layer = activations - logits + in_flight
    end = gradients + 2 * largest
    return weights + optimizer + max(loss, last_layer, end)


@cache
def plan(run: Run) -> TrainingBytes:
    """Bytes of one optimiser step, without running it.

    What the last layer has in flight are two gradients of the MLP's width and, with recomputation,
    its own activations, which are back. The largest trained matrix may be the tied embedding.
    """
    shape = config(run.shape)
    one, two = _dry_run(run, layers=1), _dry_run(run, layers=2)
    further = shape.num_hidden_layers - 1
    frozen, trained, moments, saved = (
        one[part] + further * (two[part] - one[part])
        for part in ("frozen", "trained", "moments", "saved")
    )
    tokens, size = run.batch * run.length, WEIGHTS[run.weights].itemsize
    logits = run.batch * run.trained_per_row * shape.vocab_size * 4  # float32 whatever the model
    again = 0  # what one layer saves when it is run again
    if run.recompute:  # then its input is all that was kept
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


def _dry_run(run: Run, layers: int) -> dict[str, int]:
    """Bytes of a model of so many layers, and of what its forward pass saves."""
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
        # AdamW's, and a counter of steps each
        "moments": sum(2 * stored_bytes(p) + 4 for p in trained),
        "largest": max(stored_bytes(p) for p in trained),
        "saved": count,
    }


def _loss(model: PreTrainedModel, run: Run) -> Tensor:
    """The loss as `sftlab.loss.model_loss` computes it; which tokens are trained is known here."""
    ids = torch.zeros(run.batch, run.length, dtype=torch.long)
    mask = torch.ones_like(ids) if run.padded else None
    decoder = model.get_decoder()
    hidden = decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    scored = hidden[:, -run.trained_per_row - 1 : -1].flatten(0, 1).clone()
    logits = model.get_output_embeddings()(scored).float()
    return torch.nn.functional.cross_entropy(logits, ids.new_zeros(len(logits)), reduction="sum")


def _quantised(model: nn.Module) -> list[Tensor]:
    """The weights that `quantize_model_linears` packs: of every linear layer but the head."""
    linears = (m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head")
    return [layer.weight for layer in linears]


def _nf4_bytes(parameters: int) -> int:
    """A matrix in NF4 with double quantised scales, and its two tables with the mean scale."""
    return round(parameters * bits_per_parameter(double=True) / 8) + 4 * (16 + 256 + 1)
