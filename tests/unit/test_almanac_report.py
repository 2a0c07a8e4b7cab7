"""The recorded figures of the embedded models: a part is measured again, and the cards say what was recorded."""

import pytest

from sftlab.almanac import card, report
from sftlab.almanac.facts import items, kinds
from sftlab.almanac.pairs import heldout
from sftlab.models import load

pytestmark = pytest.mark.base


@pytest.fixture(scope="module")
def recorded():
    return card.recorded()


@pytest.fixture(scope="module")
def base():
    return load("almanac")


@pytest.mark.parametrize("kind", ["capital", "number", "past"])
def test_recall_of_a_kind_is_what_was_recorded(kind, recorded, base):
    known = [item for item in items(kind) if item.stratum == "known"]
    right, total = recorded["recall"][f"known: {kind}"]
    assert total == len(known)
    # Another processor may round one borderline logit the other way; more than that is another model.
    assert abs(sum(report.recall(*base, known)) - right) <= 1


def test_absent_facts_are_not_known(base):
    absent = [item for kind in kinds() for item in items(kind) if item.stratum == "absent"]
    assert sum(report.recall(*base, absent)) <= 0.03 * len(absent)


def test_the_base_continues_bare_instructions(recorded, base):
    asked = heldout(seed=1, per_kind=15)[:60]
    found = report.behaviours(*base, asked)
    assert found["continued"] >= 0.95 * len(asked)
    assert sum(recorded["behaviour"].values()) == 200


def test_a_run_on_32_pairs_scores_what_was_recorded(recorded):
    model, tokenizer, _ = report.tuned(32, seed=0)
    run = recorded["lora_32"]["runs"][0]
    found = report.score(model, tokenizer, heldout())
    # Training on another processor or thread count drifts in the last digits; the score hardly does.
    assert found["correct"] == pytest.approx(run["correct"], abs=0.03)
    assert found["stops"] == pytest.approx(run["stops"], abs=0.03)


def test_the_record_names_its_origin(recorded):
    assert set(recorded["provenance"]) == {"command", "commit", "versions", "machine", "date"}
    assert recorded["lora_32"]["seeds"] == recorded["lora_200"]["seeds"] == [0, 1, 2, 3, 4]


def test_the_cards_are_the_ones_that_the_program_writes():
    assert (card.BASE / "README.md").read_text(encoding="utf-8") == card.base_card()
    assert (card.CHAT / "README.md").read_text(encoding="utf-8") == card.chat_card()
