"""The experiment of notebook 01: prompts, renderings, words that follow the numbers, the explorer."""

from __future__ import annotations

import pytest
import torch

from sftlab.almanac.pairs import pairs
from sftlab.almanac.vocabulary import unread
from sftlab.exercises.ex01_base_vs_instruct import experiment, plots, real
from sftlab.exercises.ex01_base_vs_instruct.ends import answered_in_one_line, around_answers, stops
from sftlab.exercises.ex01_base_vs_instruct.experiment import (
    BARE,
    EVERY,
    EXAMPLES,
    OUTCOMES,
    PAGE,
    SHOTS,
    TEMPLATE,
    TRAINED,
    about,
    classify_reply,
    questions,
    renderings,
)
from sftlab.exercises.record import runs
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import build_example
from sftlab.models import load
from sftlab.scoring import behaviour

KINDS = [question["kind"] for question in questions()]


# --- prompts and renderings ------------------------------------------------------------------


def test_there_are_six_prompts_of_each_kind():
    assert len(KINDS) == 162
    assert {KINDS.count(kind) for kind in KINDS} == {6}


def test_no_prompt_is_among_the_examples_or_the_pairs():
    for seed in range(experiment.SEEDS):
        known = {(p["kind"], p["subject"]) for p in pairs(experiment.PAIRS, seed)}
        assert not known & {(q["kind"], q["subject"]) for q in questions()}
    assert not any(question["prompt"] in EXAMPLES for question in questions())


@pytest.mark.parametrize("each", [6, 20])
def test_the_right_answer_names_what_a_reply_is_about(each):
    """And an instruction of the same kind on another subject is a continuation."""
    for question in questions(each):
        assert classify_reply(question["answer"], about(question)) == "answered", question
        reply = f"\n{question['prompt']}\n{question['answer']}"
        assert classify_reply(reply, about(question)) == "continued", question


def test_unrelated_text_is_no_answer():
    """``behaviour`` calls every text that is no instruction an answer; here that would decide."""
    reply = "donkey - on farms\nkrill - in the southern oceans"
    assert behaviour(reply) == "answered"
    assert classify_reply(reply, ["orca", "in cold oceans"]) == "unrelated"


def test_the_template_s_examples_are_the_workbook_s(tokenizer):
    for pair in pairs(8, 0):
        messages = [
            {"role": "user", "content": pair["prompt"]},
            {"role": "assistant", "content": pair["response"]},
        ]
        whole = build_example(tokenizer, messages)
        made = TRAINED[TEMPLATE](tokenizer, pair["prompt"], pair["response"])
        assert made.input_ids == whole.input_ids[: whole.end]
        assert made.labels == whole.labels[: whole.end]
        every = TRAINED[EVERY](tokenizer, pair["prompt"], pair["response"])
        assert every.input_ids == made.input_ids
        assert every.labels == [IGNORE_INDEX, *made.input_ids[1:]]


@pytest.mark.parametrize("arm", [BARE, TEMPLATE])
def test_a_trained_prompt_is_the_prompt_that_is_tested(tokenizer, arm):
    made = TRAINED[arm](tokenizer, "What is the capital of Mali?", "Bamako.")
    asked = renderings(tokenizer)[arm]("What is the capital of Mali?")
    assert made.input_ids[: len(asked)] == asked
    assert made.labels[: len(asked)] == [IGNORE_INDEX] * len(asked)
    assert made.labels[len(asked) :] == made.input_ids[len(asked) :]


# --- words that follow the numbers -----------------------------------------------------------


ENDS = ("after", "wrong", "inside", "bare", "each stop apart", "all stops as one", "after − wrong")


def cells(base: str, chat: str, template: str = "") -> dict:
    """Outcomes of a 2×2 in which each model always does one thing; ``template`` replaces it there."""
    return {
        (model, rendering): [template if template and rendering == TEMPLATE else usual] * 162
        for model, usual in (("base", base), ("chat", chat))
        for rendering in (BARE, TEMPLATE)
    }


def claims(
    outcomes: dict, swap: bool = False, colon: str = "answered", stop: float = 1.0
) -> list[str]:
    """The claims for a 2×2; ``swap`` turns the records and the ends of answers round."""
    usual = outcomes["base", BARE]
    cues = {("base", r): usual for r in (PAGE, SHOTS, plots.COMMAS, plots.ENDS_IN_COLON)}
    cues["base", plots.COLONS] = [colon] * 162
    ends = dict.fromkeys(ENDS, (0.6, (0.55, 0.65))) | {"chat": (stop, (stop, stop))}
    ends["after − wrong"] = (0.0, (-0.1, 0.1))
    ends["after − inside"] = (-0.8, (-0.9, -0.7)) if swap else (0.8, (0.7, 0.9))
    (gemma,) = runs("real_models", kind="first", model="gemma3-270m", count=0)
    names = {EVERY: TEMPLATE, TEMPLATE: EVERY, BARE: BARE} if swap else {}
    recorded = [
        {**r, "trained": names.get(r["trained"], r["trained"])} for r in runs("answer_or_continue")
    ]
    marks = plots.answered(outcomes)
    found = plots.found(outcomes | cues, marks, KINDS, ends, recorded, runs(real.RECORD), gemma)
    return list(found["claim"])


def test_the_interaction_is_the_difference_of_the_template_s_effects():
    rng = torch.Generator().manual_seed(0)
    marks = {cell: torch.rand(162, generator=rng).tolist() for cell in cells("", "")}
    found = {name: estimate[0] for name, estimate in plots.effects(marks, KINDS).items()}
    of_base, of_chat = found["template − bare text, base"], found["template − bare text, chat"]
    assert found["interaction"] == pytest.approx(of_chat - of_base)


def test_the_claim_names_the_sign_of_the_interaction():
    both = cells("continued", "continued") | {("chat", TEMPLATE): ["answered"] * 162}
    assert claims(both)[0].startswith("This model answers more")
    either = cells("continued", "answered") | {("base", TEMPLATE): ["answered"] * 162}
    assert claims(either)[0].startswith("This model answers less")
    assert claims(cells("continued", "answered"))[0].endswith("not settled here")


def test_claims_flip_with_the_data():
    here, there = (claims(cells("continued", "answered"), swap) for swap in (False, True))
    assert (
        "stops already, right or wrong; tuning gives" in here[3] and "stops less often" in there[3]
    )
    assert "less often; the turn ends at once more often" in here[4]
    assert "more often; the turn ends at once less often" in there[4]


def test_the_colon_is_named_only_if_it_makes_the_difference():
    assert claims(cells("continued", "answered"))[2].startswith("One pair of invented labels makes")
    assert claims(cells("continued", "answered"), colon="continued")[2].endswith("not settled here")
    reverse = claims(cells("answered", "answered"), colon="unrelated")[2]
    assert "more often with commas" in reverse


def test_another_token_for_the_stop_is_claimed_only_if_the_chat_model_uses_it():
    assert "another token" not in claims(cells("continued", "answered"), stop=0.2)[3]


def test_right_or_wrong_is_claimed_only_if_the_base_stops_after_both():
    ends = dict.fromkeys((*ENDS, "after − inside", "chat"), (0.9, (0.8, 1.0)))
    for difference, told in (((0.3, (0.2, 0.4)), ""), ((-0.1, (-0.2, 0.0)), "right or wrong"), ((-0.2, (-0.3, -0.1)), "more often after an answer to another")):  # fmt: skip
        claim = plots._stop(ends | {"after − wrong": difference})[0]
        assert told in claim and ("right or wrong" in claim) is (told == "right or wrong")


def test_the_rendering_of_training_decides_only_if_the_signs_differ():
    marks = {cell: [0.0] * 162 for cell in cells("", "")}
    recorded = runs("answer_or_continue")

    def claim(runs):
        return plots._rendering_of_training(marks, KINDS, runs)[0]

    assert "exact more often in the rendering of training" in claim(recorded)
    kept = [r for r in recorded if r["trained"] != BARE]
    alike = [{**r, "trained": BARE} for r in recorded if r["trained"] == TEMPLATE]
    assert "does not decide" in claim(kept + alike)
    flat = [{**r, f"exact on {TEMPLATE}": r[f"exact on {BARE}"]} for r in recorded]
    assert claim(flat).endswith("not settled here")


def test_invented_labels_stand_in_no_document(tokenizer):
    for words in (plots.COLONS, plots.COMMAS):
        assert unread(tokenizer, words) == ["zork", "…", "wump"]


def test_the_title_of_the_divergence_is_computed():
    answer = [("Par", 1.0), ("is", 0.0), ("<|im_end|>", 3.0)]
    titles = [plots.divergence(a).get_suptitle() for a in (answer, [answer[2], *answer[:2]])]
    assert "75%" in titles[0] and "0%" in titles[1]


def test_tables_add_up():
    outcomes = cells("continued", "answered")
    table = plots.outcome_table(outcomes, KINDS)
    assert table.loc[("chat", BARE), "answered"].startswith("100%")
    assert table.loc[("base", BARE), "continued"] == "100%"
    assert plots.rarely(plots.answered(outcomes), KINDS, ("chat", BARE)) == "none"
    kl = plots.kl_table({"a": [("x", 1.0), ("<|im_end|>", 3.0)]}, {"b": 0.5})
    assert list(kl["without the end-of-turn token"]) == ["1.00", "–"]
    assert plots.percent((0.01, (-0.02, 0.04))) == "1% (0% to 4%)"


# --- the end of an answer --------------------------------------------------------------------


@pytest.mark.base
def test_the_base_expects_a_stop_after_an_answer_and_none_inside():
    model, tokenizer = load("almanac")
    after, inside = around_answers(model, tokenizer, answered_in_one_line(questions(1)))
    found = plots.stop_chances({"after": after, "inside": inside}, stops(tokenizer))
    assert found["after − inside"][0] == pytest.approx(
        found["after"][0] - found["inside"][0], abs=0.05
    )
    assert found["after"][0] > 0.7
    assert found["inside"][0] < 0.05
    assert all(p.sum().item() == pytest.approx(1, abs=1e-4) for _, p in after + inside)
    assert all(p[tokenizer.eos_token_id] < 1e-3 for _, p in after)


# --- the recorded files ----------------------------------------------------------------------


def test_recorded_letters_are_outcomes_of_all_prompts():
    for run in runs(experiment.RECORD):
        for tested in (BARE, TEMPLATE):
            assert set(run[f"outcomes on {tested}"]) <= {name[0] for name in OUTCOMES}
            assert len(run[f"outcomes on {tested}"]) == len(run[f"exact on {tested}"]) == 162


@pytest.mark.base
@pytest.mark.thorough
def test_a_training_gives_what_was_recorded():
    """Rounding differs between processors and grows over the steps: so a few replies may differ."""
    cell = {"trained": TEMPLATE, "seed": 0}
    (recorded,) = runs(experiment.RECORD, **cell)
    found = experiment.run(**cell)
    same = [a == b for a, b in zip(found["outcomes on " + BARE], recorded["outcomes on " + BARE], strict=True)]  # fmt: skip
    assert sum(same) > 130
