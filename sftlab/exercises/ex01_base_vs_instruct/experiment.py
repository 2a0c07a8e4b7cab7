"""What makes a model answer: which weights, and which rendering of the prompt?

The replies to 162 prompts of 27 kinds are classified (see ``classify_reply``) for every model and every
rendering. The recorded part trains the base anew over five seeds, on the same pairs in four arms: as
bare text, in the chat template, in the chat template with the loss on every token, and in the chat
template with as many beginnings of documents beside them, which are bare text. Each of the twenty
models is tested on bare text and in the template. This takes about ten minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

import torch

from sftlab._internal.paths import INSTRUCTIONS
from sftlab.almanac.pairs import pairs
from sftlab.almanac.tune import documents_again
from sftlab.chat import encode, end_of_turn_id, user
from sftlab.compare import logits_of
from sftlab.data import read_jsonl
from sftlab.generate import Generation, generate, next_token_distribution
from sftlab.lora import inject_lora
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.models import load
from sftlab.scoring import is_instruction, names, score_answer
from sftlab.settings import TrainConfig
from sftlab.train import sft_train

RECORD = "answer_or_continue"  # data/results/answer_or_continue.json

BARE, TEMPLATE = "bare text", "chat template"
EVERY = "chat template, loss on every token"
DOCUMENTS = "chat template, and documents"
PAGE, SHOTS = "Q: … A:", "two examples, Q: … A:"
EXAMPLES = (
    "Q: What is the capital of Spain?\nA: The capital of Spain is Madrid.\n"
    "Q: What does the dog eat?\nA: The dog eats meat.\n"
)
OUTCOMES = ("answered", "continued", "stopped", "unrelated")
EACH = 6  # prompts of each kind
LIMIT = 40  # new tokens
SEEDS, PAIRS, STEPS, BATCH, RATE = 5, 200, 192, 16, 3e-3


def questions(each: int = EACH) -> list[dict]:
    """Return the first prompts of each of the 27 kinds of the evaluation set."""
    kinds: dict[str, list[dict]] = {}
    for question in read_jsonl(INSTRUCTIONS / "evaluation.jsonl"):
        kinds.setdefault(question["kind"], []).append(question)
    return [question for some in kinds.values() for question in some[:each]]


def renderings(tokenizer) -> dict[str, Callable[[str], list[int]]]:
    """Return the ways to present a prompt to a model, each a function from text to token ids."""
    return {
        BARE: lambda prompt: tokenizer.encode(prompt),
        TEMPLATE: lambda prompt: encode(tokenizer, user(prompt), add_generation_prompt=True),
        PAGE: lambda prompt: tokenizer.encode(f"Q: {prompt}\nA:"),
        SHOTS: lambda prompt: tokenizer.encode(f"{EXAMPLES}Q: {prompt}\nA:"),
    }


def about(question: dict) -> list[str]:
    """Return words of which a reply to a question names at least one: its subject, or its answer."""
    subject = question["subject"].removeprefix("the ").removeprefix("a ")
    words = [*question.get("topic", []), subject, *question.get("allowed", [])]
    for needed in question.get("must") or ([] if "allowed" in question else [question["value"]]):
        words += [needed] if isinstance(needed, str) else needed
    return words


def classify_reply(reply: str, about: Sequence[str]) -> str:
    """Return what a model did after a prompt: "answered", "continued", "stopped" or "unrelated".

    Args:
        reply: the text that the model wrote after the prompt.
        about: words of which a reply to this prompt names at least one.
    """
    lines = [line for line in reply.splitlines() if line.strip()]
    if not lines:
        return "stopped"
    if is_instruction(lines[0]):
        return "continued"
    told = takewhile(lambda line: not is_instruction(line), lines)
    found = any(names(line, word) for line in told for word in about)
    return "answered" if found else "unrelated"


def exactly_right(asked: Sequence[dict], written: Sequence[Generation]) -> list[bool]:
    """Return whether each reply is the right answer, nothing else, and ends."""
    return [score_answer(q, g.text, g.stopped).correct for q, g in zip(asked, written, strict=True)]


def bare_example(tokenizer, prompt: str, response: str) -> Example:
    """Return a training example without a template: the response stands in the line after the prompt."""
    asked = renderings(tokenizer)[BARE](prompt)
    answer = [*tokenizer.encode(f"\n{response}"), end_of_turn_id(tokenizer)]
    return Example([*asked, *answer], [IGNORE_INDEX] * len(asked) + answer)


def template_example(tokenizer, prompt: str, response: str) -> Example:
    """Return a training example in the chat template, with the loss on the response."""
    asked = renderings(tokenizer)[TEMPLATE](prompt)
    answer = [*tokenizer.encode(response), end_of_turn_id(tokenizer)]
    return Example([*asked, *answer], [IGNORE_INDEX] * len(asked) + answer)


def every_token_example(tokenizer, prompt: str, response: str) -> Example:
    """Return a training example in the chat template, with the loss on the prompt as well."""
    ids = template_example(tokenizer, prompt, response).input_ids
    return Example(ids, [IGNORE_INDEX, *ids[1:]])


TRAINED: dict[str, Callable[..., Example]] = {
    BARE: bare_example,
    TEMPLATE: template_example,
    EVERY: every_token_example,
    DOCUMENTS: template_example,
}


@torch.no_grad()
def chance_of_end(model, tokenizer, prompts: Iterable[list[int]]) -> list[float]:
    """Return the probability of the end-of-turn token directly after each prompt."""
    end = end_of_turn_id(tokenizer)
    return [next_token_distribution(logits_of(model, ids))[end].item() for ids in prompts]


def run(trained: str, seed: int) -> dict:
    """Train on 200 pairs in one rendering; test on bare text and in the chat template.

    Returns:
        For each tested rendering: "outcomes", a letter per prompt (those of ``OUTCOMES``); "exact",
        a digit per prompt; "end at once", the mean probability of the end-of-turn token directly
        after the prompt.
    """
    model, tokenizer = load("almanac")
    rows = pairs(PAIRS, seed)
    examples = [TRAINED[trained](tokenizer, row["prompt"], row["response"]) for row in rows]
    if trained == DOCUMENTS:
        examples += documents_again(tokenizer, PAIRS)
    inject_lora(model, target_modules="all-linear", r=8, lora_alpha=16, seed=seed)
    config = TrainConfig(learning_rate=RATE, num_train_epochs=STEPS, max_steps=STEPS, batch_size=BATCH, seed=seed)  # fmt: skip
    # Its check would object to the loss on the prompt, which is the point of one arm.
    history = sft_train(model, examples, config, tokenizer.pad_token_id, progress=False, check=False)  # fmt: skip
    if not history.finished:
        raise KeyboardInterrupt  # an incomplete run is not measured
    asked = questions()
    found: dict[str, str | float] = {}
    for name in (BARE, TEMPLATE):
        prompts = [renderings(tokenizer)[name](question["prompt"]) for question in asked]
        written = generate(model, tokenizer, prompts, LIMIT)
        outcomes = [classify_reply(g.text, about(q)) for q, g in zip(asked, written, strict=True)]
        found[f"outcomes on {name}"] = "".join(outcome[0] for outcome in outcomes)
        found[f"exact on {name}"] = "".join(str(int(x)) for x in exactly_right(asked, written))
        found[f"end at once on {name}"] = sum(chance_of_end(model, tokenizer, prompts)) / len(asked)
    return found


def settings() -> list[dict]:
    """Return every arm for every seed."""
    return [{"trained": trained, "seed": seed} for seed in range(SEEDS) for trained in TRAINED]
