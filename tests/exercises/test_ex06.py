"""Notebook 06: bytes, the arms of the trade-off, words that follow the numbers, and recorded runs."""

from __future__ import annotations

import copy
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sftlab.almanac.pairs import pairs
from sftlab.exercises import sizes, trade_off, trade_off_real
from sftlab.exercises.ex06_why_peft import explorer, plots
from sftlab.exercises.ex06_why_peft.reference import training_bytes, value_at
from sftlab.exercises.record import runs
from sftlab.exercises.trade_off import (
    CHECKPOINTS,
    ENTRIES,
    FULL,
    LINEAR,
    LORA,
    PAIRS,
    RATES,
    SEEDS,
    base_documents,
    batches,
    follow,
    moved,
    prepare,
    questions,
    run,
)
from sftlab.lora import merge_lora
from sftlab.loss import IGNORE_INDEX
from sftlab.memory.count import measured_optimizer_state_bytes
from sftlab.memory.shapes import linear_layers

NAMES = ("trade_off", "trade_off_smollm2")


# --- bytes, and the explorer -----------------------------------------------------------------


@pytest.mark.parametrize("method", RATES)
def test_the_optimizer_holds_what_is_computed(tiny_model, tokenizer, method):
    model = prepare(tiny_model, method, 0)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    follow_one(model, tokenizer, optimizer)
    computed = training_bytes(model)
    assert measured_optimizer_state_bytes(optimizer) == computed["optimizer"]
    assert sum(p.grad.nbytes for p in trained) == computed["gradients"]


def follow_one(model, tokenizer, optimizer) -> None:
    (batch,) = batches(tokenizer, 0, 1)
    model(**batch).loss.backward()
    optimizer.step()


def test_a_file_is_its_header_and_its_tensors(tmp_path):
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16)}, tmp_path / "x")
    assert plots.tensor_bytes(tmp_path / "x") == 3 * 5 * 4 + 7 * 2


@pytest.mark.parametrize(
    ("value", "told"),
    [(0, "0 bytes"), (999, "999 bytes"), (12_345, "12.3 kB"), (999_600, "1 MB"), (16.1e9, "16.1 GB"), (141e12, "141 TB"), (5e15, "5,000 TB")],
)  # fmt: skip
def test_bytes_are_told_with_three_digits(value, told):
    assert sizes.size(value) == told


def test_an_adapter_of_a_real_model_is_a_small_part_of_it():
    for name, (base, adapter) in explorer.sizes().items():
        assert 0.0005 < adapter / base < 0.03, name


@pytest.mark.parametrize("tasks", [1, 1000])
def test_the_explorer_draws_extreme_settings(tasks):
    for base, adapter in ((2.7e8, 4.9e6), (1.4e11, 2.1e8)):
        figure = plots.storage("a model", tasks, base, adapter, "words")
        assert ("no saving" in figure.get_suptitle()) == (tasks == 1)
        plt.close(figure)


# --- arms and data ---------------------------------------------------------------------------


def test_random_entries_are_as_many_as_lora_s_and_only_they_move(tiny_model, tokenizer):
    base = copy.deepcopy(tiny_model)
    model = prepare(tiny_model, ENTRIES, 0)
    added = sum(p.numel() for p in prepare(copy.deepcopy(base), LORA, 0).parameters() if p.requires_grad)  # fmt: skip
    follow(model, batches(tokenizer, 0, 3), 1e-3, dict, ())
    changed = sum(
        (a != b).sum().item() for a, b in zip(model.parameters(), base.parameters(), strict=True)
    )
    assert 0.9 * added < changed <= 1.1 * added


def test_linear_layers_leave_embeddings_and_norms_as_they_are(tiny_model, tokenizer):
    before = copy.deepcopy(tiny_model.state_dict())
    model = prepare(tiny_model, LINEAR, 0)
    names = {f"{name}.weight" for name in linear_layers(model)}
    follow(model, batches(tokenizer, 0, 2), 1e-3, dict, ())
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]) == (name not in names), name


def test_how_far_the_weights_moved_is_the_same_before_and_after_merging(tiny_model):
    base = copy.deepcopy(tiny_model)
    assert moved(tiny_model, base) == 0
    prepare(tiny_model, LORA, 1)
    assert moved(tiny_model, base) == 0
    for name, p in tiny_model.named_parameters():
        if name.endswith(".B"):
            p.data.normal_()
    found = moved(tiny_model, base)
    assert found > 0.1
    assert moved(merge_lora(tiny_model), base) == pytest.approx(found, rel=1e-4)


def test_measurements_come_before_training_and_at_the_checkpoints(tiny_model, tokenizer):
    steps = iter(range(9))
    found = follow(tiny_model, batches(tokenizer, 0, 4), 1e-3, lambda: {"n": next(steps)}, (2, 4))
    assert found == {"n": [0, 1, 2]}


def test_questions_and_documents_that_choose_are_not_those_that_are_reported(tokenizer):
    validation, test = ({(q["kind"], q["subject"]) for q in some} for some in questions())
    assert not validation & test
    for seed in range(SEEDS):
        trained = {(p["kind"], p["subject"]) for p in pairs(PAIRS, seed, skills=())}
        assert not trained & (validation | test)
    first, second = ({tuple(x.input_ids) for x in some} for some in base_documents(tokenizer))
    assert not first & second
    for ids in first:
        assert ids[0] == ids[-1] == tokenizer.bos_token_id
    assert all(x.labels[0] == IGNORE_INDEX for x in base_documents(tokenizer)[0])


# --- words that follow the numbers -----------------------------------------------------------


def made(lost: dict[str, float], moves: dict[str, float]) -> list[dict]:
    """Runs of two learning rates, of which the second forgets twice as much on the same way."""
    steps = [2.9, 1.0, 0.3, 0.09, 0.04]
    return [
        {
            "method": method, "learning_rate": rate, "seed": seed, "validation": steps, "test": steps,
            "exact": [0, 0.2, 0.5, 0.9, 1],
            "validation_documents": [0.6 + rate * lost[method] * k for k in range(5)],
            "test_documents": [0.6 + rate * lost[method] * k * (1 + seed / 100) for k in range(5)],
            "moved": [0.01 * k * moves[method] * (1 + seed / 100) for k in range(5)],
        }
        for method in lost for rate in (1, 2) for seed in range(3)
    ]  # fmt: skip


BYTES = {FULL: dict.fromkeys(("weights", "gradients", "optimizer", "file"), 1000)}
BYTES[LORA] = BYTES[FULL] | {"gradients": 50, "optimizer": 100, "file": 50}


def claims(lost: dict[str, float], moves: float = 1.0):
    found = made(lost, {FULL: 1, LORA: moves, LINEAR: 1, ENTRIES: 1})
    scale = [{**r, **{n: [8 * x for x in r[n]] for n in ("validation", "test")}} for r in found]
    return plots.claims(found, scale, BYTES, (0.3, (0.2, 0.4)), {1: 0.7, 16: 0.3})


def test_the_claims_turn_round_with_their_numbers():
    other = {LINEAR: 0.1, ENTRIES: 0.1}
    more, less, same = (
        claims({FULL: 0.1, LORA: lora} | other) for lora in (0.3, 0.05, 0.1)
    )  # fmt: skip
    for row in (1, 4):
        assert "forgets more" in more["claim"][row]
        assert "forgets less" in less["claim"][row]
        assert "not settled" in same["claim"][row]
    assert more["where it stops holding"][1].startswith("by target: more at")
    assert "shrink by 92%, a file by 95%" in more["claim"][0]
    assert "LoRA is longer" in claims({FULL: 0.1, LORA: 0.3} | other, 2.0)["claim"][3]
    assert "LoRA is shorter" in claims({FULL: 0.1, LORA: 0.3} | other, 0.5)["claim"][3]


def test_at_equal_exact_shares_the_words_follow_and_may_differ_from_those_at_equal_loss():
    lost = {FULL: 0.1, LORA: 0.3, LINEAR: 0.1, ENTRIES: 0.1}
    assert "exact answers: forgets more" in claims(lost)["claim"][1]
    assert "exact answers: forgets less" in claims(lost | {LORA: 0.05})["claim"][1]
    runs = made(lost, dict.fromkeys(lost, 1.0))
    late = [  # LoRA answers all exactly before anything is forgotten
        run | {"exact": [0, 1, 1, 1, 1]} if run["method"] == LORA else run for run in runs
    ]
    assert "more" in plots.at_shares(runs)["all four say"].iloc[0]
    assert "less" in plots.at_shares(late)["all four say"].iloc[0]
    assert plots.agreed(plots.ways(late, 0.1), "more", "less") == "more"
    assert list(plots.at_shares(runs).index) == ["75.0%", "85.0%", "92.5%"]


def test_no_point_and_no_seed_is_left_out_of_a_figure():
    recorded = runs("trade_off")
    below = [{**r, "test_documents": [0.6, *([0.6 - 1e-5] * len(CHECKPOINTS))]} for r in recorded]
    for some in (recorded, below):
        points = plots.cloud(some)
        assert [len(line.get_xdata()) for line in points.axes[0].lines] == [
            len(RATES[method]) * len(CHECKPOINTS) for method in (FULL, LORA)
        ]
        low, high = points.axes[0].get_ylim()
        assert all(low < y < high for line in points.axes[0].lines for y in line.get_ydata())
        plt.close(points)
    lines = plots.trade_off(below)
    assert all(max(line.get_ydata()) < 0 for line in lines.axes[0].lines[:2])
    plt.close(lines)
    by_rate = [runs("trade_off", method=LORA, learning_rate=rate) for rate in RATES[LORA]]
    lost = np.array([np.mean([r["test_documents"] for r in some], axis=0) for some in by_rate])
    rises = lost - lost[:, :1]
    assert f"rise {rises[:, 1:].min():.5f} to" in plots.cloud(recorded).alt.split("LoRA")[1]
    plt.close("all")


def test_a_learning_rate_at_the_end_of_its_grid_is_named():
    assert plots.at_end(runs("trade_off"), ENTRIES, plots.MAIN).endswith("an end of its grid")
    row = plots.claims(
        runs("trade_off"), runs("trade_off_smollm2"), BYTES, (0.3, (0.2, 0.4)), {1: 0.7, 16: 0.3}
    )
    assert row["where it stops holding"][2].endswith(
        plots.at_end(runs("trade_off"), ENTRIES, plots.MAIN)
    )


def test_what_cannot_be_told_apart_is_shaded():
    same = made({FULL: 0.1, LORA: 0.1}, {FULL: 1, LORA: 1})
    assert plots.unsettled(same) == [(min(plots.TARGETS), max(plots.TARGETS))]
    assert plots.unsettled(made({FULL: 0.1, LORA: 0.3}, {FULL: 1, LORA: 1})) == []
    assert plots.shaded([]) == "" and "0.06 to 1 " in plots.shaded(plots.unsettled(same))


def test_an_interval_above_zero_that_holds_the_border_is_told():
    assert "above 0, but reaches below 0.002" in plots.why_lost((0.01, (0.001, 0.02)))
    assert "below 0, but reaches above" in plots.why_lost((-0.01, (-0.02, -0.001)))
    for told in ((-0.001, 0.02), (0.003, 0.02)):
        assert plots.why_lost((0.01, told)) == plots.WHY["b"]


def test_a_direction_is_named_only_if_both_sets_of_documents_agree():
    runs = made({FULL: 0.1, LORA: 0.3}, {FULL: 1, LORA: 1})
    assert plots.said(plots.both(runs, 0.1)).endswith(", more")
    fewer = [
        run | {"validation_documents": [0.6] * 5} if run["method"] == LORA else run for run in runs
    ]
    assert plots.said(plots.both(fewer, 0.1)).endswith(", not settled here")
    assert "more" not in plots.region(fewer)


def test_the_range_covers_both_sets_of_documents_and_both_interpolations():
    runs = made({FULL: 0.1, LORA: 0.3}, {FULL: 1, LORA: 1})
    four = plots.ways(runs, 0.1)
    value, (low, high) = plots.widest(four)
    assert len(four) == 4 and value == four[0][0]
    assert low == min(e[1][0] for e in four) and high == max(e[1][1] for e in four)
    told = plots.why_moved(runs + made({ENTRIES: 0.1}, {ENTRIES: 3}))
    assert "×3.00" in told


def test_arms_are_compared_at_equal_learning_rates():
    lost = {FULL: 0.1, LORA: 0.1, LINEAR: 0.05, ENTRIES: 0.1}
    table = plots.at_equal_rates(made(lost, dict.fromkeys(lost, 1.0)))
    assert list(table.index) == ["1", "2"]
    assert all(text.endswith("less") for text in table["forgotten, minus full"])
    assert set(table["‖ΔW‖, ÷ full's"]) == {"×1.00 (1.00 to 1.00)"}


def test_interpolation_in_logarithms_gives_a_smaller_rise():
    (run, *_) = made({FULL: 0.1}, {FULL: 1})
    assert plots.risen(run, 0.2, plots.SETS[0], geometric=True) < plots.risen(
        run, 0.2, plots.SETS[0]
    )


def test_the_excess_at_the_end_of_other_runs_turns_round():
    runs = made({FULL: 0.1, LORA: 0.3}, {FULL: 1, LORA: 1})
    ends = [run for run in runs if run["method"] == LORA and run["learning_rate"] == 1]
    assert plots.excess(runs, ends)[0] == pytest.approx(0.8 * 1.01)
    assert plots.excess(runs, ends, FULL)[0] == 0
    less = [
        run
        for run in made({FULL: 0.1, LORA: 0.05}, {FULL: 1, LORA: 1})
        if run["learning_rate"] == 1
    ]
    assert plots.excess(less, [run for run in less if run["method"] == LORA])[0] < 0


def test_the_learning_rate_is_chosen_on_validation_and_reported_elsewhere():
    lost = {FULL: 0.1, LORA: 0.1}
    found = made(lost, lost)
    assert {run["learning_rate"] for run in plots.best(found, FULL, 0.1)} == {1}
    turned = [{**r, "validation_documents": [-x for x in r["validation_documents"]]} for r in found]
    assert {run["learning_rate"] for run in plots.best(turned, FULL, 0.1)} == {2}
    tested = [{**r, "test_documents": [-x for x in r["test_documents"]]} for r in found]
    assert {run["learning_rate"] for run in plots.best(tested, FULL, 0.1)} == {1}


def test_a_target_that_no_rate_reaches_is_not_compared():
    lost = {FULL: 0.1, LORA: 0.1}
    assert plots.apart(made(lost, lost), 0.01) is None
    assert plots.nats(None) == plots.said([]) == "not reached"
    assert "0.01" not in plots.by_target(made(lost, lost), (0.1, 0.01)).index


def test_a_measurement_at_a_target_lies_between_its_checkpoints():
    assert value_at([math.e, 1.0], [3.0, 5.0], math.e**0.5) == pytest.approx(4)
    assert value_at([2, 1], [3, 5], 1) == 5
    assert value_at([2, 1], [3, 5], 0.5) is None


# --- the recorded runs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module"), list(zip(NAMES, (trade_off, trade_off_real), strict=True))
)
def test_no_run_is_recorded_that_no_setting_asks_for(name, module):
    found = runs(name)
    assert len(found) == len(module.settings())
    for one in found:
        assert {len(v) for v in one.values() if isinstance(v, list)} == {len(module.CHECKPOINTS) + 1}  # fmt: skip


@pytest.mark.parametrize("method", RATES)
def test_the_best_learning_rate_at_the_main_target_is_not_the_largest(method):
    (rate,) = {run["learning_rate"] for run in plots.best(runs("trade_off"), method, plots.MAIN)}
    assert rate < max(RATES[method])


@pytest.mark.base
@pytest.mark.thorough
@pytest.mark.parametrize("method", (FULL, ENTRIES))
def test_a_run_gives_what_was_recorded(method):
    """Rounding differs between processors and grows over the steps."""
    rate = RATES[method][2]
    (recorded,) = runs("trade_off", method=method, learning_rate=rate, seed=0)
    found = run(method, rate, 0)
    assert len(found["test"]) == len(CHECKPOINTS) + 1
    for name in ("test", "test_documents", "moved"):
        assert found[name] == pytest.approx(recorded[name], rel=0.25, abs=1e-6)
