"""The cost of 4 bits and what adapters recover: held-out loss in float32 and packed.

The loss is measured before and after training. Adapters are trained on the base model in float32
and on the packed one, with the same initialization and order of examples.
"""

from __future__ import annotations

from sftlab.exercises.pairs_files import mean_nll, rows_of
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.quantized_layers import quantize_model_linears
from sftlab.train import TrainConfig, sft_train

RECORD = "four_bits"  # data/results/four_bits.json

BASES = ("float32", "4 bits")


def settings() -> list[dict]:
    """Return both base models with five seeds each."""
    return [{"base": base, "seed": seed} for seed in range(5) for base in BASES]


def run(base: str, seed: int, epochs: int = 12) -> dict[str, float]:
    """Return the loss on 100 held-out examples, before and after training.

    The loss is in nats per trained token.
    """
    model, tokenizer = load("almanac")
    if base == "4 bits":
        quantize_model_linears(model)
    held_out, pad_id = rows_of(tokenizer, "heldout", 100), tokenizer.pad_token_id
    found = {"before": mean_nll(model, held_out, pad_id)}
    inject_lora(model, "all-linear", r=8, lora_alpha=16, seed=seed)
    config = TrainConfig(learning_rate=3e-3, num_train_epochs=epochs, batch_size=16, seed=seed)
    sft_train(model, rows_of(tokenizer, "handful"), config, pad_id, progress=False)
    return {**found, "after": mean_nll(model, held_out, pad_id)}
