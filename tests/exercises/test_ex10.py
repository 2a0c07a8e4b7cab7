"""Notebook 10: best rates and their ratio, the sweep's measurements, and a part of it once more."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from sftlab.exercises.ex10_lora_learning_rate import plots
from sftlab.exercises.ex10_lora_learning_rate.experiment import (
    METHODS,
    RATES,
    SEEDS,
    document_nll,
    document_rows,
    fresh,
    heldout_nll,
    questions,
    run,
    training_rows,
    tune,
    untouched_facts,
    weights_moved,
)
from sftlab.exercises.ex10_lora_learning_rate.explorer import STEPS, ShortRuns
from sftlab.exercises.record import runs
from sftlab.lora import inject_lora, merge_lora
from sftlab.loss import IGNORE_INDEX
from sftlab.models import load
from sftlab.statistics import best_rate, change_by_seed, mean_with_interval, rate_ratio

NAME = "learning_rate"
RATES_TRIED = np.logspace(-5, -1, 9)


def valley(best: float, floor: float = 0.05, width: float = 1.0) -> dict[float, float]:
    """A sweep whose log loss is a parabola over log rate, lowest at ``best``."""
    return {x: floor * math.exp(width * math.log(x / best) ** 2) for x in RATES_TRIED}


# --- the best rate ---------------------------------------------------------------------------


@pytest.mark.parametrize("best", [4.2e-5, 1e-4, 3.3e-4, 2.1e-2])
@pytest.mark.parametrize("width", [0.1, 2.0])
def test_the_minimum_of_a_parabola_is_found_exactly(best, width):
    assert best_rate(valley(best, width=width)) == pytest.approx(best, rel=1e-6)


def test_neither_order_nor_scale_of_the_losses_matters():
    sweep = valley(4e-4)
    turned = dict(reversed([(rate, 7 * loss) for rate, loss in sweep.items()]))
    assert best_rate(turned) == pytest.approx(best_rate(sweep), rel=1e-9)


def test_it_lies_between_the_neighbours_whatever_they_are():
    for left, right in ((1.0, 1e6), (1e6, 1.0), (0.2001, 0.2001)):
        assert 1e-4 < best_rate({1e-4: left, 1e-3: 0.2, 1e-2: right}) < 1e-2


def test_runs_that_broke_down_do_not_count():
    sweep = valley(1e-3) | {1.0: math.nan, 0.5: math.inf}
    assert best_rate(sweep) == best_rate(valley(1e-3))


@pytest.mark.parametrize(
    "sweep",
    [{}, {1e-3: 1.0}, {1e-4: 2.0, 1e-3: 1.0}, {1e-4: 1.0, 1e-3: 2.0, 1e-2: 3.0}, {1e-3: math.nan}],
)
def test_a_minimum_at_the_end_is_refused(sweep):
    with pytest.raises(ValueError, match="end of the sweep"):
        best_rate(sweep)


def test_the_ratio_is_a_geometric_mean_and_its_interval_a_factor_up_and_down():
    full, lora = [valley(1e-4), valley(1e-4)], [valley(5e-4), valley(2e-3)]
    ratio, (low, high) = rate_ratio(full, lora)
    assert ratio == pytest.approx(10)
    assert low * high == pytest.approx(ratio**2)
    inverse, ends = rate_ratio(lora, full)
    assert inverse == pytest.approx(1 / ratio)
    assert ends == pytest.approx((1 / high, 1 / low))


def test_methods_need_the_same_seeds():
    with pytest.raises(ValueError, match="argument 2"):
        rate_ratio([valley(1e-4)] * 2, [valley(1e-3)] * 3)
    with pytest.raises(ValueError, match="at least two"):
        rate_ratio([valley(1e-4)], [valley(1e-3)])


# --- what is measured ------------------------------------------------------------------------


def test_documents_are_trained_but_for_their_first_token(tokenizer):
    rows = document_rows(tokenizer, 5)
    for row in rows:
        assert row.input_ids[0] == row.input_ids[-1] == tokenizer.bos_token_id
        assert row.labels == [IGNORE_INDEX, *row.input_ids[1:]]


def test_untouched_facts_are_of_kinds_that_no_pair_asks_for(tokenizer):
    facts = untouched_facts()
    assert len(facts) == 100
    assert not any(fact.asked for fact in facts)
    assert {fact.kind for fact in facts} == {"currency", "young"}
    assert not {q["kind"] for q in questions()} & {"currency", "young"}


def test_an_untrained_model_has_the_loss_of_a_guess(tiny_model, tokenizer):
    guess = math.log(len(tokenizer))
    assert document_nll(tiny_model, tokenizer, 3) == pytest.approx(guess, abs=0.5)
    assert heldout_nll(tiny_model, tokenizer, 3) == pytest.approx(guess, abs=0.5)


def test_how_far_the_weights_moved_is_the_same_before_and_after_merging(tiny_model):
    base = copy.deepcopy(tiny_model)
    assert weights_moved(tiny_model, base) == 0
    inject_lora(tiny_model, target_modules="all-linear", r=3, lora_alpha=7, seed=1)
    assert weights_moved(tiny_model, base) == 0
    for name, p in tiny_model.named_parameters():
        if name.endswith(".B"):
            p.data.normal_()
    moved = weights_moved(tiny_model, base)
    assert moved > 0.1
    assert weights_moved(merge_lora(tiny_model), base) == pytest.approx(moved, rel=1e-4)


# --- the explorer and the figures ------------------------------------------------------------


def test_the_explorer_s_runs_survive_extreme_rates(tiny_model, tokenizer):
    short = ShortRuns(tiny_model, tokenizer)
    weights = [p.clone() for p in tiny_model.parameters()]
    for method in METHODS:
        for rate in (1e-5, 1e-1):
            losses, after = short.run(method, rate)
            assert len(losses) == STEPS
            assert math.isfinite(after)
            plots.one_run(method, rate, losses, short.before, after, "in words")
    assert all((p == w).all() for p, w in zip(tiny_model.parameters(), weights, strict=True))


def test_rates_are_written_as_people_write_them():
    assert [plots.rate_name(rate) for rate in (1e-5, 3e-4, 0.1)] == ["1e-5", "3e-4", "1e-1"]


# --- the recorded file -----------------------------------------------------------------------


def test_every_seed_has_its_sweep():
    assert len(plots.sweeps(runs(NAME), "lora")) == SEEDS


def test_both_curves_have_two_sides_in_every_seed():
    recorded = runs(NAME)
    for method in METHODS:
        for sweep in plots.sweeps(recorded, method):
            best = best_rate(sweep)
            assert sweep[RATES[method][0]] > 10 * min(sweep.values()) < sweep[RATES[method][-1]]
            assert RATES[method][0] < best < RATES[method][-1]


def test_what_the_notebook_says_of_the_recorded_runs():
    recorded = runs(NAME)
    ratio, (low, high) = rate_ratio(*(plots.sweeps(recorded, m) for m in METHODS))
    assert 3 < low < 10 < high < 30
    assert 5 < ratio < 15
    base = 0.59
    for slow, fast in ((3e-4, 3e-3), (1e-3, 1e-2)):  # LoRA forgets more of the documents
        _, (low, _) = change_by_seed(
            recorded, "documents", {"method": "full", "rate": slow}, {"method": "lora", "rate": fast}
        )  # fmt: skip
        assert low > 0
    for method, rate in (("full", 1e-4), ("lora", 1e-3)):  # and below the best rate neither does
        assert mean_with_interval(recorded, "documents", method=method, rate=rate)[0] < base + 0.01
    assert mean_with_interval(recorded, "recall", method="lora", rate=0.1)[0] < 0.05
    good = {m: [r for r in recorded if r["method"] == m and r["nll"] < 0.1] for m in METHODS}
    cheapest = {m: min(found, key=lambda run: run["documents"]) for m, found in good.items()}
    assert cheapest["full"]["rate"] == min(recorded, key=lambda run: run["nll"])["rate"] == 3e-4
    assert cheapest["full"]["documents"] < 0.62 < 0.7 < cheapest["lora"]["documents"]


@pytest.mark.base
def test_the_base_s_own_loss_on_documents_is_the_one_that_is_told():
    assert document_nll(*load("almanac")) == pytest.approx(0.59, abs=0.005)


@pytest.mark.base
def test_at_the_same_rate_the_first_step_of_lora_is_shorter_by_the_computed_factor():
    base, tokenizer = fresh("full", 0)
    moved = {}
    for method in METHODS:
        model, _ = fresh(method, 0)
        tune(model, tokenizer, 5e-4, seed=0, max_steps=1)
        moved[method] = weights_moved(model, base)
    factor = 16 / 8 * math.sqrt(8) / math.sqrt(3 * 192)
    assert moved["lora"] / moved["full"] == pytest.approx(factor, rel=0.25)
    assert len(training_rows(tokenizer, 0)) == 32


@pytest.mark.base
@pytest.mark.slow
@pytest.mark.parametrize(("method", "rate"), [("full", 3e-4), ("lora", 3e-3)])
def test_a_run_gives_what_was_recorded(method, rate):
    """Rounding differs between processors and grows over the steps: so a few answers may differ."""
    (recorded,) = runs(NAME, method=method, rate=rate, seed=0)
    found = run(method, rate, seed=0)
    assert found["nll"] == pytest.approx(recorded["nll"], rel=0.25)
    assert found["documents"] == pytest.approx(recorded["documents"], rel=0.1)
    assert found["exact"] == pytest.approx(recorded["exact"], abs=0.08)
    assert found["recall"] == pytest.approx(recorded["recall"], abs=0.05)
