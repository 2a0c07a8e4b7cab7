"""Notebook 17's diagram and norms."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from sftlab.exercises.ex17_lora_linear import explorer as explorers
from sftlab.exercises.ex17_lora_linear.plots import corrections, layer_diagram, norms
from sftlab.lora import LoRALinear


@pytest.fixture
def layer():
    made = LoRALinear(nn.Linear(5, 3, bias=False), r=2, alpha=6)
    made.base.weight.data = torch.full((3, 5), 2.0)
    made.A.data, made.B.data = torch.ones(2, 5), torch.zeros(3, 2)
    return made


def test_norms_are_those_of_the_matrices_and_of_their_product(layer):
    layer.B.data[0, 0] = 0.5
    found = norms(layer, torch.zeros(2, 5))
    assert found["A"] == found["moved"] == pytest.approx(10**0.5)
    assert found["B"] == 0.5
    assert found["update"] == pytest.approx(3 * 0.5 * 5**0.5)  # one row of five 0.5, times α/r = 3
    assert found["weight"] == pytest.approx(2 * 15**0.5)
    assert found["shape"] == (3, 5, 2) and found["scale"] == 3


def test_a_diagram_of_every_step(layer):
    album = {}
    for step in (0, 1, 400):
        layer.B.data.fill_(step)
        album[step] = {"a.q_proj": norms(layer, torch.ones(2, 5))}
    for step, share in ((0, "0.0%"), (1, "300.0%"), (400, "120000.0%")):
        figure = layer_diagram("a.q_proj", album, step)
        assert share in figure.axes[0].get_title(loc="left") + figure.axes[0].get_title()
        assert len(figure.axes[1].lines[0].get_xdata()) == 3
        plt.close(figure)


def test_corrections_show_every_layer_once():
    figure = corrections({"0.q_proj": 0.1, "1.q_proj": 0.2, "0.up_proj": 0.3, "odd": 0.4}, 20)
    (axis,) = figure.axes
    assert [t.get_text() for t in axis.get_yticklabels()] == ["q_proj", "up_proj", "others"]
    assert sum(len(line.get_xdata()) for line in axis.lines if line.get_marker() == "o") == 4
    plt.close(figure)


def test_the_explorer_draws_any_layer_and_step(layer, monkeypatch):
    shown = {}
    monkeypatch.setattr(explorers, "explorer", lambda c, d, w: shown.update(c, draw=d, words=w))
    album = {step: {"q": norms(layer, layer.A.data), "v": norms(layer, layer.A.data)} for step in range(3)}  # fmt: skip
    explorers.watch_layers(album)
    for name in shown["name"].options:
        for step in shown["step"].options:
            plt.close(shown["draw"](name, step))
            assert f"{name} after {step} steps" in shown["words"](name, step)
