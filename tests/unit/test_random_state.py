"""Whatever the library draws, the caller's random numbers are afterwards as they were."""

from __future__ import annotations

import random
from pathlib import Path

import numpy
import pytest
import torch

from sftlab._internal.random_state import own_random_state
from sftlab.adapters import load_adapter, save_adapter
from sftlab.almanac.pretrain import Recipe, place_markers, pretrain
from sftlab.data import conversation, tokenize_conversations
from sftlab.exercises.ex08_lora_zero_init import experiment as lora_init
from sftlab.exercises.ex09_lora_alpha_over_r import experiment as lora_over_ranks
from sftlab.exercises.ex10_lora_learning_rate.explorer import choose_a_rate
from sftlab.exercises.ex23_broken_runs_clinic import clinic, evidence
from sftlab.generate import answer
from sftlab.lora import inject_lora
from sftlab.memory import limit, measure
from sftlab.memory.plan import Run, build, plan
from sftlab.models import load
from sftlab.preflight import preflight
from sftlab.train import TrainConfig, sft_train
from tools.benchmarks.contenders import fresh
from tools.benchmarks.limit import linear_shapes, product_rate

PAIR = {"prompt": "What is 1 plus 1?", "response": "It is 2."}
PLANNED = Run("almanac", 1, 8, 4, r=2)
FIRST_EDITION = [8.272710800170898, 8.237950325012207, 8.187394142150879, 8.151588439941406]


def dropped(steps):
    """A run with dropout that stays on."""
    return clinic.trained_as(clinic.FIRST["dropout in evaluation"], steps=steps)


def states():
    """All three global states, in values that can be compared."""
    numbers = numpy.random.get_state()
    return random.getstate(), numbers[1].tolist(), numbers[2], torch.get_rng_state().tolist()


def adapted(model, dropout=0.0):
    return inject_lora(model, "all-linear", r=2, lora_alpha=4, lora_dropout=dropout, seed=0)


def rows_of(tokenizer):
    return tokenize_conversations(tokenizer, [conversation(PAIR)] * 4).examples


def trains(model, tokenizer, folder):
    config = TrainConfig(num_train_epochs=1, batch_size=2)
    sft_train(adapted(model, 0.3), rows_of(tokenizer), config, folder=folder, progress=False)


def fails(model, tokenizer, folder):
    def fail(done, loss):
        if done:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        sft_train(adapted(model, 0.3), rows_of(tokenizer), on_step=fail, progress=False)


def loads_an_adapter(model, tokenizer, folder):
    plain = load("almanac")[0]
    save_adapter(adapted(load("almanac")[0]), folder / "adapter", "almanac")
    load_adapter(plain, folder / "adapter")


def pretrains(model, tokenizer, folder):
    recipe = Recipe(steps=1, batch=2, length=16)
    place_markers(pretrain(recipe, folder, tokenizer, compiled=False), tokenizer)


CALLS = {
    "sft_train": trains,
    "sft_train that fails": fails,
    "inject_lora": lambda model, *_: adapted(model),
    "load_adapter": loads_an_adapter,
    "pretrain": pretrains,
    "answer": lambda model, tokenizer, _: answer(model, tokenizer, ["Hi"], temperature=1.0, max_new_tokens=3),
    "preflight": lambda model, tokenizer, _: preflight(adapted(model), examples=rows_of(tokenizer)),
    "models.load": lambda *_: load("almanac"),
    "planner.build": lambda *_: build(PLANNED),
    "planner.plan": lambda *_: plan(PLANNED),
    "peak.a_batch": lambda *_: measure.a_batch(PLANNED, 100),
    "memory_limit.build_by_layer": lambda *_: limit.build_by_layer(PLANNED),
    "bench.fresh": lambda *_: fresh("almanac", "fp32"),
    "bench.product_rate": lambda model, *_: product_rate(linear_shapes(model), 4, "fp32"),
    "lora_init.with_lora": lambda *_: lora_init.with_lora("both random", 0),
    "lora_over_ranks.with_lora": lambda *_: lora_over_ranks.with_lora(2, 0),
    "clinic.trained_as, evidence": lambda *_: evidence.passes_differ(dropped(steps=1)),
    "clinic.Run.ask": lambda *_: dropped(steps=0).ask(["Hi"], 2),
    "explorer 10": lambda model, tokenizer, _: choose_a_rate(model, tokenizer),
}  # fmt: skip


@pytest.mark.base
@pytest.mark.parametrize("name", CALLS)
def test_the_caller_s_random_numbers_stay_as_they_were(tiny_model, tokenizer, tmp_path: Path, name):
    random.seed(5)
    numpy.random.seed(6)
    torch.manual_seed(7)
    before = states()
    CALLS[name](tiny_model, tokenizer, tmp_path)
    assert states() == before


def test_inside_the_block_draws_start_from_the_seed():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(8)
    with own_random_state(3) as reseed:
        assert torch.equal(torch.rand(4), expected)
        reseed(3)
        assert torch.equal(torch.rand(4), expected)
    after = torch.rand(4)
    torch.manual_seed(8)
    assert torch.equal(after, torch.rand(4))


def test_a_lora_layer_without_a_seed_goes_on_drawing_from_the_caller(tiny_model):
    """As ``torch.nn.Linear`` does: two layers made in turn are not the same."""
    first, second = (
        inject_lora(model, ["q_proj"], r=2, lora_alpha=4)
        for model in (tiny_model, type(tiny_model)(tiny_model.config))
    )
    starts = [next(p for n, p in m.named_parameters() if n.endswith(".A")) for m in (first, second)]
    assert not torch.equal(*starts)


def test_a_step_s_dropout_follows_from_its_seed_as_it_always_did(tiny_model, tokenizer):
    """The losses of a short run with dropout, as the first edition had them."""
    config = TrainConfig(learning_rate=1e-2, num_train_epochs=2, batch_size=2)
    losses = sft_train(adapted(tiny_model, 0.5), rows_of(tokenizer), config, progress=False).losses
    assert losses == pytest.approx(FIRST_EDITION, abs=1e-5)
