"""What can be measured on a training run that looks healthy, and what the figures say.

Each figure has a value that a sound run has, whatever its data: see ``SOUND``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sftlab._internal.random_state import own_random_state
from sftlab.data import collate
from sftlab.exercises.ex23_broken_runs_clinic.clinic import (
    CONFIG,
    Run,
    batch_loss,
    pairs,
    sound_rows,
)
from sftlab.lora import LoRALinear
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example

SOUND = {  # figure: what a sound run has
    "prompt trained": 0.0,  # share of the prompts' tokens that carry loss
    "answer trained": 1.0,  # share of the answers' tokens that do, of all pairs
    "end trained": 1.0,  # share of the pairs whose end marker does
    "begin tokens": 1.0,  # at the beginning of a row
    "labels in place": 1.0,  # share of the labels that equal the token at their place
    "split moves gradient": 0.0,  # by how much, in parts of the gradient in one piece
    "strength": 1.0,  # the update in the served model, in parts of the one that was trained
    "passes differ": 0.0,  # the largest difference of the logits of two passes
    "prompt fits rows": 1.0,  # share of the served prompts that begin their training row
}


def figures(run: Run) -> dict[str, float]:
    """Every figure of a run."""
    return {
        **label_figures(run),
        "split moves gradient": split_moves_gradient(run),
        "strength": strength(run),
        "passes differ": passes_differ(run),
        "prompt fits rows": prompt_fits_rows(run),
    }


def _paired(run: Run) -> Iterator[tuple[int, Example, Example]]:
    """Each row of the run with the number of its pair and the row that the pair should give.

    Begin tokens that the row has beyond the sound one's are taken off.
    """
    sound = sound_rows(run.tokenizer)
    for row in run.rows:
        extra = begins(row.input_ids) - begins(sound[0].input_ids)
        ids, labels = row.input_ids[extra:], row.labels[extra:]
        number = next(n for n, s in enumerate(sound) if s.input_ids[: len(ids)] == ids)
        yield number, Example(ids, labels), sound[number]


def begins(ids: list[int]) -> int:
    """How often the first token of a row stands at its beginning."""
    return next((n for n, token in enumerate(ids) if token != ids[0]), len(ids))


def label_figures(run: Run) -> dict[str, float]:
    """What the rows tell: which tokens carry loss, of which parts of which pairs."""
    sound = sound_rows(run.tokenizer)
    answers = sum(row.trained - 1 for row in sound)
    prompt = prompts = answer = ends = placed = labels = 0
    for _, row, right in _paired(run):
        trained = [place for place, label in enumerate(row.labels) if label != IGNORE_INDEX]
        start = next(p for p, label in enumerate(right.labels) if label != IGNORE_INDEX)
        end = start + right.trained - 1  # where the end marker stands
        prompts += start
        prompt += sum(place < start for place in trained)
        answer += sum(start <= place < end for place in trained)
        ends += right.labels[end] in row.labels[start - 1 :]
        placed += sum(row.labels[place] == row.input_ids[place] for place in trained)
        labels += len(trained)
    return {
        "prompt trained": prompt / prompts,
        "answer trained": answer / answers,
        "end trained": ends / len(sound),
        "begin tokens": sum(begins(row.input_ids) for row in run.rows) / len(run.rows),
        "labels in place": placed / labels,
    }


def split_moves_gradient(run: Run, rows: int = CONFIG.batch_size) -> float:
    """‖gradient in micro-batches of one row − gradient in one piece‖ / ‖gradient in one piece‖.

    The gradient is that of the run's own loss with respect to the logits.
    """
    batch = run.rows[:rows]
    with torch.no_grad(), own_random_state(0):
        inputs = collate(batch, run.tokenizer.pad_token_id or 0)
        del inputs["labels"]
        logits = run.model(**inputs, use_cache=False).logits

    def gradient(micro_batch_size: int) -> torch.Tensor:
        leaf = logits.clone().requires_grad_()
        batch_loss(run, batch, micro_batch_size, leaf).backward()
        return leaf.grad

    whole, split = gradient(len(batch)), gradient(1)
    return ((split - whole).norm() / whole.norm()).item()


@torch.no_grad()
def strength(run: Run) -> float:
    """How much of the trained update is in the served model: 1 is all of it, once.

    Σ ⟨W_served − W_base, ΔW⟩ / Σ ⟨ΔW, ΔW⟩ over all adapted layers, with ΔW = (α/r)·B·A.
    """
    found = wanted = 0.0
    for name in {name.rpartition(".")[0] for name in run.adapter}:
        A, B = run.adapter[f"{name}.A"], run.adapter[f"{name}.B"]
        update = run.scale * (B @ A)
        layer = run.model.get_submodule(name)
        if isinstance(layer, LoRALinear):
            weight = layer.base.weight
            weight = weight if layer.merged else weight + layer.scale * (layer.B @ layer.A)
        else:
            weight = layer.get_parameter("weight")
        found += ((weight - run.base[name]) * update).sum().item()
        wanted += update.square().sum().item()
    return found / wanted


@torch.no_grad()
def passes_differ(run: Run) -> float:
    """The largest difference between the logits of two passes over the same prompt."""
    ids = torch.tensor([run.prompt(pairs()[0]["prompt"])])
    with own_random_state(0):
        first, second = (run.model(ids, use_cache=False).logits for _ in range(2))
    return (first - second).abs().max().item()


def prompt_fits_rows(run: Run) -> float:
    """The share of the training prompts that, rendered as they are served, begin their row."""
    asked = [pair["prompt"] for pair in pairs()]
    fits = []
    for (number, *_), row in zip(_paired(run), run.rows, strict=True):
        prompt = run.prompt(asked[number])
        length = min(len(prompt), len(row))  # a row may be cut shorter than its prompt
        fits.append(prompt[:length] == row.input_ids[:length])
    return sum(fits) / len(fits)


def diagnose(figures: dict[str, float]) -> tuple[str, str]:
    """The fault of a run, told by its figures, and the figure that tells it.

    Args:
        figures: those of one run, by their names in ``SOUND``.

    Returns:
        (a name in ``clinic.FAULTS``, the name of a figure); ("healthy", "") if nothing is wrong.
    """
    seen = figures
    if seen["labels in place"] < 0.9:
        return "labels shifted twice", "labels in place"
    if seen["prompt trained"] > 0.1:
        return "prompts trained too", "prompt trained"
    if seen["answer trained"] < 0.9:  # before the end marker: a cut takes that as well
        return "answers cut off", "answer trained"
    if seen["end trained"] < 0.9:
        return "end marker masked as padding", "end trained"
    if seen["begin tokens"] > 1:  # before the prompt: a doubled token does not fit either
        return "begin token doubled", "begin tokens"
    if seen["prompt fits rows"] < 0.9:
        return "another family's template", "prompt fits rows"
    if seen["split moves gradient"] > 0.01:
        return "mean of means", "split moves gradient"
    if abs(seen["strength"]) < 0.1:
        return "adapter not loaded", "strength"
    if abs(seen["strength"] - 1) > 0.1:
        return "wrong factor in the merge", "strength"
    if seen["passes differ"] > 1e-4:
        return "dropout in evaluation", "passes differ"
    return "healthy", ""
