"""Notebook 00: the map names every notebook, and the words follow the numbers."""

from __future__ import annotations

from sftlab.classroom import catalogue
from sftlab.exercises.ex00_start_here import diagram
from sftlab.exercises.ex00_start_here.plots import claims, share_bars

SHARES = {"a": {"short": 0.3, "long": 0.2}, "b": {"short": 0.4, "long": 0.3}}


def test_the_map_names_every_notebook_once():
    named = [n for group in (diagram.STEPS, diagram.WEIGHTS) for _, own in group.values() for n in own]  # fmt: skip
    assert sorted([*named, *diagram.CLINIC]) == catalogue.numbers()[1:]


def test_the_claim_follows_the_numbers():
    row = claims(0.34, SHARES, (0.1, 0.7)).iloc[0]
    assert row["claim"].startswith("Less than half") and "34.0%" in row["measured"]
    assert row["control"].endswith("short: 30% to 40%, long: 20% to 30%")
    assert row["where it stops holding"].endswith("10% to 70%")
    assert claims(0.6, SHARES, (0.1, 0.7)).iloc[0]["claim"].startswith("More than half")


def test_the_figure_is_told_in_words():
    figure = share_bars(SHARES)
    assert "a: short 30%, long 20%; b: short 40%, long 30%" in figure.alt
