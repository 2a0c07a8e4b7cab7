"""The base trained on traces of a look-up: when does it call, and does it use what comes back?

LoRA on the base; 600 pairs on facts and 200 traces in 150 steps. The base has read the names of eleven
countries and never their capitals. A seed draws five of them; the traces look up their capitals. The other
six, and countries whose capitals the base has read, occur in no pair and no trace. Arms:

``unknown``               as described
``known``                 the traces look up five capitals that the base has read
``unknown, all``          the results of the tool are trained as well
``unknown, any result``   each trace has the capital of some other country as its result, and in its answer
``braces``                as ``unknown``, but calls are written as in Qwen3's chat template
``braces, embeddings``    the same, and the embeddings are trained beside the adapters

For each group of countries: the share of questions that are answered by the exact call (``call``), by the
right sentence (``right``). With the call and a result given, the share of answers that name the result
(``used``: the true one; ``believed``: the capital of another country).
This takes about half an hour on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from sftlab.almanac.facts import Item, items
from sftlab.almanac.pairs import pairs
from sftlab.data import conversation
from sftlab.exercises.ex25_tools_and_thoughts.traces import (
    BRACES,
    WORDS,
    Style,
    calling,
    encoded,
    parts,
    prompt,
)
from sftlab.generate import generate
from sftlab.lora import inject_lora
from sftlab.masking import Example
from sftlab.models import load
from sftlab.train import TrainConfig, sft_train

RECORD = "tool_calls"  # data/results/tool_calls.json

SEEDS = 5
TRACED = 5  # countries
PAIRS, TRACES, STEPS, BATCH = 600, 200, 150, 16
RATES = (2e-3, 4e-3)
LIMIT = 64  # new tokens
UNKNOWN, KNOWN, ALL, ANY, BRACED, EMBEDDINGS = (
    "unknown", "known", "unknown, all", "unknown, any result", "braces", "braces, embeddings",
)  # fmt: skip
ARMS = (UNKNOWN, KNOWN, ALL, ANY, BRACED, EMBEDDINGS)
GROUPS = ("traced", "never read", "read once", "read often")


def capitals(stratum: str, split: str = "heldout") -> list[Item]:
    """Return the questions about capitals of a stratum and split of the almanac."""
    return [item for item in items("capital") if (item.stratum, item.split) == (stratum, split)]


def groups(arm: str, seed: int) -> dict[str, list[Item]]:
    """Return the countries of each group. Those of one group only are traced."""
    rng = Random(seed)
    absent = rng.sample(capitals("absent"), len(capitals("absent")))
    known = rng.sample(capitals("known", "train"), TRACED)
    return {
        "traced": known if arm == KNOWN else absent[:TRACED],
        "never read": absent[TRACED:],
        "read once": capitals("single"),
        "read often": rng.sample(capitals("known"), 40),
    }


def style(arm: str) -> Style:
    return BRACES if arm in (BRACED, EMBEDDINGS) else WORDS


def trace(item: Item, question: str, result: str = "") -> list[dict]:
    """Return a conversation that looks a fact up, with the given or the true result."""
    value = result or item.value
    return [
        {"role": "user", "content": question},
        calling(item.kind, item.subject),
        {"role": "tool", "content": value},
        {"role": "assistant", "content": item.answer.replace(item.value, value)},
    ]


def examples(tokenizer, arm: str, seed: int) -> list[Example]:
    """Return the pairs and traces of a run as training examples."""
    rng, traced = Random(seed), groups(arm, seed)["traced"]
    names = {item.subject for item in traced}
    rows = [conversation(row) for row in pairs(PAIRS, seed) if row["subject"] not in names]
    others = [item.value for item in capitals("known", "train")]
    for number in range(TRACES):
        item = traced[number % TRACED]
        result = rng.choice(others) if arm == ANY else ""
        rows.append(trace(item, rng.choice(item.questions), result))
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


def replies(model, tokenizer, asked: Sequence[list[dict]], written: Style) -> list[str]:
    ids = [prompt(tokenizer, messages, written) for messages in asked]
    return [reply.text for reply in generate(model, tokenizer, ids, max_new_tokens=LIMIT)]


def measure(model, tokenizer, some: Sequence[Item], written: Style, wordings: int) -> dict[str, float]:  # fmt: skip
    """Return the shares of the module docstring for a group of countries, in several wordings."""
    asked = [(item, question) for item in some for question in item.questions[:wordings]]
    first = replies(model, tokenizer, [trace(*each)[:1] for each in asked], written)
    calls = [written.call(calling(item.kind, item.subject)["tool_calls"][0]) for item, _ in asked]
    found = {
        "call": [a == b for a, b in zip(first, calls, strict=True)],
        "right": [a == item.answer for a, (item, _) in zip(first, asked, strict=True)],
    }
    rng, others = Random("other"), [item.value for item in capitals("known", "train")]
    for name in ("used", "believed"):
        given = [
            item.value if name == "used" else rng.choice([o for o in others if o != item.value])
            for item, _ in asked
        ]
        rows = [trace(*each, value) for each, value in zip(asked, given, strict=True)]
        last = replies(model, tokenizer, [row[:3] for row in rows], written)
        found[name] = [value in reply for reply, value in zip(last, given, strict=True)]
    return {name: sum(each) / len(each) for name, each in found.items()}


def run(arm: str, learning_rate: float, seed: int) -> dict[str, dict[str, float]]:
    """Train one arm; return the shares of each group of countries."""
    model, tokenizer = load("almanac")
    made = examples(tokenizer, arm, seed)
    train(model, tokenizer, made, learning_rate, seed, embeddings=arm == EMBEDDINGS)
    return {
        name: measure(model, tokenizer, some, style(arm), 1 if name == "read often" else 5)
        for name, some in groups(arm, seed).items()
    }


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"arm": arm, "learning_rate": rate, "seed": seed}
        for seed in range(SEEDS)
        for arm in ARMS
        for rate in RATES
    ]


CONFIRM = {"arm": UNKNOWN, "learning_rate": RATES[0], "seed": 0}
