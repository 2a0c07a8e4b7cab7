"""How much rank an update needs: full fine-tuning cut to a rank, and LoRA trained at that rank.

Full fine-tuning trains every weight of the base on 48 pairs; afterwards only the changes ΔW of the
linear layers are kept (embeddings and norms go back to the base's, because LoRA leaves them as they are).
Each ΔW is then replaced by a part of it:

``top r``     its r largest singular directions: the nearest matrix of rank r (Eckart and Young, 1936)
``rest r``    a control: everything *but* these directions
``short r``   a control: the whole ΔW, shortened to the energy of the top r

``energy`` is the part's share of ‖ΔW‖², over all layers together. ``random`` is the share that the top r
would have in a matrix of the same shape with independent normal entries. LoRA is trained at each rank on
the same pairs in the same order, with α = 2r, at a learning rate of its own.

The learning rate is chosen on validation questions, and the result reported on others. This takes about
twenty minutes on one core.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn

from sftlab.almanac.pairs import pairs
from sftlab.chat import user
from sftlab.data import conversation
from sftlab.exercises.recipes import response_nll
from sftlab.exercises.short_runs import Questions, endless_batches, fact_questions
from sftlab.generate import answer
from sftlab.lora import inject_lora
from sftlab.masking import build_example
from sftlab.memory.shapes import linear_layers
from sftlab.models import load
from sftlab.scoring import score_answer
from sftlab.train import train_step

RECORD = "low_rank"  # data/results/low_rank.json

FULL, LORA = "full fine-tuning", "LoRA"
RANKS = (1, 2, 4, 8, 16, 32)
RATES = {FULL: (1e-4, 3e-4, 1e-3), LORA: (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)}
SEEDS, PAIRS, BATCH, STEPS, QUESTIONS, LIMIT = 5, 48, 16, 24, 60, 24


def questions() -> tuple[Questions, Questions]:
    """Return held-out questions on facts, for validation and for the result."""
    return fact_questions(7, QUESTIONS)


def batches(tokenizer, seed: int, steps: int = STEPS) -> Iterator[dict]:
    """Yield batches of 16 of a seed's 48 pairs, in an order that depends on the seed."""
    made = [build_example(tokenizer, conversation(p)) for p in pairs(PAIRS, seed, skills=())]
    yield from islice(endless_batches(made, BATCH, seed, tokenizer.pad_token_id), steps)


def fine_tune(model, tokenizer, learning_rate: float, seed: int) -> None:
    """Train the parameters that require gradients, with AdamW at a constant learning rate."""
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
    for batch in batches(tokenizer, seed):
        train_step(model, batch, optimizer)
    model.eval()


def linear_weights(model) -> dict[str, nn.Parameter]:
    """Return the weights of the linear layers but the output head, by name."""
    return {name: model.get_submodule(name).weight for name in linear_layers(model)}


@torch.no_grad()
def changes(model, base) -> dict[str, Tensor]:
    """Return ΔW of each linear layer, (d_out, d_in)."""
    before = linear_weights(base)
    return {name: weight - before[name] for name, weight in linear_weights(model).items()}


def nearest_low_rank(delta: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Return A (r, d_in) and B (d_out, r) whose product BA is the matrix of rank r nearest to delta.

    Nearest in the Frobenius norm (Eckart and Young, 1936). The singular values are split evenly, so
    the norms of A and B are equal.

    Args:
        delta: (d_out, d_in). r: at most the smaller of both.
    """
    u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    root = s[:r].sqrt()
    return root[:, None] * vt[:r], u[:, :r] * root


@contextmanager
def changed(base, deltas: dict[str, Tensor]) -> Iterator[nn.Module]:
    """Add a change to each linear weight of the base, and take it back in the end."""
    weights = linear_weights(base)
    before = {name: weights[name].detach().clone() for name in deltas}
    try:
        with torch.no_grad():
            for name, delta in deltas.items():
                weights[name] += delta
        yield base
    finally:
        with torch.no_grad():
            for name, weight in before.items():
                weights[name].copy_(weight)


def energy(parts: dict[str, Tensor], wholes: dict[str, Tensor]) -> float:
    """Return the parts' share of the squared norms of the wholes."""
    kept = sum(part.square().sum().item() for part in parts.values())
    return kept / sum(whole.square().sum().item() for whole in wholes.values())


def measure(model, tokenizer, some: Sequence[dict]) -> dict[str, float]:
    """Return the share of exact answers, and the loss on the right answers (nats per token)."""
    replies = answer(model, tokenizer, [user(q["prompt"]) for q in some], max_new_tokens=LIMIT)
    marks = [score_answer(q, g.text, g.stopped).correct for q, g in zip(some, replies, strict=True)]
    right = [build_example(tokenizer, conversation({**q, "response": q["answer"]})) for q in some]
    nll = response_nll(model, right, tokenizer.pad_token_id)
    return {"exact": sum(marks) / len(marks), "nll": nll}


def run(method: str, learning_rate: float, seed: int, r: int = 0) -> dict:
    """Train with one method.

    Returns:
        ``validation``: the loss on validation questions; ``test``: as ``measure``. For full
        fine-tuning also ``tuned``, the model with all that it has changed, and by rank as text, ``top``,
        ``rest`` and ``short``: as ``measure``, with ``energy``; and ``random``.
    """
    model, tokenizer = load("almanac")
    validation, test = questions()
    if method == LORA:
        inject_lora(model, target_modules="all-linear", r=r, lora_alpha=2 * r, seed=seed)
        fine_tune(model, tokenizer, learning_rate, seed)
        return {
            "validation": measure(model, tokenizer, validation)["nll"],
            "test": measure(model, tokenizer, test),
        }
    base, _ = load("almanac")
    fine_tune(model, tokenizer, learning_rate, seed)
    deltas = changes(model, base)
    found: dict = {"tuned": measure(model, tokenizer, test)}
    with changed(base, deltas):
        found["validation"] = measure(base, tokenizer, validation)["nll"]
        found["test"] = measure(base, tokenizer, test)
    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.randn(d.shape, generator=generator) for name, d in deltas.items()}
    found |= {"top": {}, "rest": {}, "short": {}, "random": {}}
    for r in RANKS:
        top, of_noise = ({n: B @ A for n, (A, B) in ((n, nearest_low_rank(d, r)) for n, d in some.items())}
                         for some in (deltas, noise))  # fmt: skip
        rest = {name: deltas[name] - part for name, part in top.items()}
        found["random"][str(r)] = energy(of_noise, noise)
        share = energy(top, deltas)
        short = {name: share**0.5 * delta for name, delta in deltas.items()}
        for name, parts in (("top", top), ("rest", rest), ("short", short)):
            with changed(base, parts):
                found[name][str(r)] = measure(base, tokenizer, test)
            found[name][str(r)]["energy"] = energy(parts, deltas)
    return found


def settings() -> list[dict]:
    """Return all settings, seed by seed."""
    return [
        {"method": method, "learning_rate": rate, "seed": seed, **({"r": r} if r else {})}
        for seed in range(SEEDS)
        for method, ranks in ((FULL, (0,)), (LORA, RANKS))
        for r in ranks
        for rate in RATES[method]
    ]
