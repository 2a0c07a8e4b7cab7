"""Run by torchrun: train in float64 under several settings; each process writes what it ended with.

torchrun --standalone --nproc_per_node 2 two_processes.py MODEL DATA FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sftlab.data import load_conversations, tokenize_conversations
from sftlab.distributed import rank_and_world_size
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.train import TrainConfig, sft_train

COMMON = {"learning_rate": 1e-2, "num_train_epochs": 2}
SETTINGS = {
    "rows that do not divide evenly": TrainConfig(batch_size=3, **COMMON),
    "one row, so that a process has none": TrainConfig(batch_size=1, **COMMON),
    "micro-batches": TrainConfig(batch_size=7, micro_batch_size=2, **COMMON),
    "clipped": TrainConfig(batch_size=4, max_grad_norm=1e-2, **COMMON),
}


def outcomes(model_folder: str, data: str) -> dict[str, dict]:
    """The losses and trained weights of each run."""
    found = {}
    for name, config in SETTINGS.items():
        model, tokenizer = load(model_folder)
        inject_lora(model, "all-linear", r=2, lora_alpha=4, seed=0).double()
        rows = tokenize_conversations(tokenizer, load_conversations(data)).examples
        history = sft_train(model, rows, config, progress=False)
        weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        found[name] = {"losses": history.losses, "tokens": history.tokens, "weights": weights}
    return found


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    model_folder, data, folder = sys.argv[1:]
    torch.save(outcomes(model_folder, data), Path(folder) / f"process{rank_and_world_size()[0]}.pt")
    torch.distributed.destroy_process_group()
