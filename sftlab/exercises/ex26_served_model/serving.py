"""What the lesson needs of a server: the exported file in llama.cpp, faults, and what gates look at."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import mkdtemp

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sftlab.chat import end_of_turn_id, user
from sftlab.data import write_jsonl
from sftlab.exercises.ex26_served_model.experiment import LIMIT, prompt_ids, replies
from sftlab.exercises.ex26_served_model.gates import HELD_OUT, alike, split
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.record import runs
from sftlab.export import export_model, split_halves
from sftlab.findings import BROKEN, format_findings
from sftlab.llama_cpp import ask, missing
from sftlab.models import no_library_bars
from sftlab.preflight import inspect
from sftlab.results import data_record, save_result

# What the notebook takes from here: the faults below, and the package's steps from file to server.
__all__ = ["BROKEN", "HELD_OUT", "alike", "data_record", "elsewhere", "end_of_turn_id", "export_model",
           "format_findings", "from_gguf", "inspect", "leaked", "mkdtemp", "not_reordered", "response_nll", "runs",
           "save_result", "shuffled", "split", "with_a_typed_token"]  # fmt: skip


def elsewhere(path: Path, rows: Sequence[dict]) -> list[tuple[list[int], list[int]]]:
    """Return the ids of each prompt and its answer, made of an exported file alone, and say by what.

    That is llama.cpp where it is at hand; otherwise transformers, which reads such files as well.
    """
    if reason := missing():
        print(f"{reason}. Until then transformers reads the file; what llama.cpp did is recorded below.")  # fmt: skip
        model, tokenizer = from_gguf(path)
        found = replies(model, tokenizer, rows)
        return [(prompt_ids(tokenizer, row["prompt"]), f.ids) for row, f in zip(rows, found, strict=True)]  # fmt: skip
    print("llama.cpp reads the file: weights, tokenizer and template. No Python.")
    return [(r.prompt_ids, r.ids) for r in ask(path, [user(row["prompt"]) for row in rows], LIMIT)]


def from_gguf(path: Path):
    """Return model and tokenizer as transformers reads them from a GGUF file."""
    with no_library_bars():
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)  # fmt: skip
        return model.eval(), AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def leaked(kept: Sequence[dict], held_out: Sequence[dict]) -> int:
    """Count the held-out questions that are alike a question of training."""
    return sum(any(alike(h["prompt"], k["prompt"]) for k in kept) for h in held_out)


def with_a_typed_token(rows: Sequence[dict], path: Path) -> Path:
    """Write a file in which one answer contains an end-of-turn token."""
    first = {**rows[0], "response": f"{rows[0]['response']}<|im_end|>"}
    write_jsonl(path, [first, *rows[1:]])
    return path


def shuffled(rows: Sequence[dict], seed: int) -> list[dict]:
    """Return the rows with each other's answers."""
    found = [row["response"] for row in rows]
    Random(seed).shuffle(found)
    return [{**row, "response": answer} for row, answer in zip(rows, found, strict=True)]


def not_reordered(model):
    """Return the model as a server reads a file whose queries and keys were not reordered."""
    changed, config = copy.deepcopy(model), model.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    with torch.no_grad():
        for name, parameter in changed.named_parameters():
            if (part := name.split(".")[-2]) in heads:
                rows = split_halves(parameter.numpy(), heads[part])
                parameter.copy_(torch.from_numpy(rows.copy()))
    return changed
