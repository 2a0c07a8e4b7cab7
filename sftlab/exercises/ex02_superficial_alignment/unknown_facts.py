"""SFT on facts that the base never read: how slowly they are memorized, and what known ones lose.

Two arms, equal in pairs, kinds and steps. Each has 64 pairs on known facts and 29 more: facts that
are in none of the base's documents ("absent"), or known ones of the same kinds ("known").
"""

from __future__ import annotations

from collections import Counter
from random import Random

from sftlab.almanac.facts import Item, all_items
from sftlab.almanac.pairs import ASKED, heldout, pairs, row
from sftlab.almanac.skills import usable
from sftlab.data import conversation, tokenize_conversations
from sftlab.exercises.ex02_superficial_alignment.experiment import ask
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.train import TrainConfig, sft_train

RECORD = "unknown_facts"  # data/results/unknown_facts.json

ARMS = ("known", "absent")
SEEDS = 5
OTHERS = 64
UNTRAINED = 2.1  # norm of an embedding; those of the tokens in 20,000 documents are below it
MOMENTS = (10, 20, 40, 80, 160, 320)  # training steps after which the model is asked


def facts(arm: str, seed: int) -> list[Item]:
    """29 facts: the absent ones, or as many known ones of each of their kinds."""
    absent = [item for item in all_items() if item.stratum == "absent"]
    if arm == "absent":
        return absent
    taken = {made["prompt"] for made in pairs(OTHERS, seed)}
    rng = Random(f"unknown facts:{seed}")
    return [
        item
        for kind, count in Counter(item.kind for item in absent).items()
        for item in rng.sample(
            [i for i in usable(kind, "train") if not taken & set(i.questions)], count
        )
    ]


def exams(arm: str, seed: int) -> dict[str, list[dict]]:
    """What is asked: the 29 as trained, the same in other words, and known facts of no pair."""
    chosen = facts(arm, seed)
    return {
        "trained": [{**row(i, i.question), "answer": i.answer} for i in chosen],
        "reworded": [{**row(i, i.questions[1]), "answer": i.answer} for i in chosen],
        "held out": [q for q in heldout(per_kind=10) if q["kind"] in ASKED],
    }


def run(arm: str, seed: int) -> dict:
    """Train, and ask on the way: shares that are exactly right, or right in content.

    ``marks`` has one character for each trained fact: whether it is right after the last step.
    """
    model, tokenizer = load("almanac")
    rows = pairs(OTHERS, seed) + [row(i, i.question) for i in facts(arm, seed)]
    examples = tokenize_conversations(tokenizer, [conversation(r) for r in rows]).examples
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    asked = exams(arm, seed)
    found: dict = {f"{name}, {line}": [] for name in asked for line in ("correct", "content")}

    def look(step: int, _: float) -> None:
        if step in MOMENTS:
            for name, some in asked.items():
                replies = ask(model, tokenizer, some, limit=24)
                scores = [
                    score_answer(q, g.text, g.stopped) for q, g in zip(some, replies, strict=True)
                ]
                if name == "trained":  # of the last moment, fact by fact
                    found["marks"] = "".join(str(int(s.content)) for s in scores)
                for line in ("correct", "content"):
                    share = sum(getattr(s, line) for s in scores) / len(scores)
                    found[f"{name}, {line}"].append(share)

    # A constant rate: with a cosine the moments would differ in rate as well as in steps.
    config = TrainConfig(learning_rate=1e-3, num_train_epochs=60, max_steps=MOMENTS[-1], lr_scheduler_type="constant",
                         warmup_ratio=0.03, seed=seed)  # fmt: skip
    history = sft_train(
        model, examples, config, tokenizer.pad_token_id, on_step=look, progress=False
    )
    if not history.finished:
        raise KeyboardInterrupt  # half a run is not measured
    return found


def readable(model, tokenizer) -> list[bool]:
    """Return for each absent fact whether its answer consists of tokens that the base has read.

    The input embedding of a token that was in no document still has its norm of initialization,
    more than ``UNTRAINED``; pretraining moves all others. LoRA on the linear layers leaves the
    embeddings as they are.
    """
    norms = model.get_input_embeddings().weight.detach().float().norm(dim=-1)
    absent = [item for item in all_items() if item.stratum == "absent"]
    ids = [tokenizer.encode(item.answer, add_special_tokens=False) for item in absent]
    return [bool((norms[some] < UNTRAINED).all()) for some in ids]


def settings() -> list[dict]:
    """Seed by seed, both arms."""
    return [{"arm": arm, "seed": seed} for seed in range(SEEDS) for arm in ARMS]
