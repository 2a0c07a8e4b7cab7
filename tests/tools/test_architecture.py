"""Imports point one way between the rooms, and nowhere in a circle, inside functions neither."""

from __future__ import annotations

import pytest

from tools.architecture import ALLOWED, PICTURE, ROOMS, circles, draw, graph, room, wrong_arrows

GRAPH = graph()


def test_every_module_is_in_a_room():
    assert {room(module) for module in GRAPH.modules} == set(ROOMS)


def test_arrows_point_one_way():
    assert wrong_arrows(GRAPH) == []


def test_nothing_imports_itself_through_others():
    assert circles(GRAPH) == []


def test_the_engine_knows_no_exercise():
    named = [m for m in GRAPH.modules if room(m) == "classroom"]
    assert not any("sftlab.exercises" in found for m in named
                   for found in GRAPH.find_modules_directly_imported_by(m))  # fmt: skip


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("sftlab.loss", "sftlab.memory.plan"),
        ("sftlab.classroom.views", "sftlab.train"),
        ("sftlab.classroom.plots", "sftlab.exercises.ex03_response_only_loss.plots"),
        ("sftlab.memory.plan", "sftlab.almanac.facts"),
        ("sftlab._internal.paths", "sftlab.data"),
        ("sftlab.cli", "tools.publish"),
    ],
)
def test_an_arrow_in_another_direction_is_told(importer, imported):
    other = graph()
    other.add_import(importer=importer, imported=imported)
    assert wrong_arrows(other) == [f"{importer} → {imported}"]


def test_a_circle_is_told():
    other = graph()
    other.add_import(importer="sftlab.errors", imported="sftlab.lora")
    (circle,) = circles(other)
    assert {"sftlab.errors", "sftlab.lora"} <= set(circle)


def test_no_room_that_is_allowed_is_without_an_arrow():
    """Otherwise the rules would say more than the house does."""
    there = {
        (room(m), room(found))
        for m in GRAPH.modules
        for found in GRAPH.find_modules_directly_imported_by(m)
    }
    assert {(a, b) for a, allowed in ALLOWED.items() for b in allowed} <= there


def test_the_picture_is_that_of_today_s_imports():
    assert PICTURE.read_text(encoding="utf-8") == draw(GRAPH), "python -m tools.architecture"
