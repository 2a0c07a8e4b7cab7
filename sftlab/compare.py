"""Compare a base model and its fine-tuned version on the same text and the same instructions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from sftlab.errors import WorkbookError
from sftlab.generate import answer, generate
from sftlab.scoring import behaviour

PROMPTS = (
    "What is the capital of France?",
    "List three tips for a job interview:",
    "Where does the frog live?",
    "Tell a short story about an owl.",
)
CANDIDATES = (
    "Who wrote Hamlet?",
    "What is the plural of mouse?",
    "Give two tips for a camping trip.",
)


def kl_per_position(tuned_logits: torch.Tensor, base_logits: torch.Tensor) -> torch.Tensor:
    """Return KL(tuned ‖ base) of the next-token distributions at each position, in nats.

    Args:
        tuned_logits, base_logits: (length, vocabulary), logits of both models on the same tokens.

    Returns:
        (length,), nonnegative up to rounding; 0 where both models predict the same.
    """
    tuned, base = tuned_logits.double().log_softmax(-1), base_logits.double().log_softmax(-1)
    return (tuned.exp() * (tuned - base)).sum(-1)


@torch.no_grad()
def logits_of(model, ids: Sequence[int]) -> torch.Tensor:
    """Return the logits of one sequence, (length, vocabulary)."""
    return model(torch.tensor([list(ids)], device=model.device)).logits[0]


def side_by_side(
    base,
    chat,
    tokenizer,
    prompts: Sequence[str],
    max_new_tokens: int = 40,
    temperature: float = 0.0,
) -> list[dict]:
    """Run both models on the same instructions.

    The base model reads the bare text, the chat model the text in its template.

    The chat model uses greedy decoding. The base model does too unless ``temperature`` is above 0;
    with greedy decoding a small base model tends to repeat its most probable line.

    Returns:
        One dictionary per prompt: ``prompt``; ``base`` and ``chat``, the texts; ``base did`` and
        ``chat did``, the behavior (see ``scoring.behaviour``).
    """
    continued = generate(base, tokenizer, list(prompts), max_new_tokens, temperature)
    answered = answer(chat, tokenizer, list(prompts), max_new_tokens=max_new_tokens)
    return [
        {
            "prompt": p, "base": b.text, "base did": behaviour(b.text),
            "chat": c.text, "chat did": behaviour(c.text),
        }
        for p, b, c in zip(prompts, continued, answered, strict=True)
    ]  # fmt: skip


def find_diverging_prompt(base, chat, tokenizer, candidates: Iterable[str] = CANDIDATES) -> str:
    """Return the first candidate that the base model continues and the chat model answers.

    Raises:
        WorkbookError: there is no such candidate.
    """
    for prompt in candidates:
        (row,) = side_by_side(base, chat, tokenizer, [prompt])
        if row["base did"] == "continued" and row["chat did"] == "answered":
            return prompt
    raise WorkbookError(
        "the two models do the same on every one of these prompts; try instructions of another kind"
    )
