"""Twelve probes of a run, from its examples before it starts to the answers of the served model.

Each raises an alarm if a run is too far from a value: one that every sound run has, whatever its data, or
the best possible one, with a distance that is calibrated on sound runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from sftlab._internal.random_state import own_random_state
from sftlab.data import conversation
from sftlab.exercises.ex23_broken_runs_clinic.clinic import (
    CONFIG,
    Run,
    adapted,
    micro_batches,
    patient,
    sound_rows,
)
from sftlab.exercises.ex23_broken_runs_clinic.probes import (
    label_errors,
    split_gap,
    update_strength,
)
from sftlab.exercises.recipes import response_nll
from sftlab.findings import OK
from sftlab.generate import Generation
from sftlab.lora import LoRALinear
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.preflight import preflight

ASKED = 16  # training questions that are asked again


@dataclass(frozen=True)
class Probe:
    """A measurement of a run."""

    source: str  # what it looks at
    measure: Callable[[Run], float]
    sound: float  # the value of every sound run, or the best possible one
    tolerance: float | None  # how far from it a sound run may be; None: calibrated on sound runs


# --- before the run ------------------------------------------------------------------------------
def findings(run: Run) -> float:
    """Return how many findings ``preflight`` has about the examples and fresh adapters."""
    model, tokenizer = patient()
    conversations = [conversation(pair) for pair in run.pairs]
    found = preflight(adapted(model, 0), tokenizer, run.rows, conversations)
    return float(sum(finding.state != OK for finding in found))


# --- from the log --------------------------------------------------------------------------------
def remaining_loss(run: Run) -> float:
    """Return the last loss over the first, three steps each; a curve that falls by a third has 0.67."""
    return float(np.mean(run.losses[-3:]) / np.mean(run.losses[:3]))


def first_loss(run: Run) -> float:
    """Return the loss of the first step over that of the base on the answers of the same pairs."""
    base, tokenizer = patient()
    sound = sound_rows(tokenizer, [run.pairs[i] for i in run.first])
    return run.losses[0] / response_nll(base, sound, tokenizer.pad_token_id or 0)


# --- from the batches ----------------------------------------------------------------------------
def answer_of(row: Example) -> list[int]:
    """Return the trained ids of an example, in their order."""
    return [label for label in row.labels if label != IGNORE_INDEX]


def wrong_labels(run: Run) -> float:
    """Return the label mismatches of all examples over the number of answer tokens."""
    answers = [answer_of(row) for row in sound_rows(run.tokenizer, run.pairs)]
    wrong = [
        label_errors(row.input_ids, row.labels, answer)
        for row, answer in zip(run.rows, answers, strict=True)
    ]
    return sum(wrong) / sum(map(len, answers))


def begin_tokens(run: Run) -> float:
    """Return how many begin tokens an example has at its beginning, on average."""
    begin = run.tokenizer.bos_token_id
    counts = [
        next((n for n, token in enumerate(row.input_ids) if token != begin), 0) for row in run.rows
    ]
    return sum(counts) / len(counts)


# --- from a gradient -----------------------------------------------------------------------------
def moved_by_the_split(run: Run) -> float:
    """Return how far the gradient of a batch moves if the batch is split."""
    with torch.no_grad(), own_random_state(0):
        parts = micro_batches(run, run.rows[: CONFIG.batch_size])
    logits, labels = (torch.cat(some) for some in zip(*parts, strict=True))
    return split_gap(run.combine, logits.float(), labels)


# --- from the weights ----------------------------------------------------------------------------
def served_weight(run: Run, name: str) -> torch.Tensor:
    """Return the weight that a layer of the served model computes with, its adapter included."""
    layer = run.model.get_submodule(name)
    if isinstance(layer, LoRALinear):
        return layer.base.weight + layer.scale * (layer.B @ layer.A)
    return layer.get_parameter("weight")


@torch.no_grad()
def strength(run: Run) -> float:
    """Return how many times the trained update is in the served weights: the mean over trained layers."""
    found = []
    for name, base in run.base.items():
        A, B = run.adapter[f"{name}.A"], run.adapter[f"{name}.B"]
        if B.any():
            found.append(update_strength(served_weight(run, name), base, A, B, run.scale))
    return sum(found) / len(found)


def untrained_adapters(run: Run) -> float:
    """Return the share of adapters whose B is zero after training, as it was at first."""
    zero = [not tensor.any() for name, tensor in run.adapter.items() if name.endswith(".B")]
    return sum(zero) / len(zero)


# --- from logits and answers ---------------------------------------------------------------------
@torch.no_grad()
def passes_differ(run: Run) -> float:
    """Return the largest difference between the logits of two passes over the same prompt."""
    ids = torch.tensor([run.prompt(run.pairs[0]["prompt"])])
    with own_random_state(0):
        first, second = (run.model(ids, use_cache=False).logits for _ in range(2))
    return (first - second).abs().max().item()


def prompts_that_fit(run: Run) -> float:
    """Return the share of training prompts that, as they are served, begin their example."""
    served = [run.prompt(pair["prompt"]) for pair in run.pairs]
    fits = [ids == row.input_ids[: len(ids)] for ids, row in zip(served, run.rows, strict=True)]
    return sum(fits) / len(fits)


@lru_cache(maxsize=1)
def own_answers(run: Run) -> list[Generation]:
    """Return the replies to training questions; two probes read them."""
    return run.ask([pair["prompt"] for pair in run.pairs[:ASKED]])


def stops(run: Run) -> float:
    """Return the share of training questions after whose answer the model stops by itself."""
    replies = own_answers(run)
    return sum(reply.stopped for reply in replies) / len(replies)


def learned(run: Run) -> float:
    """Return the share of training questions that are answered as they were trained."""
    right = [
        reply.text.strip() == pair["response"].strip()
        for reply, pair in zip(own_answers(run), run.pairs[:ASKED], strict=True)
    ]
    return sum(right) / len(right)


PROBES = {
    "preflight": Probe("examples, before", findings, 0.0, 1e-3),
    "curve falls by a third": Probe("log", remaining_loss, 0.0, 2 / 3),
    "first loss": Probe("log", first_loss, 1.0, 1e-3),
    "wrong labels": Probe("batches", wrong_labels, 0.0, 1e-3),
    "begin tokens": Probe("batches", begin_tokens, 1.0, 1e-3),
    "gradient and split": Probe("gradient", moved_by_the_split, 0.0, 1e-3),
    "strength": Probe("weights", strength, 1.0, 1e-3),
    "untrained adapters": Probe("weights", untrained_adapters, 0.0, 1e-3),
    "two passes": Probe("logits", passes_differ, 0.0, 1e-4),
    "prompt fits": Probe("prompts", prompts_that_fit, 1.0, 1e-3),
    "stops": Probe("answers", stops, 1.0, None),
    "learned": Probe("answers", learned, 1.0, None),
}
WRITTEN = ("wrong labels", "gradient and split", "strength")  # by the student


def values(run: Run) -> dict[str, float]:
    """Return what every probe measures of a run."""
    return {name: probe.measure(run) for name, probe in PROBES.items()}


def tolerances(sound: list[dict[str, float]]) -> dict[str, float]:
    """Return how far from the sound value a run may be, by probe.

    Where a probe has no tolerance of its own, it is the largest distance among some sound runs, and at
    least 0.001.
    """
    return {
        name: max(1e-3, *(abs(found[name] - probe.sound) for found in sound)) if probe.tolerance is None
        else probe.tolerance
        for name, probe in PROBES.items()
    }  # fmt: skip


def alarms(found: dict[str, float], allowed: dict[str, float]) -> dict[str, bool]:
    """Return which probes raise an alarm."""
    return {n: not abs(value - PROBES[n].sound) <= allowed[n] for n, value in found.items()}
