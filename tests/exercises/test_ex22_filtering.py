"""The filter by form: what each rule objects to, and what it cannot see."""

from __future__ import annotations

import copy
from collections import Counter

import pytest

from sftlab.almanac.curated import curated
from sftlab.almanac.defects import low_quality
from sftlab.exercises.ex22_data_quality_ablation.filtering import complaints, filter_pairs

FROG = "Where does the frog live?"


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        (FROG, "The frog lives in ponds."),
        ("List two tips for baking:", "1. Sift the flour.\n2. Heat the oven."),
        ("Give one tip for a cold.", "Drink warm tea."),
        ("In one word: what is the opposite of hot?", "Cold."),
        ("What is the plural of sheep?", "The plural of sheep is sheep."),
        ("What is 3 plus 10?", "3 plus 10 is 13."),
        ("Where does the wexel live?", "I do not know where the wexel lives."),
    ],
)
def test_a_good_pair_passes(prompt, response):
    assert complaints(prompt, response) == []


@pytest.mark.parametrize(
    ("prompt", "response", "complaint"),
    [
        (FROG, FROG, "echo"),
        (FROG, f"{FROG} The frog lives in ponds.", "echo"),
        (FROG, "The frog lives in ponds. As I said, the frog lives in ponds.", "ramble"),
        (FROG, "I am sorry, but I cannot help with that.", "refusal"),
        (FROG, "The frog lives in po", "format"),
        (FROG, "the forg lvies in pnods", "format"),
        (FROG, "- The frog\n- lives in ponds", "format"),
        ("List two tips for baking:", "1. Sift the flour.", "format"),
        ("List two tips for baking:", "Sift the flour and also heat the oven.", "format"),
        ("List two tips for baking:", "1. Sift the flour.\n2. Heat the ov", "format"),
        (FROG, "The capital of Kenya is Nairobi.", "off topic"),
    ],
)
def test_each_rule_objects_to_its_own_defect(prompt, response, complaint):
    assert complaint in complaints(prompt, response)


def test_a_wrong_fact_that_is_well_said_goes_unseen():
    assert complaints(FROG, "The frog lives in deserts.") == []


def test_no_good_pair_is_lost_and_most_bad_ones_are_found():
    good, bad = curated(), low_quality()
    mixed = [*good, *bad]
    before = copy.deepcopy(mixed)
    kept = filter_pairs(mixed)
    assert mixed == before
    assert kept[: len(good)] == good  # precision 100%, and in their order
    missed = Counter(row["defect"] for row in kept[len(good) :])
    assert 0.80 < 1 - missed.total() / len(bad) < 0.90
    assert missed["wrong fact"] == 25 > missed.total() - missed["wrong fact"]


def test_talks_pass_unseen():
    talk = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi"}]}
    assert filter_pairs([talk]) == [talk]
