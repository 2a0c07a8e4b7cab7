"""Pretrain the base model: one seeded command that can be stopped and resumed at any time.

    python -m sftlab.almanac.pretrain            # continues where it stopped
    python -m sftlab.almanac.pretrain --restart  # starts from the beginning

The batch of step *n* depends only on the seed and *n*, so a resumed run sees the same documents as
an uninterrupted one. Takes about 50 minutes on two cores with AVX-512 BF16. Other programs on the
same cores can slow it down several times.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from sftlab._internal.paths import MODELS, cache_folder
from sftlab._internal.random_state import own_random_state
from sftlab.almanac.documents import document
from sftlab.almanac.tokenizer import TURN_END, TURN_START, save_tokenizer, train_tokenizer


@dataclass(frozen=True)
class Recipe:
    """All settings that decide the result.

    Learning rates are AdamW's; ``length`` is in tokens, ``batch`` in sequences.
    """

    steps: int = 4000
    batch: int = 24
    length: int = 256
    rate: float = 3e-3
    final_rate: float = 1e-4
    warmup: int = 100
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then a cosine to ``final_rate``."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / (self.steps - self.warmup)
        return self.final_rate + (self.rate - self.final_rate) * (1 + math.cos(math.pi * done)) / 2


def config(tokenizer) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def rows(recipe: Recipe, step: int, tokenizer) -> torch.Tensor:
    """Return the token ids of one step, (batch, length + 1): documents joined, the last one cut.

    Half of the sequences begin with the separator and half do not, so the model sees documents
    begin in both ways.
    """
    rng = Random(f"{recipe.seed}:{step}")
    separator = tokenizer.bos_token_id
    made = []
    for _ in range(recipe.batch):
        row = [separator] if rng.random() < 0.5 else []
        while len(row) <= recipe.length:
            row += [*tokenizer.encode(document(rng), add_special_tokens=False), separator]
        made.append(row[: recipe.length + 1])
    return torch.tensor(made)


def decay_groups(model, recipe: Recipe) -> list[dict]:
    """Return parameter groups with weight decay for matrices only, as is usual; norms have none."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def pretrain(
    recipe: Recipe, folder: Path, tokenizer, compiled: bool = True, every: int = 150
) -> LlamaForCausalLM:
    """Train up to ``recipe.steps`` and save a checkpoint in ``folder`` every ``every`` steps."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    with own_random_state(recipe.seed):
        model = LlamaForCausalLM(config(tokenizer))
    optimizer = torch.optim.AdamW(
        decay_groups(model, recipe), lr=recipe.rate, betas=recipe.betas, fused=True
    )
    log: list[dict] = []
    first = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        if kept["recipe"] != json.loads(json.dumps(asdict(recipe))):
            raise SystemExit(
                f"{checkpoint} belongs to another recipe; run with --restart to begin anew"
            )
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        log, first = kept["log"], kept["done"]

    def loss_of(batch: torch.Tensor) -> torch.Tensor:
        hidden = model.model(input_ids=batch[:, :-1], use_cache=False).last_hidden_state
        return F.cross_entropy(model.lm_head(hidden).flatten(0, 1).float(), batch[:, 1:].flatten())

    forward = torch.compile(loss_of) if compiled else loss_of
    started, seconds_before = time.monotonic(), log[-1]["seconds"] if log else 0.0
    for step in range(first, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate_at(step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = forward(rows(recipe, step, tokenizer))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 25 == 0 or step + 1 == recipe.steps:
            seconds = seconds_before + time.monotonic() - started
            log.append({"step": step, "loss": round(loss.item(), 4), "seconds": round(seconds, 1)})
            speed = (step + 1 - first) * recipe.batch * recipe.length / (time.monotonic() - started)
            left = (recipe.steps - step - 1) * recipe.batch * recipe.length / speed
            print(f"step {step + 1}/{recipe.steps}  loss {loss.item():.3f}  {speed:,.0f} tokens/s  "
                  f"{left / 60:.0f} min left", flush=True)  # fmt: skip
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "log": log,
                     "done": step + 1, "recipe": json.loads(json.dumps(asdict(recipe)))}  # fmt: skip
            torch.save(state, checkpoint.with_suffix(".new"))
            os.replace(checkpoint.with_suffix(".new"), checkpoint)  # never a partial checkpoint
    return model


@torch.no_grad()
def place_markers(model, tokenizer, seed: int = 0) -> None:
    """Initialize the embeddings of the turn tokens like those of the trained tokens.

    No document contains these tokens, so pretraining only pushes them away together with every
    other unseen token. Their embeddings end up almost equal. With a tied head, a fine-tuned model
    that should end its turn then writes any of them. Drawing new embeddings from the Gaussian of
    the seen tokens' embeddings is the usual solution for new tokens (Hewitt, "Initializing New Word
    Embeddings for Pretrained Language Models", 2021).
    """
    embedding = model.get_input_embeddings().weight
    sample = rows(Recipe(batch=400, seed=seed), -1, tokenizer)
    seen = embedding[sample.unique()].float()
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linalg.cholesky(torch.cov(seen.T) + 1e-6 * torch.eye(seen.shape[1]))
    for token in (TURN_START, TURN_END):
        noise = spread @ torch.randn(seen.shape[1], generator=generator)
        embedding[tokenizer.convert_tokens_to_ids(token)] = seen.mean(0) + noise


def save(model, tokenizer, log: list[dict], recipe: Recipe, folder: Path) -> None:
    """Save the finished base model, in bfloat16 to halve its size, with its training record."""
    place_markers(model, tokenizer, recipe.seed)
    model.to(torch.bfloat16).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    record = {"recipe": asdict(recipe), "tokens": recipe.steps * recipe.batch * recipe.length,
              "threads": torch.get_num_threads(), "log": log}  # fmt: skip
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--restart", action="store_true", help="forget the checkpoint and begin anew"
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument(
        "--eager", action="store_true", help="do without torch.compile (no C++ compiler)"
    )
    parser.add_argument("--out", type=Path, default=MODELS / "almanac-base")
    arguments = parser.parse_args()
    recipe = Recipe(steps=arguments.steps)
    work = cache_folder() / "almanac-base"
    if arguments.restart:
        (work / "checkpoint.pt").unlink(missing_ok=True)
    tokenizer = train_tokenizer()
    model = pretrain(recipe, work, tokenizer, compiled=not arguments.eager)
    log = torch.load(work / "checkpoint.pt", weights_only=True)["log"]
    save(model, tokenizer, log, recipe, arguments.out)
    print(f"saved to {arguments.out}")


if __name__ == "__main__":
    main()
