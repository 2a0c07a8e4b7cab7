"""Notebook 10: best rates and their ratio, words that follow the numbers, and the recorded sweeps."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

from sftlab.exercises.ex10_lora_learning_rate import experiment, explorer, plots
from sftlab.exercises.ex10_lora_learning_rate.explorer import STEPS, ShortRuns
from sftlab.exercises.record import runs
from sftlab.exercises.sweeps import by_grid, over_grids, tail
from sftlab.exercises.trade_off import FULL, LORA, RATES, SEEDS, STRONG, prepare
from sftlab.statistics import best_rate, rate_ratio

GRIDS = RATES | {STRONG: experiment.RATES}


def recorded() -> list[dict]:
    return runs("trade_off") + [{**run, "method": STRONG} for run in runs("lora_rate_alpha")]


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


# --- the explorer ----------------------------------------------------------------------------


def test_the_explorer_s_runs_survive_extreme_rates(tiny_model, tokenizer):
    short = ShortRuns(tiny_model, tokenizer)
    weights = [p.clone() for p in tiny_model.parameters()]
    for method in (FULL, LORA):
        for rate in (1e-5, 1e-1):
            losses, after = short.run(method, rate)
            assert len(losses) == STEPS
            assert math.isfinite(after)
            explorer.one_run(method, rate, losses, short.before, after, "in words")
    assert all((p == w).all() for p, w in zip(tiny_model.parameters(), weights, strict=True))


# --- words that follow the numbers -----------------------------------------------------------


def made(
    best: dict[str, float], costly: dict[str, float], apart: dict[str, float] | None = None
) -> list[dict]:
    """Sweeps whose losses are lowest, and whose documents are lost, at given learning rates.

    W moves by the learning rate, or by a power of it for the methods in ``apart``.
    """
    far = apart or {}
    found = []
    for method, at in best.items():
        for rate in at * 2.0 ** np.arange(-3, 4):
            for seed in range(4):
                loss = 0.05 * math.exp(math.log(rate / (at * 1.03**seed)) ** 2)
                lost = plots.LOST * (rate / (costly[method] * 1.02**seed)) ** 2
                found.append({
                    "method": method, "learning_rate": float(rate), "seed": seed, "validation": [3, loss],
                    "test": [3, loss], "moved": [0, rate**far.get(method, 1.0)], **{name: [0.6, 0.6 + lost] for name in plots.DOCUMENTS},
                })  # fmt: skip
    return found


def claims(lora: float, strong: float, lost: float) -> list[str]:
    best = {FULL: 3e-4, LORA: lora, STRONG: strong}
    found = made(best, {FULL: 3e-4, LORA: lost, STRONG: strong})
    return list(plots.claims(found, found, {LORA: 0.25, STRONG: 0.9})["claim"])


def test_the_claims_turn_round_with_their_numbers():
    up, down = claims(3e-3, 1e-3, 3e-3), claims(3e-5, 1e-4, 3e-5)
    assert "rate is higher" in up[0] and "rate is lower" in down[0]
    assert "rate is lower" in up[2] and "rate is higher" in down[2]
    assert "forgotten is higher" in up[3] and "forgotten is lower" in down[3]
    assert "not settled" in claims(3e-4, 3e-4, 3e-4)[0]
    assert up_at(6e-3).endswith("is less") and up_at(6e-4).endswith("is more")


def test_exact_shares_and_the_loss_at_the_largest_rate_follow_the_runs():
    found = made({FULL: 3e-4, LORA: 3e-3}, {FULL: 3e-4, LORA: 3e-3})
    assert plots.exact_told(found) == ""
    for run in found:
        run["exact"] = [0, 0.75 if run["method"] == LORA else 0.5]
    assert "75.0% against 50.0%, +25.0 points" in plots.exact_told(found)
    learned = [run | {"validation": [3, 1]} for run in found]
    assert "start: 0 of 4 seeds" in plots.at_largest(learned, "here")
    broken = [run | {"validation": [3, 4]} for run in found]
    assert "from 3.00 to 4.00" in plots.at_largest(broken, "here")
    assert "start: 4 of 4 seeds" in plots.at_largest(broken, "here")


def up_at(lost: float) -> str:
    """Return the claim on forgetting at each method's best, where LoRA has lost as much at a learning rate."""
    return claims(3e-3, 1e-3, lost)[4]


def test_the_runner_up_is_the_second_lowest_of_the_grid():
    found = made({FULL: 3e-4, LORA: 3e-3}, {FULL: 3e-4, LORA: 3e-3})
    rate, (ratio, _) = plots.runner_up(found, FULL)
    assert rate == pytest.approx(6e-4)  # the minima of the later seeds lie above 3e-4
    assert ratio > 1
    assert np.mean(plots.rises(found, FULL, 6e-4)) > np.mean(plots.rises(found, FULL, 3e-4))


def test_how_far_a_moved_is_relative_to_its_start(tiny_model):
    start = prepare(tiny_model, LORA, 0)
    model = copy.deepcopy(start)
    for name, parameter in model.named_parameters():
        if name.endswith(".A"):
            parameter.data *= 1.5
    assert plots.start_moved(model, start) == pytest.approx(0.5)
    assert plots.start_moved(start, start) == 0


def test_the_interval_over_grids_holds_the_ratio_and_turns_round():
    found = made({FULL: 3e-4, LORA: 3e-3}, {FULL: 3e-4, LORA: 3e-3})
    ratio, (low, high) = plots.ratio(found)
    assert ratio == pytest.approx(10, rel=1e-3)
    assert low <= ratio <= high
    back, (least, most) = plots.ratio(found, FULL, LORA)
    assert back == pytest.approx(1 / ratio)
    assert (least, most) == pytest.approx((1 / high, 1 / low), rel=0.05)


def cup(best: float, grid: list[float], power: float = 2) -> dict[float, float]:
    """A sweep over a few learning rates, lowest at ``best``."""
    return {rate: 1 + abs(math.log(rate / best)) ** power for rate in grid}


def test_with_one_grid_and_many_seeds_the_draws_give_the_t_interval():
    noise = np.random.default_rng(0).normal(scale=0.1, size=(2, 60))
    grid = [0.5, 1, 2, 4]
    first, second = ([cup(1.4 * math.exp(e), grid) for e in some] for some in noise)
    ratio, (low, high) = over_grids(first, second)
    assert ratio == rate_ratio(first, second)[0]
    assert (low, high) == pytest.approx(rate_ratio(first, second)[1], rel=0.01)


def test_grids_add_to_the_interval_and_one_without_a_minimum_has_no_row():
    few, more, falling = [0.5, 1, 2, 4], [0.25, 0.5, 1, 2, 4], [0.9, 1, 2, 4, 8]
    assert len(by_grid([cup(1.3, few)] * 3)) == 1  # of four learning rates none is left out
    alike = [cup(1.3, more, power=1.5)] * 3
    assert len(by_grid(alike)) == 6
    low, high = over_grids(alike, alike)[1]
    assert low < 1 < high  # equal seeds: all of the width comes from the grids
    assert len(by_grid([cup(1.1, falling)] * 3)) == 4  # without 0.9 or 1 it is lowest at the end


def test_few_seeds_have_farther_quantiles():
    assert tail(1000) == pytest.approx(0.025, rel=0.02)
    assert tail(3) < tail(5) < tail(10) < 0.025


def test_a_loss_that_is_never_reached_has_no_rate():
    found = made({FULL: 3e-4, LORA: 3e-3}, {FULL: 1.0, LORA: 3e-3})
    assert np.isnan(plots.where_lost(found, FULL)).all()
    assert plots.lost_ratio(found) is None
    assert "never lose" in plots.why_lost(found)


def test_a_set_of_documents_that_some_seed_does_not_lose_has_an_entry_of_its_own():
    found = made({FULL: 3e-4, LORA: 3e-3}, {FULL: 3e-4, LORA: 3e-3})
    for run in found:
        run["test_documents"] = [0.6, 0.6]
    table = plots.lost_table(found, [plots.LOST]).iloc[0]
    assert "×10" in table["learning rate, validation documents"]
    assert table["learning rate, test documents"] == "some seeds lose less"


def test_the_distance_of_w_is_refuted_only_where_equal_results_lie_at_unequal_distances():
    best = {FULL: 3e-4, LORA: 2e-3, STRONG: 1e-3}
    found = made(best, best, {FULL: 1.0, LORA: math.log(3e-4) / math.log(2e-3)})
    for run in found:
        run["moved"] = [
            0,
            run["moved"][1] * (1.2 if run["seed"] % 2 and run["method"] == LORA else 1),
        ]
    assert "may or may not" in plots.why_lost(found)
    assert "may or may not" in plots.why_reused(found)
    found = made(best, best)
    assert "×6.6" in plots.why_lost(found) and "does not decide" in plots.why_lost(found)
    assert "would be ×1.0" in plots.why_lost(found)  # W moves equally far at equal learning rates
    assert "does not decide" in plots.why_reused(found)
    for run in found:
        if run["method"] == LORA:
            run["test"] = [3, 2 * run["test"][1]]
    assert "decide" not in plots.why_reused(found)  # the results differ, too


def test_the_interval_of_a_ratio_reaches_as_far_as_the_wider_of_two():
    first, second = ([*plots.sweeps(recorded(), m)] for m in (FULL, LORA))
    low, high = plots.outer(first, second)[1]
    for inner in (rate_ratio(first, second), over_grids(first, second)):
        assert low <= inner[1][0] and inner[1][1] <= high


def test_equal_forgetting_covers_both_sets_of_documents():
    found = made({FULL: 3e-4, LORA: 3e-3}, {FULL: 3e-4, LORA: 3e-3})
    for run in found:
        if run["method"] == LORA:
            run["validation_documents"] = [0.6, 0.6 + 4 * (run["validation_documents"][1] - 0.6)]
    value, (low, high) = plots.lost_ratio(found)
    assert value == pytest.approx(10, rel=0.01)
    assert low < 5.1 and high > 9.9  # the other set is lost at half the learning rate


def test_a_direction_of_forgetting_is_named_only_if_all_tied_learning_rates_agree():
    found = made({FULL: 3e-4, LORA: 3e-3}, {FULL: 3e-4, LORA: 6e-4})
    assert len(plots.costlier(found)) == 1 and len(plots.cost_table(found)) == 1
    for run in found:  # two learning rates of LoRA are equally good, and one forgets nothing
        if run["method"] == LORA and 1e-3 < run["learning_rate"] < 2e-3:
            run["validation"], run["test_documents"] = [3, 0.05 * (1 + run["seed"] / 9)], [0.6, 0.6]
    assert len(plots.costlier(found)) == 2
    found += made({STRONG: 1e-3}, {STRONG: 1e-3})
    assert "not settled" in plots.claims(found, [], {LORA: 0.25, STRONG: 0.9})["claim"][4]


def test_nothing_is_told_of_a_loss_that_was_not_reached():
    assert "not measured" in plots.told(None)


# --- the recorded runs -----------------------------------------------------------------------


@pytest.mark.parametrize("method", (FULL, LORA, STRONG))
@pytest.mark.parametrize("name", ("validation", "test"))
def test_the_best_learning_rate_of_every_seed_lies_inside_its_grid(method, name):
    found = plots.sweeps(recorded(), method, name)
    assert len(found) == SEEDS
    for sweep in found:
        assert GRIDS[method][0] < best_rate(sweep) < GRIDS[method][-1]


def test_a_minimum_at_the_end_of_a_grid_gives_no_ratio():
    found = made({FULL: 3e-4, LORA: 3e-3}, {FULL: 3e-4, LORA: 3e-3})
    assert plots.inside(found) == plots.ratio(found)
    assert (
        plots.inside([r for r in found if r["learning_rate"] < 4e-3 or r["method"] == FULL]) is None
    )
