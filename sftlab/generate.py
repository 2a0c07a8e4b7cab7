"""Decoding: batches of prompts, a key/value cache, greedy or sampled; next-token probabilities."""

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
    """What a model wrote after one prompt."""

    text: str  # without the stop token
    ids: list[int]  # without the stop token
    stopped: bool  # True if it wrote a stop token itself, False if it ran into the limit


def next_token_distribution(logits: torch.Tensor) -> torch.Tensor:
    """P(next token): the softmax of the logits at the *last* position.

    Args:
        logits: (length, vocabulary), as a causal model returns them for one text.

    Returns:
        (vocabulary,) probabilities that sum to 1, in float32 at least: softmax subtracts the
        largest logit first, so that large ones do not overflow.
    """
    last = logits[-1]
    return last.softmax(-1) if last.dtype == torch.float64 else last.float().softmax(-1)


@torch.no_grad()
def top_tokens(model, tokenizer, prompt: str | list[int], k: int = 5) -> list[tuple[str, float]]:
    """The ``k`` likeliest next tokens after a prompt, with their probabilities."""
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    logits = model(torch.tensor([ids], device=model.device)).logits[0]
    found = next_token_distribution(logits).topk(k)
    ids, chances = found.indices.tolist(), found.values.tolist()
    return [(tokenizer.decode([i]), p) for i, p in zip(ids, chances, strict=True)]


def stop_tokens(tokenizer) -> set[int]:
    """Ids that end an answer or a document: end of turn, end of text, a new document's beginning.

    A begin token that the chat template writes is none of them (SmolLM2-Instruct opens every turn
    with it): a model that goes on with another turn has not stopped.
    """
    stops, begin = {tokenizer.eos_token_id}, tokenizer.bos_token_id
    if tokenizer.chat_template:
        stops.add(end_of_turn_id(tokenizer))
    if not tokenizer.chat_template or begin not in encode(tokenizer, user("a")):
        stops.add(begin)
    return stops - {None}


def _thaw_head(model) -> list[torch.Tensor]:
    """Let a frozen bfloat16 head require gradients; returns what has to be frozen again.

    On a processor torch 2.13 has two ways to multiply by a bfloat16 weight if no gradient is
    wanted. The one for frozen weights is sixty times slower with Gemma's 262,144 tokens.
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
    """Continue every prompt, token by token.

    Args:
        prompts: texts, or token ids (as ``chat.encode`` gives them).
        max_new_tokens: limit for each; one that reaches it has ``stopped=False``.
        temperature: 0 is greedy, and nothing is random; otherwise sampled, reproducibly by ``seed``
            for the same prompts and ``batch_size``.
        batch_size: how many are decoded together. Rows are padded on the left, so that all end at
            the same place, and positions are counted from each row's first real token: greedily,
            a row in a batch gets the answer that it would get alone.

    Raises:
        WorkbookError: a prompt is empty, ``prompts`` is one text instead of a list, or an option is
            out of its range.
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
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # like lengths together
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
    """One batch. A finished row goes on computing, its tokens ignored, until all are finished."""
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
    """Ask a chat model: each prompt (a text or messages) in the model's own template.

    ``options`` are those of ``generate``.
    """
    if isinstance(prompts, str):
        raise WorkbookError("prompts is one text; put it into a list: [prompt]")
    asked = [user(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    ids = [encode(tokenizer, messages, add_generation_prompt=True) for messages in asked]
    return generate(model, tokenizer, ids, **options)
