"""Two conversations in a sequence of a model that is not trained: what the second one sees of the first.

With and without the block mask, with and without restarting positions, over 48 conversations. Each is put
behind another one, and the first is then changed:

``moved``      largest movement of a logit of the second when the first one is written backwards
``away``       largest distance of a logit of the second from those of the same conversation alone
``alone``      loss on the second one's answer, alone (nats per token)
``other``      the same behind a conversation about something else
``same``       the same behind a conversation with the same answer to the same question in other words

SmolLM2-135M-Instruct is a reconstruction of the published model from 4 bits, in plain ChatML. Fetch it
first: ``python -m sftlab fetch smollm2-instruct``. This takes about two minutes.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor

from sftlab.almanac.facts import Item, all_items
from sftlab.chat import CHATML, user
from sftlab.exercises.ex24_packing.experiment import kept_apart
from sftlab.loss import sft_loss
from sftlab.masking import Example, build_example
from sftlab.models import load
from sftlab.packing import in_sequences

RECORD = "packing_leaks"  # data/results/packing_leaks.json

MODELS = ("almanac", "smollm2-instruct")
CONVERSATIONS = 48


def ready(name: str):
    """Return a model and its tokenizer, with plain ChatML."""
    model, tokenizer = load(name)
    tokenizer.chat_template = CHATML
    return model, tokenizer


def conversation(tokenizer, item: Item, wording: int = 0) -> Example:
    """Return a question on a fact with its answer."""
    answer = {"role": "assistant", "content": item.answer}
    return build_example(tokenizer, [*user(item.questions[wording]), answer])


def facts() -> list[Item]:
    """Return known facts with two wordings, drawn once."""
    found = [i for i in all_items() if i.stratum == "known" and i.asked and len(i.questions) > 1]
    return Random("packing").sample(found, CONVERSATIONS)


def pair(first: Example, second: Example, mask: bool, restart: bool) -> tuple[dict, Tensor]:
    """Return two examples in one sequence as a batch, and where the second one begins."""
    batch, document_ids = in_sequences([first, second], [[0, 1]], 0)
    return batch | kept_apart(document_ids, mask, restart), first.end


@torch.no_grad()
def second_logits(model, first: Example, second: Example, mask: bool, restart: bool) -> Tensor:
    """Return the logits of the second of two examples in a sequence, (1, length, vocabulary)."""
    batch, start = pair(first, second, mask, restart)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    return model(**inputs, use_cache=False).logits[:, start:]


def backwards(example: Example) -> Example:
    """Return the example with its tokens in the opposite order."""
    ids = example.input_ids[: example.end]
    return Example(ids[::-1], example.labels[: example.end])


@torch.no_grad()
def run(model: str, mask: bool, restart: bool) -> dict[str, list[float]]:
    """Return the measurements of the module docstring, one for each conversation."""
    network, tokenizer = ready(model)
    items = facts()
    found: dict[str, list[float]] = {k: [] for k in ("moved", "away", "alone", "other", "same")}
    for item, neighbor in zip(items, items[1:] + items[:1], strict=True):
        second = conversation(tokenizer, item)
        before = conversation(tokenizer, neighbor)
        labels = torch.tensor([second.labels[: second.end]])
        alone = network(torch.tensor([second.input_ids[: second.end]])).logits
        behind = {
            "other": before,
            "same": conversation(tokenizer, item, 1),
            "edited": backwards(before),
        }
        logits = {k: second_logits(network, first, second, mask, restart) for k, first in behind.items()}  # fmt: skip
        found["moved"].append(_farthest(logits["other"], logits["edited"]))
        found["away"].append(_farthest(logits["other"], alone))
        for name, some in {
            "alone": alone,
            "other": logits["other"],
            "same": logits["same"],
        }.items():
            found[name].append(sft_loss(some, labels).item())
    return found


def _farthest(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def settings() -> list[dict]:
    """Return all settings, model by model."""
    return [
        {"model": model, "mask": mask, "restart": restart}
        for model in MODELS
        for mask in (True, False)
        for restart in (True, False)
    ]
