"""The experiment of notebook 12: borders of tokenizers, layouts, words, and what was recorded."""

from __future__ import annotations

import pytest

from sftlab.almanac.pairs import pairs
from sftlab.exercises.ex12_prompt_masking import plots
from sftlab.exercises.ex12_prompt_masking.experiment import (
    APART,
    HEADERS,
    LAYOUTS,
    QUESTIONS,
    SERVED,
    TOGETHER,
    asked_three_ways,
    beginnings,
    example,
    questions,
    run,
    small_tokenizer,
    unsafe_answers,
)
from sftlab.exercises.record import runs
from sftlab.masking import Example, build_example

NAME, REAL = "border", "border_smollm2"
KINDS = [q["kind"] for q in questions()[1]]


def test_a_special_token_at_the_border_is_always_safe(tokenizer):
    assert unsafe_answers(tokenizer, "<|im_start|>", beginnings(tokenizer)) == {}


def test_blank_lines_make_a_newline_in_front_of_an_answer_unsafe():
    header, answers = HEADERS[1], ["Yes.", "\nYes."]
    assert unsafe_answers(small_tokenizer(False, 500), header, answers) == {}
    found = unsafe_answers(small_tokenizer(True, 500), header, answers)
    assert list(found) == ["\nYes."]


def test_both_ways_train_the_same_text_with_other_tokens(tokenizer):
    for pair in pairs(8, 0, skills=()):
        made = {how: example(tokenizer, pair, how) for how in SERVED}
        texts = [tokenizer.decode(e.input_ids) for e in made.values()]
        assert texts[0] == texts[1]
        assert made[APART].input_ids != made[TOGETHER].input_ids
        for how, e in made.items():
            prompt = tokenizer.encode(SERVED[how].format(pair["prompt"]), add_special_tokens=False)
            assert e.input_ids[: len(prompt)] == prompt
            assert e.trained == len(e.input_ids) - len(prompt)


def test_layouts_differ_in_white_space_alone():
    texts = {
        layout.format("Who?").replace(" ", "").replace("\n", "") for layout in LAYOUTS.values()
    }
    assert texts == {"Q:Who?A:"}


def test_a_question_is_asked_three_ways_with_one_answer():
    for _, usual, reworded, other, answer in asked_three_ways():
        assert len({usual, reworded, other}) == 3 and answer
    assert len({kind for kind, *_ in asked_three_ways()}) == 13


def test_the_sets_of_questions_are_apart_from_each_other_and_from_the_pairs():
    validation, test = ({(q["kind"], q["subject"]) for q in some} for some in questions())
    assert not validation & test and len(test) <= QUESTIONS
    for seed in range(5):
        trained = {(p["kind"], p["subject"]) for p in pairs(32, seed, skills=())}
        assert not trained & (validation | test)


def test_the_two_rows_show_what_an_example_trains(tokenizer):
    made = build_example(
        tokenizer, [{"role": "user", "content": "Hot?"}, {"role": "assistant", "content": "Cold."}]
    )
    view = plots.two_rows(tokenizer, made)
    assert "[<|im_end|>]" in view.text and "−100" in view.html
    other = plots.two_rows(tokenizer, Example(made.input_ids, made.input_ids))
    assert other.text.count("[") > view.text.count("[")


# --- words that follow the numbers -----------------------------------------------------------

COUNTS = {
    name: dict.fromkeys(HEADERS, (few, 100))
    for name, few in (
        ("no blank lines", 0),
        ("with blank lines", 3),
        ("almanac", 0),
        ("SmolLM2", 9),
    )
}


def words(sign: float = 1.0, recorded=None, counts=None) -> list[str]:
    up, down = (sign * 0.5, (sign * 0.5 - 0.1, sign * 0.5 + 0.1)), (-sign * 0.5, (-sign * 0.5 - 0.1, -sign * 0.5 + 0.1))  # fmt: skip
    level = (0.0, (-0.1, 0.1))
    subject, wording = {"chat": up, "base": up}, {"chat": level, "base": level}
    found = plots.claims(subject, wording, (up, up, up), 0.0, down, (0.0, (0.0, 0.0)), up,
                         recorded or runs(NAME), runs(REAL), KINDS, counts or COUNTS)  # fmt: skip
    return list(found["claim"])


def test_the_claims_turn_round_with_their_numbers():
    flipped = [{**r, APART: r[TOGETHER], TOGETHER: r[APART]} for r in runs(NAME)]
    assert "higher" in words()[0] and "lower" in words(-1.0)[0]
    assert "embeddings rises" in words()[1] and "embeddings falls" in words(-1.0)[1]
    assert "fewer" in words()[2] and "more" in words(-1.0)[2]
    assert words()[3].endswith("fewer")
    assert words(recorded=flipped)[3].endswith("more")
    level = [{**r, APART: 0.5, TOGETHER: 0.5} for r in runs(NAME)]
    assert words(recorded=level)[3].endswith("none")
    same = COUNTS | {"with blank lines": COUNTS["no blank lines"]}
    assert "do not make" in words(counts=same)[4]


# --- the recorded files ------------------------------------------------------------------------


def test_smollm2_was_asked_all_questions():
    for recorded in runs(REAL):
        assert len(recorded.get("right", KINDS)) == len(KINDS)


@pytest.mark.base
@pytest.mark.slow
def test_a_training_gives_what_was_recorded():
    cell = {"trained": TOGETHER, "learning_rate": 3e-3, "seed": 0}
    (recorded,) = runs(NAME, **cell)
    found = run(**cell)
    for name in ("validation", APART, TOGETHER):
        assert found[name] == pytest.approx(recorded[name], abs=0.1)
