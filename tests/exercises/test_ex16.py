"""Notebook 16's pictures, and its training thread: paused and continued, it ends like any other."""

from __future__ import annotations

import copy
import threading

import matplotlib.pyplot as plt
import pytest
import torch

from sftlab.chat import user
from sftlab.data import tokenize_conversations
from sftlab.exercises.ex16_sft_training_loop import explorer
from sftlab.exercises.ex16_sft_training_loop.explorer import Training, train_and_ask
from sftlab.exercises.ex16_sft_training_loop.plots import curve, differences, loss_and_rate
from sftlab.lora import inject_lora
from sftlab.train import TrainConfig, sft_train

CONFIG = TrainConfig(learning_rate=1e-2, num_train_epochs=4, batch_size=2)


@pytest.fixture
def rows(tokenizer):
    talks = [
        [*user(f"What is {n} plus 1?"), {"role": "assistant", "content": f"It is {n + 1}."}]
        for n in range(1, 7)
    ]
    return tokenize_conversations(tokenizer, talks).examples


@pytest.fixture
def start(tiny_model):
    return lambda: inject_lora(copy.deepcopy(tiny_model), "all-linear", r=2, lora_alpha=4, seed=0)


def test_a_run_paused_twice_ends_with_the_weights_of_one_that_was_not(start, rows):
    straight = start()
    sft_train(straight, rows, CONFIG, progress=False)
    run = Training(start, rows, CONFIG, pad_id=0)
    assert run.steps == 12
    for stop in (3, 7, 99):
        reached, ended = threading.Event(), threading.Event()
        run.go(lambda done, s=stop, r=reached: r.set() if done >= s else None, ended.set)
        while not (reached.is_set() or ended.is_set()):
            ended.wait(0.01)
        if stop < run.steps:
            run.pause()
        assert ended.wait(60)
    assert len(run.losses) == run.steps
    pairs = zip(straight.parameters(), run.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_an_error_in_the_thread_is_kept_for_the_reader(start, rows):
    ended = threading.Event()
    run = Training(lambda: start().requires_grad_(False), rows, CONFIG, pad_id=0)
    run.go(lambda done: None, ended.set)
    assert ended.wait(60)
    assert "no parameter requires a gradient" in str(run.error)


def test_outside_a_notebook_the_explorer_tells_the_stored_answers(start, tokenizer, rows, capsys):
    train_and_ask(start, tokenizer, rows, CONFIG, "What is 1 plus 1?", {0: "What", 5: "It is 2."})
    assert "It is 2." in capsys.readouterr().out


def test_pictures_show_every_number():
    figure = loss_and_rate([2.0, 1.0, 0.5], [0.1, 0.2, 0.1], 2)
    assert len(figure.axes[0].lines[0].get_xdata()) == 3
    found = {"capital": (0.2, (0.1, 0.3)), "continent": (-0.1, (-0.2, 0.05))}
    names = differences(found, {"capital": 40, "continent": 30}).axes[0]
    assert [t.get_text() for t in names.get_yticklabels()] == ["capital (40)", "continent (30)"]
    plt.close("all")
    assert curve([], 10).count("polyline") == 1
    assert curve([1.0, 0.5], 10).count(",") > 2


def test_the_button_trains_and_the_pause_answers(start, tokenizer, rows, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        explorer, "explorer", lambda controls, draw, alt: shown.update(controls, draw=draw)
    )
    train_and_ask(start, tokenizer, rows, CONFIG, "What is 1 plus 1?", {0: "What", 5: "It is 2."})
    go, done, draw = shown["go"], shown["done"], shown["draw"]
    running, stopped = threading.Event(), threading.Event()
    done.observe(lambda change: running.set() if change["new"] >= 2 else None, names="value")
    go.observe(lambda change: None if change["new"] else stopped.set(), names="value")
    go.value = True
    assert running.wait(60)
    assert "training …" in draw(True, done.value, "What is 1 plus 1?").text
    go.value = False
    assert stopped.wait(60)
    paused_at = done.value
    assert f"step {paused_at} of 12" in draw(False, paused_at, "What is 2 plus 1?").text
    assert (
        "asked in the pause: What is 2 plus 1?" in draw(False, paused_at, "What is 2 plus 1?").text
    )
    stopped.clear()
    go.value = True
    assert stopped.wait(60)  # the run's own end takes the button back
    assert done.value == 12


@pytest.mark.parametrize("where", ["start", "step"])
def test_any_error_in_the_thread_reaches_the_reader_and_the_button_works_again(
    start, tokenizer, rows, monkeypatch, where
):
    """A WorkbookError or not: shown in place of the picture, and pressed again it trains."""
    shown, broken = {}, [True]
    monkeypatch.setattr(
        explorer, "explorer", lambda controls, draw, alt: shown.update(controls, draw=draw)
    )

    def fragile():
        model = start()
        if broken[0] and where == "start":
            raise MemoryError("no room for the model")
        if broken[0]:
            passes = []

            def fail(*_):
                passes.append(1)
                if len(passes) > 15:  # the check before the first step makes some
                    raise RuntimeError("no room for the step")

            model.model.layers[0].register_forward_pre_hook(fail)
        return model

    prompt = "What is 1 plus 1?"
    train_and_ask(fragile, tokenizer, rows, CONFIG, prompt, {0: "What", 5: "It is 2."})
    go, done, draw = shown["go"], shown["done"], shown["draw"]
    stopped = threading.Event()
    go.observe(lambda change: None if change["new"] else stopped.set(), names="value")
    go.value = True
    assert stopped.wait(60)
    assert go.value is False
    with pytest.raises((MemoryError, RuntimeError), match="no room"):
        draw(False, done.value, prompt)

    broken[0] = False
    stopped.clear()
    go.value = True
    assert stopped.wait(60)
    assert done.value == 12
    assert "step 12 of 12" in draw(False, 12, prompt).text
    assert "asked in the pause" in draw(False, 12, prompt).text
