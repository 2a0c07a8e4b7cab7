"""How many pairs teach the format of an answer, and how many its content: n = 0 … 500, three arms.

Arms: ``answers`` are curated pairs without refusals; ``with refusals`` has the same pairs, of which
5% (at least one) are replaced by pairs that say "I do not know …"; ``shuffled`` has the same prompts,
but each response belongs to another question of the same kind, so that its format is right and its
content is not.

Every n trains for the same number of steps. Further runs of the arm ``answers`` train for the same
number of epochs, because more pairs at equal steps also mean fewer repetitions of each; and some train
for fewer steps, to see what comes first and whether 8 pairs were trained for too long.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from random import Random

import torch

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.curated import NEVER_TRAINED, curated
from sftlab.almanac.pairs import ASKED, stratum_questions
from sftlab.chat import encode, user
from sftlab.data import conversation, read_jsonl, tokenize_conversations
from sftlab.exercises.ex02_superficial_alignment.rank_shift import forced_logits, token_rank_shift
from sftlab.generate import Generation, answer
from sftlab.lora import disable_lora, inject_lora
from sftlab.models import load
from sftlab.scoring import format_compliance, right_content
from sftlab.train import TrainConfig, sft_train

RECORD = "superficial"  # data/results/superficial.json

ARMS = ("answers", "with refusals", "shuffled")
SIZES = (0, 8, 32, 128, 500)
SEEDS = 5
# Five seeds left open what one refusal among eight pairs does, so ten others, drawn after that,
# answer this question alone.
FRESH_SEEDS = range(SEEDS, SEEDS + 10)
STEPS = 120  # of 16 examples, or of all if there are fewer
EQUAL_EPOCHS = {8: 4, 32: 8, 128: 32}  # steps: four epochs, as many as 500 pairs get in 120 steps
# Further runs with few steps; those with 32 (128 pairs), 4 (8 pairs) and 120 are among the others.
# With 8 pairs, 120 steps could be too many: then more pairs would help for this reason alone.
FEW_STEPS = (
    *(("answers", 128, steps) for steps in (4, 8, 16)),
    *(("answers", 8, steps) for steps in (16, 32)),
    ("shuffled", 128, 16),
)
REFUSALS = 0.05  # share of refusals in the arm "with refusals"
POOL = 600  # curated pairs, before conversations of several turns are left out
DOCUMENT_END = "<|endoftext|>"  # of the embedded base
SHIFTED = 60  # questions whose answers are ranked under the base
GROUPS = ("facts", "skills", "never trained", "unknown", "single", "absent")


@cache
def questions() -> tuple[dict, ...]:
    """Return all questions, each with its ``group``; no subject is in any pair.

    The evaluation set in four groups: plain ``facts``, ``skills`` (lists, comparisons, stories …),
    known facts and a skill of kinds ``never trained``, and ``unknown`` names, where a refusal is
    right. Then ``single``: facts that the base read in one fixed sentence; and ``absent``: facts
    that are in none of its documents.
    """
    groups = {**dict.fromkeys(ASKED, "facts"), "unknown": "unknown"}
    groups |= dict.fromkeys(NEVER_TRAINED, "never trained")
    found = read_jsonl(INSTRUCTIONS / "evaluation.jsonl")
    made = [{**q, "group": groups.get(q["kind"], "skills")} for q in found]
    for stratum in ("single", "absent"):
        made += [{**q, "group": stratum} for q in stratum_questions(stratum)]
    return tuple(made)


@cache
def single_turns() -> tuple[dict, ...]:
    """Return the pool that all samples are drawn from: curated pairs of one turn."""
    return tuple(pair for pair in curated(POOL) if "messages" not in pair)


def training_pairs(arm: str, pairs: int, seed: int) -> list[dict]:
    """Return a seed's sample of the pool in one arm; larger samples contain the smaller ones.

    The three arms have the same prompts, except where a refusal replaces a pair.
    """
    rng = Random(f"superficial:{seed}")
    pool = list(single_turns())
    rng.shuffle(pool)
    refusals = [pair for pair in pool if pair["kind"] == "unknown"]
    found = [pair for pair in pool if pair["kind"] != "unknown"]
    if arm == "shuffled":
        found = shuffled_within_kind(found, rng)
    found = found[:pairs]
    if arm == "with refusals" and pairs:
        count = max(1, round(REFUSALS * pairs))
        found[-count:] = refusals[:count]
        rng.shuffle(found)
    return found


def shuffled_within_kind(pairs: Sequence[dict], rng: Random) -> list[dict]:
    """Return the pairs with the responses of each kind exchanged among its prompts.

    Lists are exchanged with lists of the same length, so that the format stays right. Shifting a
    shuffled order by one gives every prompt the response of another pair.
    """
    found = list(pairs)
    alike = [(pair["kind"], pair.get("count", 0)) for pair in pairs]
    for kind in sorted(set(alike)):
        places = [k for k, other in enumerate(alike) if other == kind]
        rng.shuffle(places)
        for place, other in zip(places, places[1:] + places[:1], strict=True):
            found[place] = {**pairs[place], "response": pairs[other]["response"]}
    return found


def tuned(rows: Sequence[dict], seed: int, name: str = "almanac", steps: int = STEPS):
    """Return the base model after LoRA on some pairs (unchanged for none), and its tokenizer."""
    model, tokenizer = load(name)
    if not rows:
        return model, tokenizer
    examples = tokenize_conversations(tokenizer, [conversation(row) for row in rows]).examples
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    epochs = -(-steps * 16 // len(rows)) + 1
    config = TrainConfig(learning_rate=2e-3, num_train_epochs=epochs, max_steps=steps, seed=seed)
    history = sft_train(model, examples, config, tokenizer.pad_token_id, progress=False)
    if not history.finished:
        raise KeyboardInterrupt  # an incomplete run is not measured
    return model, tokenizer


def ask(model, tokenizer, asked: Sequence[dict], limit: int = 48) -> list[Generation]:
    """Return the answers in the chat template. Only the end-of-turn token ends an answer."""
    strict = copy.deepcopy(tokenizer)
    # The base model often begins a new document; that does not end an answer.
    strict.bos_token = None
    return answer(model, strict, [q["prompt"] for q in asked], max_new_tokens=limit)


def refuses(text: str) -> bool:
    """Return whether a reply says that the model does not know."""
    return "not know" in text


def in_format(question: dict, text: str) -> bool:
    """Return whether a text has the format that the question asks for, whatever it says."""
    fits = format_compliance(text, question.get("count"))
    return fits and len(text.split()) <= question.get("words", 1000)


def marks(asked: Sequence[dict], replies: Sequence[Generation]) -> dict[str, str]:
    """Return one character per question: what kind of reply it is, and whether it is right.

    ``format``: "a" for an answer in the requested format that ends with the end-of-turn token; "r"
    for such a reply that refuses; "d" for a reply in the requested format up to the base's own end
    of document, which is not an end of turn; "-" otherwise. ``content``: "1" if the reply, up to
    that end, has the right content, else "0".
    """
    found = {"format": "", "content": ""}
    for question, reply in zip(asked, replies, strict=True):
        text = reply.text.partition(DOCUMENT_END)[0]
        ended = reply.stopped and text == reply.text
        fits = in_format(question, text) and (ended or text != reply.text)
        found["format"] += "-" if not fits else "d" if not ended else "r" if refuses(text) else "a"
        found["content"] += str(int(right_content(question, text)))
    return found


def base_ranks(model, tokenizer, asked: Sequence[dict], replies: Sequence[Generation]) -> list:
    """Return the ranks, under the base, of each reply's tokens; the end-of-turn token comes last.

    ``model`` is the base with adapters, which are switched off here. A reply that the model did not
    end is left out.
    """
    end = tokenizer.eos_token_id
    found = []
    with disable_lora(model):
        for question, reply in zip(asked, replies, strict=True):
            if reply.stopped:
                prompt = encode(tokenizer, user(question["prompt"]), add_generation_prompt=True)
                ids = [*reply.ids, end]
                logits = forced_logits(model, prompt, ids)
                found.append(token_rank_shift(logits, torch.tensor(ids)).tolist())
    return found


def run(arm: str, pairs: int, seed: int, steps: int) -> dict:
    """Train on ``pairs`` pairs of an arm, and ask all questions."""
    model, tokenizer = tuned(training_pairs(arm, pairs, seed), seed, steps=steps)
    asked = questions()
    replies = ask(model, tokenizer, asked)
    found = {**marks(asked, replies), "answers": [g.text for g in replies[::40]]}
    if steps == STEPS:
        few = [k for k, q in enumerate(asked) if q["group"] == "facts"][::4][:SHIFTED]
        chosen = [asked[k] for k in few], [replies[k] for k in few]
        found["ranks"] = base_ranks(model, tokenizer, *chosen)
    return found


def settings() -> list[dict]:
    """Return five seeds of every arm and size, the runs with few steps, and the base alone.

    Then ten further seeds of eight pairs with and without a refusal.
    """
    found = [{"arm": "answers", "pairs": 0, "seed": 0, "steps": 0}]
    for seed in range(SEEDS):
        found += [
            {"arm": arm, "pairs": n, "seed": seed, "steps": STEPS}
            for arm in ARMS
            for n in SIZES[1:]
        ]
        found += [
            {"arm": arm, "pairs": n, "seed": seed, "steps": steps}
            for arm, n, steps in [*(("answers", *few) for few in EQUAL_EPOCHS.items()), *FEW_STEPS]
        ]
    return found + [
        {"arm": arm, "pairs": 8, "seed": seed, "steps": STEPS}
        for seed in FRESH_SEEDS for arm in ARMS[:2]
    ]  # fmt: skip
