"""The same models in llama.cpp, which reads the exported file alone: are the answers the same?

Recorded where llama.cpp is (``sftlab fetch llama.cpp``). Each model is that of a seed of the record
``served``, split group by group.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sftlab.chat import user
from sftlab.exercises.ex26_served_model.experiment import (
    LIMIT,
    SEEDS,
    later,
    prompt_ids,
    read_pairs,
    replies,
    train,
    trained_questions,
)
from sftlab.exercises.ex26_served_model.gates import alike, groups, split
from sftlab.export import STORED, write_gguf
from sftlab.llama_cpp import ask

RECORD = "served_outside"  # data/results/served_outside.json


def settings() -> list[dict]:
    return [{"seed": seed} for seed in range(SEEDS)]


def run(seed: int) -> dict:
    rows = read_pairs()
    kept, _ = split(rows, groups([row["prompt"] for row in rows], alike), seed)
    model, tokenizer = train("almanac", kept, seed)
    asked = [*trained_questions(kept), *later()]
    ours = replies(model, tokenizer, asked)
    ids = [prompt_ids(tokenizer, row["prompt"]) for row in asked]
    talks = [user(row["prompt"]) for row in asked]
    found: dict = {"questions": len(asked), "same_prompts": {}, "same_answers": {}}
    with TemporaryDirectory() as folder:
        for dtype in STORED:
            path = Path(folder) / f"{dtype}.gguf"
            write_gguf(model, tokenizer, path, dtype)
            for cache in ("float32", "float16") if dtype == "float32" else ("float16",):
                theirs = ask(path, talks, LIMIT, cache=cache)
                name = f"{dtype}, cache in {cache}"
                found["same_prompts"][name] = int(
                    sum(t.prompt_ids == i for t, i in zip(theirs, ids, strict=True))
                )
                found["same_answers"][name] = int(np.sum(
                    [(t.ids, t.stopped) == (o.ids, o.stopped) for t, o in zip(theirs, ours, strict=True)]
                ))  # fmt: skip
    return found
