"""The base trained on traces of a look-up: when does it call, and does it use what comes back?

LoRA on the base; 600 pairs on facts and 200 traces in 150 steps. The base has read the names of eleven
countries and never their capitals. A seed draws five of them; the traces look up their capitals. The other
six, and countries whose capitals the base has read, occur in no pair and no trace. Arms:

``unknown``               as described
``both kinds``            as ``unknown``, but 200 of the 600 pairs ask for capitals that the base has read
``known``                 the traces look up five capitals that the base has read
``unknown, all``          the results of the tool are trained as well
``unknown, any result``   each trace has the capital of some other country as its result, and in its answer
``any result, long``      the same in four times as many steps
``many words``            as ``unknown``, with a call of about as many tokens as the next one, in words
``braces``                as ``unknown``, but calls are written as in Qwen3's chat template
``braces, embeddings``    the same; the embeddings, which are the head as well, are trained beside the adapters

Each group of countries is asked in five wordings. For each country: how many of these are answered by the exact
call (``call``), begin like a call (``begins``), or are answered by the right sentence (``right``). With the call
and a result given: how many answers name the result, the true one (``used``) or the capital of another country
(``believed``), and the mean log-probability of the sentence with the result that is given, minus that of the same
sentence after the other result (``read``, in nats). ``other facts`` asks for continent and language of the countries
never read, which the base has read. The learning rate of an arm is chosen by two of the six countries and by known
countries, none of which are reported. This takes about an hour and a half on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import count
from random import Random

import torch

from sftlab.almanac.facts import Item, items
from sftlab.almanac.pairs import pairs
from sftlab.data import conversation
from sftlab.exercises.ex25_tools_and_thoughts.traces import (
    BRACES,
    WORDS,
    WORDY,
    Message,
    Style,
    calling,
    encoded,
    parts,
    prompt,
)
from sftlab.generate import generate
from sftlab.lora import inject_lora
from sftlab.loss import model_loss
from sftlab.masking import Example
from sftlab.models import load
from sftlab.train import TrainConfig, sft_train

RECORD = "tool_calls"  # data/results/tool_calls.json

SEEDS, MORE, TRACED = 5, 10, 5  # MORE: seeds of the two arms that decide; TRACED: countries
PAIRS, TRACES, STEPS, BATCH = 600, 200, 150, 16
DIRECT = 200  # pairs that ask for a capital, if both kinds are trained
LIMIT = 96  # new tokens
WORDINGS = 5
UNKNOWN, BOTH, KNOWN, ALL, ANY, LONGER, MANY_WORDS, BRACED, EMBEDDINGS = (
    "unknown", "both kinds", "known", "unknown, all", "unknown, any result", "any result, long", "many words", "braces", "braces, embeddings",
)  # fmt: skip
RATES = {
    UNKNOWN: (1e-3, 2e-3, 4e-3), BOTH: (1e-3, 2e-3, 4e-3), KNOWN: (1e-3, 2e-3, 4e-3), ALL: (1e-3, 2e-3, 4e-3), ANY: (1e-3, 2e-3, 4e-3), LONGER: (2e-3,),
    MANY_WORDS: (2e-3, 4e-3), BRACED: (2e-3, 4e-3), EMBEDDINGS: (1e-3, 2e-3, 4e-3),
}  # fmt: skip
ARMS = tuple(RATES)
STYLES = {MANY_WORDS: WORDY, BRACED: BRACES, EMBEDDINGS: BRACES}
GROUPS = ("traced", "never read", "in one sentence", "read often")
VALIDATION, OTHER = "validation", "other facts"


@cache
def capitals(stratum: str, split: str = "heldout") -> tuple[Item, ...]:
    """Return the questions about capitals of a stratum and split of the almanac, in a fixed order."""
    found = [item for item in items("capital") if (item.stratum, item.split) == (stratum, split)]
    return tuple(Random("capitals").sample(found, len(found)))


def groups(arm: str, seed: int) -> dict[str, list[Item]]:
    """Return the countries of each group. The seed decides which ones are traced."""
    unread = Random(seed).sample(capitals("absent"), len(capitals("absent")))
    known = Random(seed).sample(capitals("known", "train"), TRACED)
    return {
        "traced": known if arm == KNOWN else unread[:TRACED],
        "never read": unread[TRACED:],
        "in one sentence": list(capitals("single")),
        "read often": list(capitals("known")[17:]),
        VALIDATION: list(capitals("known")[:17]),
    }


def style(arm: str) -> Style:
    return STYLES.get(arm, WORDS)


def trace(item: Item, question: str, result: str = "") -> list[Message]:
    """Return a conversation that looks a fact up, with the given or the true result."""
    value = result or item.value
    return [
        {"role": "user", "content": question},
        calling(item.kind, item.subject),
        {"role": "tool", "content": value},
        {"role": "assistant", "content": item.answer.replace(item.value, value)},
    ]


def look_up(fact: str, name: str) -> str:
    """Look a fact up.

    Args:
        fact: What is asked, such as capital.
        name: Of whom, such as Samoa.
    """
    return {item.subject: item.value for item in items(fact)}[name]


def ordinary(number: int, seed: int, names: set[str]) -> list[dict]:
    """Return pairs on facts of other subjects than these names."""
    for size in count(number, 20):
        found = [pair for pair in pairs(size, seed) if pair["subject"] not in names]
        if len(found) >= number:
            return found[:number]
    raise AssertionError  # count has no end


def direct(number: int, seed: int) -> list[list[Message]]:
    """Return questions about capitals that the base has read, each with its answer and no call."""
    rng, some = Random(f"direct {seed}"), capitals("known", "train")
    return [trace(i, rng.choice(i.questions))[::3] for i in rng.choices(some, k=number)]


def examples(tokenizer, arm: str, seed: int) -> list[Example]:
    """Return the pairs and traces of a run as training examples."""
    traced = groups(arm, seed)["traced"]
    extra = direct(DIRECT, seed) if arm == BOTH else []
    names = {item.subject for item in traced}
    rows = [conversation(row) for row in ordinary(PAIRS - len(extra), seed, names)] + extra
    others = [item.value for item in capitals("known", "train")]
    wording, other = Random(f"wording {seed}"), Random(f"other {seed}")
    for number in range(TRACES):
        item = traced[number % TRACED]
        result = other.choice(others) if arm in (ANY, LONGER) else ""
        rows.append(trace(item, wording.choice(item.questions), result))
    made = []
    for row in rows:
        some = parts(row, style(arm))
        if arm == ALL:
            results = [3 * n + 1 for n, message in enumerate(row) if message["role"] == "tool"]
            some = [(text, on or n in results) for n, (text, on) in enumerate(some)]
        made.append(encoded(tokenizer, some))
    return made


def train(model, tokenizer, made: Sequence[Example], rate: float, seed: int, embeddings: bool = False, steps: int = STEPS) -> None:  # fmt: skip
    """Train LoRA, and the embeddings with it if that is asked for."""
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    if embeddings:
        model.get_input_embeddings().weight.requires_grad_(True)
    config = TrainConfig(learning_rate=rate, num_train_epochs=steps, max_steps=steps, batch_size=BATCH, seed=seed)  # fmt: skip
    history = sft_train(model, made, config, tokenizer.pad_token_id, progress=False, check=False)
    if not history.finished:
        raise KeyboardInterrupt  # half a run is not measured


def replies(model, tokenizer, asked: Sequence[list[Message]], written: Style, begun: Sequence[str] = ()) -> list[str]:  # fmt: skip
    """Return the greedy replies to conversations; ``begun`` holds the beginning of each, if any."""
    starts = begun or [""] * len(asked)
    ids = [
        prompt(tokenizer, messages, written, b) for messages, b in zip(asked, starts, strict=True)
    ]
    return [reply.text for reply in generate(model, tokenizer, ids, max_new_tokens=LIMIT)]


@torch.no_grad()
def log_probability(model, tokenizer, before: list[int], text: str) -> float:
    """Return the log-probability of a text behind some tokens, in nats."""
    tokens = tokenizer.encode(text, add_special_tokens=False)
    ids = torch.tensor([before + tokens])
    labels = torch.tensor([[-100] * len(before) + tokens])
    mask = torch.ones_like(ids)
    return -model_loss(model, {"input_ids": ids, "labels": labels, "attention_mask": mask})[0].item()  # fmt: skip


def first_replies(model, tokenizer, some: Sequence[Item], written: Style) -> dict[str, dict[str, int]]:  # fmt: skip
    """Return for each item how many of its wordings are answered by the exact call, and so on."""
    asked = [(item, question) for item in some for question in item.questions[:WORDINGS]]
    found = replies(model, tokenizer, [trace(*each)[:1] for each in asked], written)
    begin = written.form.partition("%")[0]
    counts: dict[str, dict[str, int]] = {name: {} for name in ("call", "begins", "right")}
    for (item, _), reply in zip(asked, found, strict=True):
        call = written.call(calling(item.kind, item.subject)["tool_calls"][0])
        truths = {"call": reply == call, "begins": reply.startswith(begin), "right": reply == item.answer}  # fmt: skip
        for name, true in truths.items():
            counts[name][item.subject] = counts[name].get(item.subject, 0) + true
    return counts


def last_replies(model, tokenizer, some: Sequence[Item], written: Style) -> dict[str, dict[str, float]]:  # fmt: skip
    """Return for each item whether its answer names a true and a false result, and how far it reads it."""
    pool = [item.value for item in capitals("known", "train")]
    rng = Random("other")
    false = [rng.choice([value for value in pool if value != item.value]) for item in some]
    found: dict[str, dict[str, float]] = {}
    rows = {
        "used": [trace(item, item.question) for item in some],
        "believed": [
            trace(item, item.question, value) for item, value in zip(some, false, strict=True)
        ],
    }
    for name, talks in rows.items():
        last = replies(model, tokenizer, [talk[:3] for talk in talks], written)
        found[name] = {
            item.subject: int(talk[2]["content"] in reply)
            for item, talk, reply in zip(some, talks, last, strict=True)
        }
    found["read"] = {}
    for item, true, wrong in zip(some, rows["used"], rows["believed"], strict=True):
        given, other = (prompt(tokenizer, talk[:3], written) for talk in (wrong, true))
        text = wrong[3]["content"]
        after, without = (log_probability(model, tokenizer, ids, text) for ids in (given, other))
        found["read"][item.subject] = round(after - without, 4)
    return found


def other_facts(names: set[str]) -> list[Item]:
    """Return the questions about continent and language of countries."""
    return [
        item for kind in ("continent", "language") for item in items(kind) if item.subject in names
    ]


def run(arm: str, learning_rate: float, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Train one arm; return what the module docstring names, by group and country."""
    model, tokenizer = load("almanac")
    made = examples(tokenizer, arm, seed)
    steps = 4 * STEPS if arm == LONGER else STEPS
    train(model, tokenizer, made, learning_rate, seed, arm == EMBEDDINGS, steps)
    found = {}
    for name, some in groups(arm, seed).items():
        found[name] = first_replies(model, tokenizer, some, style(arm))
        if name in ("never read", "read often"):
            found[name] |= last_replies(model, tokenizer, some, style(arm))
    names = {item.subject for item in groups(arm, seed)["never read"]}
    by_kind = {
        kind: first_replies(
            model, tokenizer, [i for i in other_facts(names) if i.kind == kind], style(arm)
        )
        for kind in ("continent", "language")
    }
    found[OTHER] = {
        name: {f"{kind} of {s}": n for kind, each in by_kind.items() for s, n in each[name].items()}
        for name in ("call", "begins", "right")
    }
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"arm": arm, "learning_rate": rate, "seed": seed}
        for seed in range(MORE)
        for arm, rates in RATES.items()
        for rate in rates
        if seed < SEEDS or arm in (UNKNOWN, BOTH)
    ]


CONFIRM = {"arm": UNKNOWN, "learning_rate": 2e-3, "seed": 0}
