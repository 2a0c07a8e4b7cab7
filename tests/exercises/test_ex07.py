"""Notebook 07: its explorer at extreme settings, cutting an update, words, and what was recorded."""

from __future__ import annotations

import itertools
import json

import matplotlib.pyplot as plt
import pytest
import torch

from sftlab.almanac.pairs import pairs
from sftlab.exercises.ex07_lora_parameter_count import explorer, plots
from sftlab.exercises.ex07_lora_parameter_count.experiment import (
    FULL,
    LORA,
    PAIRS,
    RANKS,
    RATES,
    SEEDS,
    STEPS,
    changed,
    energy,
    linear_weights,
    nearest_low_rank,
    questions,
    run,
)
from sftlab.exercises.ex07_lora_parameter_count.optimizers import ADAMW, LONG, SGD
from sftlab.exercises.ex07_lora_parameter_count.optimizers import settings as settings_of_others
from sftlab.exercises.ex07_lora_parameter_count.plots import short, to_scale
from sftlab.exercises.ex07_lora_parameter_count.spectra import energy_kept
from sftlab.exercises.record import runs

NAME, OTHERS = "low_rank", "low_rank_optimizers"


def test_counts_are_told_in_few_characters():
    assert [short(n) for n in (7, 65_536, 16_777_216, 70_553_706_496)] == [
        "7",
        "65.5K",
        "16.8M",
        "70.6B",
    ]


@pytest.mark.parametrize(
    ("d_in", "d_out", "r"),
    list(itertools.product((explorer.WIDTHS[0], explorer.WIDTHS[-1]), (192, 14336), (1, 4096))),
)
def test_the_explorer_draws_extreme_settings(d_in, d_out, r):
    figure = to_scale(d_in, d_out, r)
    figure.draw_without_rendering()
    plt.close(figure)
    assert f"{r * (d_in + d_out):,} parameters" in explorer.words(d_in, d_out, r)


def test_the_picture_says_how_many_times_fewer_or_more():
    for sizes, told in (((4096, 4096, 8), "256 times fewer"), ((192, 192, 96), "exactly as many"),
                        ((192, 192, 4096), "42.67 times as many")):  # fmt: skip
        figure = to_scale(*sizes)
        assert told in figure.get_suptitle()
        plt.close(figure)


def test_the_explorer_has_three_sliders(monkeypatch):
    shown = {}
    monkeypatch.setattr(
        explorer, "explorer", lambda controls, draw, alt, continuous: shown.update(controls)
    )
    explorer.count_parameters()
    assert {name: control.value for name, control in shown.items()} == {
        "d_in": 4096,
        "d_out": 4096,
        "r": 64,
    }


# --- cutting an update -------------------------------------------------------------------------


def test_the_parts_of_an_update_add_up_and_so_do_their_energies():
    generator = torch.Generator().manual_seed(0)
    deltas = {name: torch.randn(9, 6, generator=generator) for name in "ab"}
    top = {name: B @ A for name, (A, B) in ((n, nearest_low_rank(d, 2)) for n, d in deltas.items())}
    rest = {name: deltas[name] - part for name, part in top.items()}
    assert energy(top, deltas) + energy(rest, deltas) == pytest.approx(1)
    assert energy(top, deltas) > 2 / 6 > energy({n: d * 0 for n, d in deltas.items()}, deltas)
    assert all(torch.linalg.matrix_rank(part) == 2 for part in top.values())


def test_a_change_is_taken_back_to_the_bit(tiny_model):
    weights = linear_weights(tiny_model)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    deltas = {name: torch.ones_like(weight) for name, weight in weights.items()}
    with pytest.raises(KeyboardInterrupt), changed(tiny_model, deltas):
        assert all(not weights[n].equal(before[n]) for n in weights)
        raise KeyboardInterrupt
    assert all(weights[n].equal(before[n]) for n in weights)


def test_no_pair_has_the_subject_of_a_question():
    validation, test = ({(q["kind"], q["subject"]) for q in some} for some in questions())
    assert not validation & test
    for seed in range(SEEDS):
        trained = {(p["kind"], p["subject"]) for p in pairs(PAIRS, seed, skills=())}
        assert not trained & (validation | test)


# --- words that follow the numbers -------------------------------------------------------------

SHARES = {"small": 0.018, "large": 0.0015}


def test_the_claims_turn_round_with_their_numbers():
    def turned(recorded):
        """The update cut to rank 2 has less energy than noise, a lower loss, and beats LoRA."""
        new = json.loads(json.dumps(recorded))
        for one in new:
            for r in RANKS if one["method"] == FULL else ():
                one["random"][str(r)] = 0.9
                one["top"][str(r)]["nll"] = one["test"]["nll"] / (2 + one["seed"] / 9)
        return new

    before, after = (
        plots.claims(found, runs(OTHERS), SHARES, True)["claim"]
        for found in (runs(NAME), turned(runs(NAME)))
    )
    assert "is larger" in before[0] and "is smaller" in after[0]
    assert before[1].count("higher") == 2 and after[1].count("lower") == 2
    assert "is higher" in after[2] and before[2] != after[2]
    assert "in small than in large" in before[3]
    other = plots.claims(runs(NAME), runs(OTHERS), {"a": 0.1, "b": 0.2}, True)
    assert "in b than in a" in other["claim"][3]


def made(energy, seeds: int = 3) -> list[dict]:
    """Runs with SGD and AdamW, whose energy in two directions is given by optimizer and step."""
    kinds = [(SGD, rate, (1, STEPS), {}) for rate in (0.1, 0.3)]
    kinds += [(o, 0.1, (1, STEPS, LONG), {"steps": LONG}) for o in (SGD, ADAMW)]
    return [
        {
            "optimizer": optimizer, "learning_rate": rate, "seed": seed, **more, "0": {"test": 3.0},
            **{
                str(s): {"validation": rate, "test": 1.0, "energy": {"2": energy(optimizer, s) + seed / 999}}
                for s in steps
            },
        }
        for optimizer, rate, steps, more in kinds for seed in range(seeds)
    ]  # fmt: skip


def test_what_adamw_makes_of_a_gradient_follows_the_numbers():
    def told(first_of_sgd: float, first: float, last: float) -> str:
        share = {(SGD, 1): first_of_sgd, (ADAMW, 1): first, (ADAMW, STEPS): last}
        return plots.why_kept(runs(NAME), made(lambda *key: share.get(key, 0.5)))

    assert "80% of its energy in two directions, AdamW's first step 40%" in told(0.8, 0.4, 0.5)
    assert "AdamW spreads" in told(0.8, 0.4, 0.5) and "Later steps gather it." in told(
        0.8, 0.4, 0.5
    )
    assert "AdamW gathers" in told(0.3, 0.4, 0.2) and "Later steps spread it." in told(
        0.3, 0.4, 0.2
    )


def test_sgd_has_the_learning_rate_of_its_lowest_validation_loss_and_each_seed_once():
    found = made(lambda optimizer, step: 0.5)
    for optimizer, steps in ((SGD, 1), (SGD, STEPS), (SGD, LONG), (ADAMW, LONG)):
        assert [one.get("validation") for one in plots.after(found, optimizer, steps)] == [0.1] * 3
    assert len(runs(OTHERS)) == len(settings_of_others())


def test_the_share_of_the_nats_is_0_for_the_base_and_1_for_the_whole_update():
    recorded = json.loads(json.dumps(runs(NAME)))
    for one in recorded:
        if one["method"] == FULL:
            one["rest"]["2"]["nll"] = 3.0 if one["seed"] % 2 else one["test"]["nll"]
    assert plots.gained(recorded, "rest", 2, 3.0)[0] == pytest.approx(3 / SEEDS)
    assert plots.by_rate(recorded, "short").count("×") == len(RATES[FULL])


def test_the_explanation_of_a_cut_names_both_controls_and_concludes_only_if_they_differ():
    told = plots.why_cut(runs(NAME))
    assert told.count("×") == 2 and "which directions are kept" in told
    same = json.loads(json.dumps(runs(NAME)))
    for one in same:
        if one["method"] == FULL:
            one["rest"] = one["short"]
    assert plots.why_cut(same) == plots.WHY["b"]


def test_with_the_sets_exchanged_the_learning_rates_are_chosen_on_the_test_questions():
    rates = RATES[LORA]
    made = [
        {
            "method": LORA, "r": 2, "learning_rate": rate, "seed": seed,
            "validation": 1.0 + k, "test": {"nll": 9.0 - k},
        }
        for seed in range(2) for k, rate in enumerate(rates)
    ]  # fmt: skip
    assert plots.losses(made, LORA, 2) == [9.0] * 2
    assert plots.losses(made, LORA, 2, "validation") == [float(len(rates))] * 2


def test_the_energies_of_matrices_of_two_shapes_are_added_before_the_division():
    small, large = torch.diag(torch.tensor([1.0, 1.0])), torch.diag(torch.tensor([3.0, 1, 0]))
    assert energy_kept([small, large], [1, 2, 5]) == pytest.approx({1: 10 / 12, 2: 1, 5: 1})


def test_ranks_at_the_end_of_the_grid_are_named():
    middle = [
        {**one, "validation": abs(one["learning_rate"] - RATES[LORA][1])} for one in runs(NAME)
    ]
    assert plots.at_the_edge(middle) == "none"
    lowest = [{**one, "validation": one["learning_rate"]} for one in runs(NAME)]
    assert plots.at_the_edge(lowest) == ", ".join(map(str, RANKS))


def test_each_arm_has_the_learning_rate_of_its_lowest_validation_loss():
    for r in RANKS:
        found = plots.best(runs(NAME), LORA, r=r)
        assert {run["seed"] for run in found} == set(range(SEEDS)) and len(found) == SEEDS
        means = {
            rate: sum(run["validation"] for run in runs(NAME, method=LORA, r=r, learning_rate=rate))
            for rate in RATES[LORA]
        }
        assert found[0]["learning_rate"] == min(means, key=means.get)


# --- the recorded file -------------------------------------------------------------------------


@pytest.mark.base
@pytest.mark.slow
def test_a_training_gives_what_was_recorded():
    (recorded,) = runs(NAME, method=LORA, learning_rate=3e-3, seed=0, r=2)
    found = run(LORA, 3e-3, 0, 2)
    assert found["test"]["nll"] == pytest.approx(recorded["test"]["nll"], rel=0.15)
