"""Notebook 18: counts on real shapes, held against PEFT's; its figures and its explorer."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import peft
import pytest

from sftlab.errors import WorkbookError
from sftlab.exercises.ex18_lora_with_peft import explorer as explorers
from sftlab.exercises.ex18_lora_with_peft import further
from sftlab.exercises.ex18_lora_with_peft.experiment import (
    ANSWERS,
    BUDGET,
    FACTS,
    SETS,
    batches,
    new_facts,
    questions,
    settings,
)
from sftlab.exercises.ex18_lora_with_peft.plots import (
    against,
    apart,
    arm,
    at_edge,
    at_equal_budget,
    beside_the_report,
    both_ways,
    by_chance,
    catch_up,
    claims,
    loss_ratio,
    over_share,
    places,
    sets_table,
    shares_at,
    sizes,
    trained,
    tried,
)
from sftlab.exercises.record import runs as recorded_runs
from sftlab.lora import inject_lora
from sftlab.memory.count import lora_config_for, targeted_layers, trainable_share
from sftlab.memory.shapes import build
from sftlab.quantized_layers import quantize_model_linears


def pefts_count(model, r, targets):
    config = peft.LoraConfig(r=r, lora_alpha=2 * r, target_modules=targets)
    wrapped = peft.get_peft_model(model, config, low_cpu_mem_usage=True)
    return wrapped, wrapped.get_nb_trainable_parameters()


@pytest.mark.parametrize("name", SETS)
def test_the_formula_counts_what_peft_counts(name):
    size = sizes(build("smollm2-135m"))
    wrapped, (count, every) = pefts_count(build("smollm2-135m"), 8, SETS[name])
    assert trained(size, name, 8) == (count, count / every)
    assert trainable_share(wrapped) == count / every


def test_the_known_counts_of_smollm2():
    size = sizes(build("smollm2-135m"))
    assert trained(size, "q, v", 8)[0] == 460_800
    assert trained(size, "all linear", 8)[0] == 2_442_240


def test_where_one_per_cent_holds():
    small, large = sizes(build("smollm2-135m")), sizes(build("llama-3-70b"))
    assert trained(small, "q, v", 8)[1] < 0.01 < trained(small, "all linear", 8)[1]
    assert trained(large, "all linear", 32)[1] < 0.01
    assert trained(large, "all linear", 64)[1] > 0.01


@pytest.mark.base
def test_the_share_of_a_packed_model_is_that_of_the_plain_one():
    from sftlab.models import load

    shares = []
    for prepare in (lambda m: m, quantize_model_linears):
        model = inject_lora(prepare(load("almanac")[0]), "all-linear", 8, 16)
        shares.append(trainable_share(model))
    assert shares[0] == shares[1] == 162_816 / 3_311_040


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"])
@pytest.mark.parametrize("budget", [500_000, 3_000_001])
def test_the_largest_rank_that_fits(budget, targets):
    config = lora_config_for(build("smollm2-135m"), budget, targets)
    assert config.lora_alpha == 2 * config.r
    _, (count, _) = pefts_count(build("smollm2-135m"), config.r, targets)
    _, (more, _) = pefts_count(build("smollm2-135m"), config.r + 1, targets)
    assert count <= budget < more


def test_a_budget_too_small_for_rank_one_and_unknown_targets_are_refused():
    model = build("smollm2-135m")
    with pytest.raises(WorkbookError, match="rank 1 takes 305,280 parameters"):
        lora_config_for(model, 300_000)
    with pytest.raises(WorkbookError, match="no linear layer of this model is called"):
        targeted_layers(model, ["c_attn"])


MODELS = {
    "small": {"parameters": 3_000_000, "per rank": dict.fromkeys(SETS, 20_000)},
    "huge": {"parameters": 70_000_000_000, "per rank": dict.fromkeys(SETS, 13_000_000)},
}


def test_the_figure_shows_every_model():
    figure = shares_at(MODELS, "q, v", 8, "words")
    assert "1 of 2 models" in figure.get_suptitle()
    plt.close("all")


def test_the_explorer_draws_its_extremes(monkeypatch):
    shown = {}
    monkeypatch.setattr(explorers, "explorer", lambda c, d, w: shown.update(c, draw=d, words=w))
    explorers.pick_rank(MODELS)
    for r in (1, 1024):
        for target in shown["target"].options:
            plt.close(shown["draw"](r, target))
            assert f"rank {r} on {target}" in shown["words"](r, target)


# --- the experiment ------------------------------------------------------------------------------


def test_new_facts_are_asked_in_words_that_were_not_trained():
    validation, test = questions(FACTS)
    trained_ones = {fact["prompt"] for fact in new_facts(0)}
    assert len(trained_ones) == 29
    assert not trained_ones & {q["prompt"] for q in (*validation, *test)}
    assert [q["answer"] for q in validation] == [q["answer"] for q in test]


def test_each_kind_of_new_fact_has_one_sentence_in_each_wording():
    for wording in range(3):
        facts = new_facts(wording)
        asked = {f["prompt"].replace(f["subject"], "…") for f in facts if f["kind"] != "maker"}
        assert len(asked) == 2
        assert {f["kind"] for f in facts} == {"capital", "maker", "number"}


def test_answers_are_validated_and_tested_on_different_questions():
    validation, test = questions(ANSWERS)
    assert not {q["prompt"] for q in validation} & {q["prompt"] for q in test}


@pytest.mark.base
def test_all_sets_of_a_seed_see_the_same_batches():
    from sftlab.models import load

    tokenizer = load("almanac")[1]
    one, two = ([b["input_ids"].tolist() for b in batches(tokenizer, FACTS, 3)] for _ in "12")
    assert one == two
    assert len(one) == 48


def made_up(qv: float, larger: float = 1.0, listed=settings, **levels: float):
    """Runs in which q and v have this loss, times a seed's own factor; the best rate is the second.

    levels: the losses of other sets, by their names, and ``answers``: that of attention in this task.
    """
    found = []
    for setting in listed():
        level = levels.get(setting["targets"], 1.0)
        level = qv if setting["targets"] == "q, v" else level
        if (setting["task"], setting["targets"]) == (ANSWERS, "attention"):
            level = levels.get("answers", level)
        level *= larger if setting["budget"] > BUDGET else 1.0
        tuned = setting.get("part") == further.WORDINGS
        worse = 1 if tuned else 1 + abs(math.log2(setting["learning_rate"] / 6.4e-3))
        loss = level * worse * (1 + 0.01 * setting["seed"])
        size = {"rank": 4, "trained": setting["budget"]}
        other = {"trained wording": loss, "test values": 3 * loss, "exact": 0.5}
        found.append(setting | size | {"validation": loss, "test": 2 * loss} | other)
    return found


def table_of(qv: float, **levels: float):
    """The table of claims of made-up runs."""
    return claims(made_up(qv, **levels), made_up(qv, listed=further.settings, **levels))


@pytest.mark.parametrize(("qv", "word"), [(3.0, "higher"), (0.3, "lower"), (1.0, "not settled")])
def test_the_words_follow_the_numbers(qv, word):
    assert loss_ratio(made_up(qv))[0] == pytest.approx(qv)
    found = table_of(qv)
    assert f"MLP, is {word}" in found["claim"][0]
    assert word in found["claim"][1].split("; with twelve times as many, ")[1]
    assert f"linear layers, is {word}" in found["claim"][3]
    assert word in found["control"][0].split("the ratio on the trained wording: ")[1]


@pytest.mark.parametrize(("down", "word"), [(3.0, "higher"), (0.3, "lower"), (1.0, "not settled")])
def test_down_is_compared_by_the_fresh_seeds_alone(down, word):
    more = made_up(1.0, listed=further.settings, down=down)
    for others in (down, 1 / down):  # the loss of down with the first seeds
        found = claims(made_up(1.0, down=others), more)
        assert f"linear layers, is {word}" in found["claim"][2]


def test_the_order_of_the_places_is_told_by_task():
    runs = made_up(1.0, attention=2.0, answers=0.5)
    assert "attention ÷ MLP ×0.50 (0.50 to 0.50), lower" in places(runs, ANSWERS)
    assert "attention ÷ MLP ×2.00 (2.00 to 2.00), higher" in places(runs, FACTS)
    assert beside_the_report(runs).endswith(
        "new facts higher, as reported for large models; answers lower, unlike the report on large models."
    )
    assert beside_the_report(made_up(1.0)).endswith(
        "new facts not settled here; answers not settled here."
    )


def test_an_interval_covers_both_ways_of_choosing_the_learning_rate():
    ways = {"validation": (2.0, (1.5, 2.5)), "test": (1.4, (0.9, 1.9))}
    assert both_ways(lambda by, name: ways[by]) == (2.0, (0.9, 2.5))
    runs = made_up(2.0)
    for run in runs:  # on the other wording q and v have the loss of the others
        if run["targets"] == "q, v":
            run["validation"] /= 2
    assert against(runs, FACTS, "q, v", "MLP")[1] == pytest.approx((1.0, 2.0))


# --- the further runs ----------------------------------------------------------------------------


@pytest.mark.base
def test_only_the_value_has_a_label():
    from sftlab.models import load

    tokenizer = load("almanac")[1]
    facts = new_facts(0)
    for fact, made in zip(facts, further.value_examples(tokenizer, facts), strict=True):
        labelled = [label for label in made.labels if label >= 0]
        assert tokenizer.decode(labelled).strip() == fact["value"]


@pytest.mark.base
def test_tokens_that_the_base_never_read_are_hit_by_chance_alone():
    from sftlab.models import load

    model, tokenizer = load("almanac")
    left, words = by_chance(model, tokenizer)
    assert left == pytest.approx(5 * math.log(720) / 344)
    assert (
        words.startswith("5 of 29 answers")
        and "So 72% can be exact, or more by a lucky guess." in words
    )
    assert words.endswith(f"a loss of {left:.3f} nats would stay.")
    losses = [run["trained wording"] for run in recorded_runs(further.RECORD)]
    assert left < min(losses) < left + 0.01  # the best arms are close to it
    exact = [run["trained exact"] for run in recorded_runs(further.RECORD)]
    assert 21 / 29 < max(exact) < 22.5 / 29  # a token is hit by chance now and then


def test_a_difference_in_nats_stays_if_both_arms_keep_a_further_loss():
    runs, more = made_up(3.0), made_up(3.0)
    for run in more:
        run["test"], run["validation"] = run["test"] + 0.1, run["validation"] + 0.1
    assert apart(runs, FACTS, "q, v", "MLP") == apart(more, FACTS, "q, v", "MLP")
    assert apart(runs, FACTS, "q, v", "MLP").endswith("higher")
    assert apart(runs, FACTS, "MLP", "q, v").endswith("lower")
    assert apart(made_up(1.0), FACTS, "q, v", "MLP").endswith("not settled here")


def test_the_further_runs_are_those_that_the_first_ones_left_open():
    runs = recorded_runs("lora_targets")
    for name, rate in further.TUNED.items():
        assert {run["learning_rate"] for run in arm(runs, FACTS, name)} == {rate}
    told = further.settings()
    first = {tuple(sorted(setting.items())) for setting in settings()}
    for setting in told:
        same = tuple(sorted((k, v) for k, v in setting.items() if k != "part"))
        assert (same in first) == (setting["part"] == further.WORDINGS)


def test_the_further_runs_repeat_the_first_ones_exactly():
    first = {
        (run["targets"], run["learning_rate"], run["seed"]): run
        for run in recorded_runs("lora_targets", task=FACTS, budget=BUDGET)
    }
    for run in recorded_runs(further.RECORD, part=further.WORDINGS):
        other = first[run["targets"], run["learning_rate"], run["seed"]]
        assert run["test"] == pytest.approx(other["test"], rel=0.02)


def test_three_times_the_budget_is_compared_with_one():
    assert catch_up(made_up(2.0, larger=0.25))[0] == pytest.approx(0.5)


def test_the_rate_is_chosen_on_validation_and_the_edges_are_known():
    runs = made_up(2.0)
    assert not any(at_edge(runs, FACTS, name) for name in SETS)
    for run in runs:
        run["validation"] = -run["learning_rate"] + 1  # the highest rate is best
    assert all(at_edge(runs, FACTS, name) for name in SETS)


def test_how_many_learning_rates_fresh_seeds_had_is_told_with_the_ends():
    runs = made_up(1.0, listed=further.settings)
    fresh = [run for run in runs if run["part"] == further.FRESH]
    told = tried(fresh, FACTS, ("all linear", "down"))
    assert told == "learning rates tried: all linear 2, the best (0.0064) an end of them; down 3, the best (0.0064) an end of them"  # fmt: skip
    for run in fresh:
        if run["targets"] == "down" and run["learning_rate"] == 0.0128:
            run["validation"] = 0.01
    assert tried(fresh, FACTS, ("down",)) == "learning rates tried: down 3"
    row = claims(made_up(1.0), runs)["control"][2]
    assert row.endswith(tried(fresh, FACTS, ("all linear", "down")))


def test_figures_and_tables_hold_every_set():
    runs = made_up(2.0)
    assert list(sets_table(runs, FACTS).index) == list(SETS)
    assert len(at_equal_budget(runs, 0.1).axes) == 2
    assert len(over_share(runs, 3_000_000).axes) == 1
    plt.close("all")
