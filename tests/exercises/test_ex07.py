"""Notebook 07's figures and its explorer, at extreme settings."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import pytest

from sftlab.exercises.ex07_lora_parameter_count import explorer
from sftlab.exercises.ex07_lora_parameter_count.plots import (
    over_ranks,
    shares_of_models,
    short,
    to_scale,
)


def test_counts_are_told_in_few_characters():
    assert [short(n) for n in (7, 65_536, 16_777_216, 70_553_706_496)] == [
        "7",
        "65.5K",
        "16.8M",
        "70.6B",
    ]


@pytest.mark.parametrize(
    ("d_in", "d_out", "r"),
    list(itertools.product((explorer.WIDTHS[0], explorer.WIDTHS[-1]), (192, 14336), (1, 4096))),
)
def test_the_explorer_draws_extreme_settings(d_in, d_out, r):
    figure = to_scale(d_in, d_out, r)
    figure.draw_without_rendering()
    plt.close(figure)
    assert f"{r * (d_in + d_out):,} parameters" in explorer.words(d_in, d_out, r)


def test_the_picture_says_how_many_times_fewer_or_more():
    for sizes, told in (((4096, 4096, 8), "256 times fewer"), ((192, 192, 96), "exactly as many"),
                        ((192, 192, 4096), "42.67 times as many")):  # fmt: skip
        figure = to_scale(*sizes)
        assert told in figure.get_suptitle()
        plt.close(figure)


def test_the_explorer_has_three_sliders(monkeypatch):
    shown = {}
    monkeypatch.setattr(
        explorer, "explorer", lambda controls, draw, alt, continuous: shown.update(controls)
    )
    explorer.count_parameters()
    assert {name: control.value for name, control in shown.items()} == {
        "d_in": 4096,
        "d_out": 4096,
        "r": 64,
    }


def test_the_figures_draw():
    for figure in (
        over_ranks({"k": (4096, 1024), "q": (4096, 4096), "up": (4096, 14336)}),
        shares_of_models({"small": (0.003, 0.018), "large": (0.0002, 0.0015)}),
    ):
        figure.draw_without_rendering()
        plt.close(figure)
