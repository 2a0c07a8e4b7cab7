"""Text generation: batched prompts, key-value cache, greedy decoding or sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from sftlab._internal.ranges import check_number, check_seed, check_whole
from sftlab.chat import Message, encode, end_of_turn_id, user
from sftlab.errors import WorkbookError


@dataclass(frozen=True)
class Generation:
    """The text that a model generated after one prompt."""

    text: str  # without the stop token
    ids: list[int]  # without the stop token
    stopped: bool  # True if the model wrote a stop token, False if it reached the limit


def next_token_distribution(logits: torch.Tensor) -> torch.Tensor:
    """Return P(next token): the softmax of the logits at the *last* position.

    Args:
        logits: (length, vocabulary), as a causal model returns them for one sequence.

    Returns:
        (vocabulary,), probabilities that sum to 1, in float32 or float64. Softmax subtracts the
        largest logit first, so large logits do not overflow.
    """
    last = logits[-1]
    return last.softmax(-1) if last.dtype == torch.float64 else last.float().softmax(-1)


@torch.no_grad()
def top_tokens(model, tokenizer, prompt: str | list[int], k: int = 5) -> list[tuple[str, float]]:
    """Return the ``k`` most probable next tokens after a prompt, with their probabilities."""
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    logits = model(torch.tensor([ids], device=model.device)).logits[0]
    found = next_token_distribution(logits).topk(k)
    ids, chances = found.indices.tolist(), found.values.tolist()
    return [(tokenizer.decode([i]), p) for i, p in zip(ids, chances, strict=True)]


def stop_tokens(tokenizer) -> set[int]:
    """Return the ids that end an answer or a document.

    These are the end-of-turn token, the end-of-text token and the begin token of a new document. A
    begin token that the chat template writes is not included (SmolLM2-Instruct opens every turn
    with it): a model that continues with another turn has not stopped.
    """
    stops, begin = {tokenizer.eos_token_id}, tokenizer.bos_token_id
    if tokenizer.chat_template:
        stops.add(end_of_turn_id(tokenizer))
    if not tokenizer.chat_template or begin not in encode(tokenizer, user("a")):
        stops.add(begin)
    return stops - {None}


def _thaw_head(model) -> list[torch.Tensor]:
    """Let a frozen bfloat16 head require gradients; return the weights to freeze again.

    On a CPU, torch 2.13 has two ways to multiply by a bfloat16 weight when no gradient is needed.
    The one for frozen weights is sixty times slower with Gemma's 262,144 tokens.
    """
    head = next((m for n, m in model.named_modules() if n == "lm_head"), None)
    weight = getattr(head, "weight", None)
    if weight is None or weight.dtype != torch.bfloat16 or weight.requires_grad:
        return []
    return [weight.requires_grad_(True)]


@torch.no_grad()
def generate(
    model,
    tokenizer,
    prompts: Sequence[str | list[int]],
    max_new_tokens: int = 48,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 128,
) -> list[Generation]:
    """Generate a continuation of every prompt, token by token.

    Args:
        prompts: texts, or token ids as ``chat.encode`` returns them.
        max_new_tokens: limit for each continuation; one that reaches it has ``stopped=False``.
        temperature: 0 for greedy decoding, which is deterministic; otherwise tokens are sampled.
            Samples are reproducible for the same ``seed``, prompts and ``batch_size``.
        batch_size: number of prompts decoded together. Prompts are padded on the left so that all
            end at the same position, and positions are counted from the first real token of each
            prompt. With greedy decoding, a prompt therefore gets the same answer in a batch as
            alone.

    Raises:
        WorkbookError: a prompt is empty, ``prompts`` is a single text instead of a list, or an
            option is out of range.
    """
    if isinstance(prompts, str):
        raise WorkbookError("prompts is one text; put it into a list: [prompt]")
    check_whole("max_new_tokens", max_new_tokens, 0)
    check_whole("batch_size", batch_size, 1)
    check_number("temperature", temperature, lambda t: 0 <= t < math.inf,
                 "it must be at least 0, and finite; 0 is greedy")  # fmt: skip
    check_seed(seed)
    rows = [tokenizer.encode(p) if isinstance(p, str) else list(p) for p in prompts]
    if not all(rows):
        number = rows.index([]) + 1
        raise WorkbookError(f"prompt {number} is empty: there is nothing to continue; write a text")
    randomness = torch.Generator().manual_seed(seed) if temperature > 0 else None
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # similar lengths together
    found: dict[int, Generation] = {}
    stops = stop_tokens(tokenizer)
    was_training = model.training
    model.eval()
    thawed = _thaw_head(model)
    try:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = [rows[i] for i in chosen]
            written = _decode(model, batch, max_new_tokens, temperature, randomness, stops)
            for i, ids in zip(chosen, written, strict=True):
                stopped = bool(ids) and ids[-1] in stops
                ids = ids[:-1] if stopped else ids
                text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
                found[i] = Generation(text, ids, stopped)
    finally:
        model.train(was_training)
        for weight in thawed:
            weight.requires_grad_(False)
    return [found[i] for i in range(len(rows))]


def _decode(model, rows, max_new_tokens, temperature, randomness, stops) -> list[list[int]]:
    """Decode one batch. Finished sequences are computed, but ignored, until all are finished."""
    width = max(map(len, rows))
    device = model.device
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    written: list[list[int]] = [[] for _ in rows]
    open_rows = set(range(len(rows)))
    for _ in range(max_new_tokens):
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        ).logits[:, -1].float()  # fmt: skip
        if temperature > 0:
            chances = (logits / temperature).softmax(-1).cpu()
            chosen = torch.multinomial(chances, 1, generator=randomness).squeeze(-1).to(device)
        else:
            chosen = logits.argmax(-1)
        for row, token in enumerate(chosen.tolist()):
            if row in open_rows:
                written[row].append(token)
                if token in stops:
                    open_rows.discard(row)
        if not open_rows:
            break
        ids = chosen.unsqueeze(-1)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)
        positions = positions[:, -1:] + 1
    return written


def answer(model, tokenizer, prompts: Sequence[str | list[Message]], **options) -> list[Generation]:
    """Let a chat model answer each prompt (a text or a list of messages) in its chat template.

    ``options`` are those of ``generate``.
    """
    if isinstance(prompts, str):
        raise WorkbookError("prompts is one text; put it into a list: [prompt]")
    asked = [user(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    ids = [encode(tokenizer, messages, add_generation_prompt=True) for messages in asked]
    return generate(model, tokenizer, ids, **options)
