"""Notebook 09: one step at many ranks, what equals doubling α, and words that follow the numbers."""

from __future__ import annotations

import copy
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sftlab.exercises.ex09_lora_alpha_over_r import (
    alpha_or_rate,
    experiment,
    explorer,
    first_step,
    plots,
)
from sftlab.exercises.ex09_lora_alpha_over_r.alpha_or_rate import DOUBLED, EPS, STOPS, VARIANTS
from sftlab.exercises.ex09_lora_alpha_over_r.experiment import (
    FACTOR,
    MEETING_RANK,
    RANKS,
    RULES,
    alpha_of,
)
from sftlab.exercises.ex09_lora_alpha_over_r.first_step import EVERY_RANK, PARTS, signs
from sftlab.exercises.ex09_lora_alpha_over_r.split import split_update
from sftlab.exercises.record import runs
from sftlab.lora import lora_scale

MODULES = (alpha_or_rate, experiment, first_step)


@pytest.fixture
def tiny(monkeypatch, tiny_model, tokenizer):
    """The tiny random model in place of the one that is loaded."""
    for module in MODULES:
        monkeypatch.setattr(
            module, "load", lambda name: (copy.deepcopy(tiny_model), tokenizer), raising=False
        )


# --- the experiments -------------------------------------------------------------------------


def test_the_rules_agree_at_the_meeting_rank():
    for rule in RULES:
        assert lora_scale(alpha_of(rule), MEETING_RANK, rule) == pytest.approx(FACTOR)


def test_the_rest_of_an_update_has_no_part_along_the_gradient():
    update, gradient = torch.randn(2, 5, 7)
    along, rest = split_update(update, gradient)
    assert torch.allclose(along + rest, update, atol=1e-6)
    assert torch.allclose((rest * gradient).sum(1), torch.zeros(5), atol=1e-4)
    for row, other in zip(along, gradient, strict=True):
        assert torch.linalg.matrix_rank(torch.stack([row, other])) == 1


def test_a_change_of_the_output_leaves_the_base_as_it_was(tiny):
    base, tokenizer = experiment.load("almanac")
    name, layer = next((n, m) for n, m in base.named_modules() if n.endswith("q_proj"))
    before, change = layer.weight.clone(), {name: 0.1 * torch.randn_like(layer.weight)}
    batch = experiment.asked(tokenizer)
    moved = experiment.output_change(change, base, batch)
    assert moved > 0
    assert torch.equal(layer.weight, before)
    assert experiment.output_change({name: 0 * change[name]}, base, batch) == 0
    wanted = (change[name].norm() / before.norm()).item()
    assert experiment.size_of(change, base) == pytest.approx(wanted, rel=1e-5)


def test_a_first_step_is_split_and_scaled(tiny):
    found = first_step.run(16, 0)
    sizes = {part: found["lora"][part][0] for part in PARTS}
    assert sizes["whole"] == pytest.approx(math.hypot(sizes["along"], sizes["rest"]), rel=1e-3)
    assert sizes["turned"] == pytest.approx(sizes["whole"], rel=0.2)
    assert sizes["equal"] > 1.5 * sizes["whole"]
    for rule in RULES:
        scale = lora_scale(alpha_of(rule), 16, rule) / lora_scale(alpha_of("lora"), 16)
        assert found[rule]["whole"][0] == pytest.approx(scale * sizes["whole"], rel=1e-3)
        assert found[rule]["sgd"][0] == pytest.approx(scale**2 * sizes["sgd"], rel=1e-3)


def test_with_equal_rows_of_A_the_norm_does_not_depend_on_the_rank(tiny):
    norms = [first_step.run(r, 0)["lora"]["equal"][0] for r in (2, 16)]
    assert norms[0] == pytest.approx(norms[1], rel=0.2)


def test_one_step_of_sgd_under_a_rule_is_the_recorded_one_scaled(tiny):
    _, tokenizer = experiment.load("almanac")
    batch = next(experiment.batches(tokenizer, 0))
    adapters = first_step.products(16, 0, batch, torch.optim.SGD)
    model = experiment.with_lora(16, 0, "plain")
    optimizer = torch.optim.SGD(experiment.lora_parameters(model), lr=first_step.SGD_RATE)
    first_step.train_step(model, batch, optimizer, max_grad_norm=None)
    times = alpha_of("plain") / lora_scale(alpha_of("lora"), 16)
    for name, layer in first_step.lora_layers(model).items():
        assert torch.allclose(layer.B, times * adapters[name][1], rtol=1e-3, atol=1e-9)


def test_signs_are_plus_or_minus_one_and_differ_between_draws():
    generator = torch.Generator().manual_seed(3)
    found, other = signs(64, generator), signs(64, generator)
    assert set(found.tolist()) == {-1.0, 1.0}
    assert not torch.equal(found, other)


def test_under_adam_doubled_alpha_is_twice_the_learning_rate_of_B(tiny, monkeypatch):
    monkeypatch.setattr(alpha_or_rate, "STOPS", (1, 3))
    found = alpha_or_rate.run("adam", 2e-3, 0, eps=1e-16)
    assert found["learning rate of B × 2"] == [0, 0]
    assert found["both learning rates × 2"][0] < 1e-6 < 0.01 < found["both learning rates × 2"][1]
    assert min(found["learning rate of A × 2"]) > 0.3


def test_under_sgd_the_first_step_of_doubled_alpha_is_four_times_as_long(tiny, monkeypatch):
    monkeypatch.setattr(alpha_or_rate, "STOPS", (1, 3))
    found = alpha_or_rate.run("sgd", 0.05, 0)
    assert found["both learning rates × 4"][0] < 1e-4 < found["both learning rates × 4"][1]
    assert found["both learning rates × 2"][0] == pytest.approx(0.5, rel=1e-3)


# --- words that follow the numbers -----------------------------------------------------------


def noisy(value: float, seed: int) -> float:
    return value * (1 + 0.01 * math.sin(7 * seed + 100 * value))


def first_runs(size: float = -0.5, output: float = 0.0, turned: float = -0.5, sgd: float = -1.0, equal: float = 0.0) -> list[dict]:  # fmt: skip
    """First steps whose sizes are powers of the rank with α/r; the other rules follow."""
    found = []
    for seed in range(4):
        for r in EVERY_RANK:
            run: dict = {"r": r, "seed": seed}
            for rule in RULES:
                scale = lora_scale(alpha_of(rule), r, rule) / lora_scale(alpha_of("lora"), r)
                powers = {"whole": (size, output), "along": (output, output), "rest": (size, size),
                          "turned": (size, turned), "equal": (equal, 0.0), "sgd": (size, sgd)}  # fmt: skip
                run[rule] = {
                    part: [noisy(scale ** (1 + (part == "sgd")) * 0.01 * r**p, seed) for p in pair]
                    for part, pair in powers.items()
                }
            found.append(run)
    return found


def trained_runs(moves: dict[str, float], better: float = 0.9, all_rates: bool = False) -> list[dict]:  # fmt: skip
    """Sweeps whose best learning rate at rank r is 2e-3 times (r/8) to a power; α/√r has another loss.

    all_rates: a wider grid than the recorded one.
    """
    found, settings = [], experiment.settings()
    if all_rates:
        some = {(s["rule"], s["r"], s["seed"]): s for s in settings}.values()
        settings = [{**s, "learning_rate": 2e-3 * 2.0**k} for s in some for k in range(-8, 9)]
    for setting in settings:
        best = 2.2e-3 * (setting["r"] / MEETING_RANK) ** moves[setting["rule"]]
        loss = 0.05 * math.exp(0.5 * math.log(setting["learning_rate"] / best) ** 2)
        loss = noisy(loss, setting["seed"]) * (better if setting["rule"] == "rslora" else 1)
        found.append({**setting, "size": 0.1, "output": noisy(3.0, setting["seed"]), "validation": loss, "test": loss})  # fmt: skip
    return found


def alpha_runs(of_B: float, both: float, square: float) -> list[dict]:
    """Comparisons with doubled α; a smaller ε makes B's learning rate exact."""
    values = {DOUBLED: 0.0, "learning rate of A × 2": 0.4, "learning rate of B × 2": of_B, "both learning rates × 2": both,
              "both learning rates × 4": square}  # fmt: skip
    return [
        {**setting, **{v: [noisy(values[v], setting["seed"]) * (setting["eps"] == EPS or "B" not in v)] * len(STOPS)
                       for v in VARIANTS[setting["optimizer"]]}}
        for setting in alpha_or_rate.settings()
    ]  # fmt: skip


MOVES = {"lora": 0.0, "rslora": -0.1, "plain": -0.4}


@pytest.mark.parametrize(
    ("power", "words"),
    [(-0.5, "falls like 1/√r"), (0.0, "is steady"), (0.5, "grows like √r"), (1.0, "grows like r"), (-0.25, "falls"),
     (0.7, "grows")],
)  # fmt: skip
def test_a_power_of_the_rank_gets_its_words(power, words):
    found = plots.exponent(plots.by_rank(first_runs(output=power), "lora", "whole", 1))
    assert found[0] == pytest.approx(power, abs=0.02)
    assert plots.way(found).replace("about ", "").replace("nearly ", "") == words


def test_an_exponent_that_its_interval_leaves_out_is_only_near():
    assert plots.way((-0.47, (-0.48, -0.46))) == "falls about like 1/√r"
    assert plots.way((0.05, (0.03, 0.07))) == "is nearly steady"


def test_an_open_interval_is_not_settled():
    assert plots.way((-0.2, (-0.5, 0.1))) == "not settled here"


def claims(**changed) -> list[str]:
    made = {"first": first_runs(), "trained": trained_runs(MOVES), "alpha": alpha_runs(1e-4, 0.4, 1e-7)}  # fmt: skip
    return list(plots.claims(**(made | changed))["claim"])


def test_the_claims_follow_the_numbers():
    found = claims()
    assert "output is steady" in found[0]
    assert "ΔW falls like 1/√r" in found[0]
    assert found[1].endswith("α/r not settled here; α/√r lower; α lower")
    assert "equals doubling B's" in found[2]
    turned = claims(
        first=first_runs(size=0.0, output=0.5),
        trained=trained_runs({"lora": 0.25, "rslora": 0.0, "plain": -2.0}),
        alpha=alpha_runs(0.3, 0.4, 0.5),
    )
    assert "output grows like √r" in turned[0]
    assert "ΔW is steady" in turned[0]
    assert turned[1].endswith("α/r higher; α/√r not settled here; α at an end of the grid")
    assert "is not doubling B's" in turned[2]


def test_where_a_claim_stops_holding_follows_the_numbers():
    limits = plots.claims(first_runs(), trained_runs(MOVES), alpha_runs(1e-4, 0.4, 1e-7))
    told = list(limits["where it stops holding"])
    assert "SGD, output: r^-1.0" in told[0] and "falls like 1/r; α/√r there: r^" in told[0]
    assert "step is that of 4 times" in told[2]
    other = plots.claims(first_runs(sgd=0.0), trained_runs(MOVES), alpha_runs(1e-4, 0.4, 0.5))
    told = list(other["where it stops holding"])
    assert told[0].split("after training")[0].count("is steady") == 1
    assert "step is not that of 4 times" in told[2]


def test_the_titles_follow_the_numbers():
    title = plots.over_ranks(first_runs()).get_suptitle()
    assert "‖ΔW‖ is steady with α/√r, the change of the output with α/r; SGD: with α/√r" in title
    assert "‖ΔW‖ is steady with no factor" in plots.over_ranks(first_runs(size=-0.25)).get_suptitle()  # fmt: skip
    title = plots.parts(first_runs(size=0.0, output=0.5, turned=-0.5)).get_suptitle()
    assert title == "Output: the part along the gradient grows like √r; the rest is steady; ΔW with random signs falls like 1/√r"  # fmt: skip
    title = plots.parts(first_runs()).get_suptitle()
    assert title.endswith(
        "the part along the gradient is steady; the rest and ΔW with random signs fall like 1/√r"
    )
    plt.close("all")


def test_the_factors_with_which_a_size_is_steady_follow_the_numbers():
    told = plots.exponents_table(first_runs(), trained_runs(MOVES))
    norm, output, sgd, _, best = told["steady with"]
    assert (norm, output, sgd, best) == ("α/√r", "α/r", "α/√r", "α/r")
    assert told.loc["best learning rate", "factor α"].startswith("-0.4")
    assert told.loc["one step of Adam, ‖ΔW‖", "factor α/r"].startswith("-0.5")
    other = plots.exponents_table(first_runs(output=0.25), trained_runs(MOVES))
    assert other["steady with"].iloc[1] == "no factor"


def test_those_that_do_the_same_stand_together_in_a_title():
    assert plots._grouped({"a": "falls", "b": "not settled here", "c": "falls"}) == "a and c fall; b is not settled here"  # fmt: skip


def test_a_learning_rate_carried_to_another_rank_costs_what_it_costs():
    made = trained_runs(MOVES)
    assert plots.carried_rate(made) == 2e-3
    assert plots.carried(made, "lora", 128)[0] == 1
    assert plots.cost(made, "lora", 128) == "same grid point"
    assert plots.cost(made, "plain", 128).endswith("higher")
    assert plots.carried(made, "plain", 128)[0] > 1.2
    assert plots.moved_rate(made, "plain", 128)[0] == pytest.approx(16**-0.4, rel=0.1)
    assert plots.moved_rate(trained_runs(MOVES | {"plain": -2.0}), "plain", 128) is None


def test_distances_are_written_with_as_many_digits_as_they_deserve():
    shown = [plots.share((x, (x, x))) for x in (0.0, 1e-8, 2.3e-4, 0.05, 0.412)]
    assert shown == ["0", "below 0.0001%", "0.023% (0.023% to 0.023%)", "5.00% (5.00% to 5.00%)", "41% (41% to 41%)"]  # fmt: skip


def test_the_interval_of_a_distance_is_above_zero():
    value, (low, high) = plots.middle([1e-4, 1e-3, 1e-2])
    assert value == pytest.approx(1e-3)
    assert 0 < low < value < high
    assert plots.middle([0.0, 0.0]) == (0, (0, 0))


# --- the recorded runs -----------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_all_settings_are_recorded(module):
    wanted = module.settings()
    found = [{key: run[key] for key in wanted[0]} for run in runs(module.RECORD)]
    assert sorted(map(str, found)) == sorted(map(str, wanted))


def test_every_seed_has_its_lowest_loss_inside_the_grid():
    recorded = runs("lora_over_ranks")
    for rule in RULES:
        for r in RANKS:
            assert not np.isnan(plots.best_rates(recorded, rule, r)).any(), (rule, r)


@pytest.mark.base
def test_a_first_step_measured_again_gives_what_is_recorded():
    (recorded,) = runs("lora_first_step", r=4, seed=1)
    for part, sizes in first_step.run(4, 1)["lora"].items():
        assert sizes == pytest.approx(recorded["lora"][part], rel=0.05), part


# --- pictures --------------------------------------------------------------------------------


def test_the_figures_and_tables_are_made():
    made = first_runs(), trained_runs(MOVES), alpha_runs(1e-4, 0.4, 1e-7)
    for figure in (plots.over_ranks(made[0]), plots.parts(made[0]), plots.apart(made[2])):  # fmt: skip
        figure.draw_without_rendering()
        plt.close(figure)


def test_the_explorer_draws_every_choice(monkeypatch):
    shown = {}
    monkeypatch.setattr(explorer, "explorer", lambda controls, draw, alt: shown.update(controls, draw=draw, alt=alt))  # fmt: skip
    explorer.carry_over(trained_runs(MOVES | {"plain": -2.0}))
    for _, rule in shown["rule"].options:
        for _, r in shown["r"].options:
            plt.close(shown["draw"](rule, r))
            assert f"rank {r}" in shown["alt"](rule, r)
    assert "at an end of its grid" in shown["alt"]("plain", 128)
