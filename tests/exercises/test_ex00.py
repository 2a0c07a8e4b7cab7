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
    row = claims(0.34, SHARES).iloc[0]
    assert row["claim"].startswith("Less than half") and "34.0%" in row["measured"]
    assert "2 templates: 30% to 40%" in row["control"]
    assert "long: fewer" in row["where it stops holding"]
    flipped = {name: {"short": v["long"], "long": v["short"]} for name, v in SHARES.items()}
    row = claims(0.6, flipped).iloc[0]
    assert row["claim"].startswith("More than half")
    assert "long: more" in row["where it stops holding"]
    mixed = claims(0.6, {"a": SHARES["a"], "b": flipped["b"]}).iloc[0]
    assert "long: sometimes more" in mixed["where it stops holding"]


def test_the_figure_is_told_in_words():
    figure = share_bars(SHARES)
    assert "a: short 30%, long 20%; b: short 40%, long 30%" in figure.alt
