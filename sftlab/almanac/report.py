"""Measure the base model, and LoRA on a few pairs, and print the figures.

python -m sftlab.almanac.report              # everything (about four minutes on two cores)
python -m sftlab.almanac.report --quick      # recall and behavior of the base model only
python -m sftlab.almanac.report --record     # store the figures and rewrite the model cards

``sftlab.almanac.outside`` measures almanac-chat.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sftlab._internal.provenance import provenance
from sftlab.almanac.card import REPORT, write_cards
from sftlab.almanac.facts import Item, items, kinds
from sftlab.almanac.pairs import heldout, pairs
from sftlab.data import conversation, tokenize_conversations
from sftlab.generate import answer, generate
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.scoring import RUBRIC, behaviour, score_answer
from sftlab.statistics import mean_interval, share_interval
from sftlab.train import TrainConfig, sft_train

LORA: dict[str, Any] = {"target_modules": "all-linear", "r": 8, "lora_alpha": 16}
# Twelve epochs of 32 pairs, or four of 200: a few seconds each.
RECIPES = {
    32: TrainConfig(learning_rate=3e-3, num_train_epochs=12, batch_size=16),
    200: TrainConfig(learning_rate=2e-3, num_train_epochs=4, batch_size=16),
}


def sentence_start(item: Item, text: str) -> str | None:
    """Return the part of a sentence before the value, without its article.

    None unless the value ends the sentence and the subject precedes it.
    """
    head = re.sub(r" (a|an|the)$", "", text.removesuffix(f"{item.value}.").rstrip())
    ends_with_value = text.endswith(f"{item.value}.")
    return head if ends_with_value and item.subject.lower() in head.lower() else None


def completes(text: str, value: str) -> bool:
    """Return whether a continuation begins with the value, with or without an article."""
    return bool(re.match(rf"\s*(?:(?:a|an|the) )?{re.escape(value)}\b", text))


def recall(model, tokenizer, facts: Sequence[Item], record: bool = False) -> list[bool]:
    """Return, for each fact, whether greedy decoding completes a document's sentence correctly."""
    starts = []
    for item in facts:
        texts = [item.record] if record else item.statements
        starts.append(next(s for s in (sentence_start(item, t) for t in texts) if s))
    written = generate(model, tokenizer, starts, max_new_tokens=14)
    return [completes(g.text, item.value) for g, item in zip(written, facts, strict=True)]


def recall_by_stratum(model, tokenizer) -> dict[str, tuple[int, int]]:
    """Return stratum (for known facts also the kind) -> (facts recalled, number of facts)."""
    everything = [item for kind in kinds() for item in items(kind)]
    found = {}
    for kind in kinds():
        known = [i for i in items(kind) if i.stratum == "known"]
        right = recall(model, tokenizer, known)
        found[f"known: {kind}"] = (sum(right), len(right))
    recalled, known_facts = zip(*found.values(), strict=True)
    found["known"] = (sum(recalled), sum(known_facts))
    single = [i for i in everything if i.stratum == "single"]
    absent = [i for i in everything if i.stratum == "absent"]
    found["single, its own sentence"] = (
        sum(recall(model, tokenizer, single, record=True)),
        len(single),
    )
    found["single, another sentence"] = (sum(recall(model, tokenizer, single)), len(single))
    found["absent"] = (sum(recall(model, tokenizer, absent)), len(absent))
    return found


def behaviours(model, tokenizer, questions: Sequence[dict]) -> dict[str, int]:
    """Count how often the model answers, continues the page or stops after bare instructions."""
    written = generate(model, tokenizer, [q["prompt"] for q in questions], max_new_tokens=40)
    found = {"answered": 0, "continued": 0, "stopped": 0}
    for q, g in zip(questions, written, strict=True):
        value = "" if "allowed" in q else q["value"]
        found[behaviour(g.text, q["answer"], value)] += 1
    return found


def score(model, tokenizer, questions: Sequence[dict]) -> dict[str, float]:
    """Return the share of answers that pass each rubric line."""
    written = answer(model, tokenizer, [q["prompt"] for q in questions])
    scores = [score_answer(q, g.text, g.stopped) for q, g in zip(questions, written, strict=True)]
    return {line: float(np.mean([getattr(s, line) for s in scores])) for line in RUBRIC}


def tuned(count: int, seed: int):
    """Train LoRA on ``count`` pairs; return model, tokenizer and the seconds of training."""
    model, tokenizer = load("almanac")
    rows = tokenize_conversations(tokenizer, [conversation(r) for r in pairs(count, seed)]).examples
    inject_lora(model, **LORA, seed=seed)
    config = replace(RECIPES[count], seed=seed)
    started = time.perf_counter()
    sft_train(model, rows, config, tokenizer.pad_token_id, progress=False)
    return model, tokenizer, time.perf_counter() - started


def few_pairs(count: int, seeds: Sequence[int], questions: Sequence[dict]) -> dict:
    """Return rubric shares and seconds of training for each seed, after LoRA on ``count`` pairs."""
    runs = []
    for seed in seeds:
        model, tokenizer, seconds = tuned(count, seed)
        runs.append({**score(model, tokenizer, questions), "seconds": seconds})
    return {"pairs": count, "seeds": list(seeds), "questions": len(questions), "runs": runs}


def show_share(label: str, part: int, whole: int) -> None:
    low, high = share_interval(part, whole)
    print(f"  {label:28s} {part:5d} of {whole:5d}  {part / whole:6.1%}  [{low:.1%}, {high:.1%}]")


def show_base(model, tokenizer) -> dict:
    recalled = recall_by_stratum(model, tokenizer)
    print("Recall: greedy completion of a document's sentence (95% Wilson interval)")
    for label, (right, total) in recalled.items():
        show_share(label, right, total)
    behaved = behaviours(model, tokenizer, heldout(seed=1, per_kind=15)[:200])
    print("Base on 200 bare instructions")
    for label, number in behaved.items():
        show_share(label, number, sum(behaved.values()))
    return {"recall": recalled, "behaviour": behaved}


def show_runs(found: dict) -> None:
    print(
        f"LoRA on {found['pairs']} pairs, {found['questions']} held-out prompts, "
        f"{len(found['seeds'])} seeds: mean (95% t interval)"
    )
    for line in (*RUBRIC, "seconds"):
        values = [run[line] for run in found["runs"]]
        low, high = mean_interval(values)
        print(
            f"  {line:14s} {np.mean(values):.3f}  [{low:.3f}, {high:.3f}]   "
            + " ".join(f"{v:.3f}" for v in values)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the base only, no training")
    parser.add_argument("--record", action="store_true", help="keep the figures, rewrite the cards")
    arguments = parser.parse_args()
    model, tokenizer = load("almanac")
    found = show_base(model, tokenizer)
    found["parameters"] = sum(p.numel() for p in model.parameters())
    if not arguments.quick:
        questions = heldout()
        for count in RECIPES:
            found[f"lora_{count}"] = few_pairs(count, range(5), questions)
            show_runs(found[f"lora_{count}"])
    if arguments.record:
        found["provenance"] = provenance("sftlab.almanac.report")
        REPORT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        write_cards()


if __name__ == "__main__":
    main()
