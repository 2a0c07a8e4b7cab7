"""Notebook 11: its codes at equal bits, its figures and planner, and words that follow the numbers."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from sftlab.exercises.ex11_qlora_memory import explorer as explorers
from sftlab.exercises.ex11_qlora_memory.experiment import (
    BITS,
    CODES,
    EVEN,
    LARGEST_WAY,
    LLOYD,
    NF4,
    OFFSET,
    RANDOM_WAY,
    SPREAD,
    block_size,
    fp4_of_bitsandbytes,
    in_blocks,
    lloyd_max,
    moved,
    restored,
    run,
)
from sftlab.exercises.ex11_qlora_memory.plots import (
    CARDS,
    LENGTHS,
    PUBLISHED,
    against_cards,
    claims,
    code_values,
    error_over_bits,
    gaps,
    in_percent,
    losses,
    parts_of,
    ratios_table,
    same_gap,
    why_small,
)
from sftlab.exercises.record import runs
from sftlab.memory.plan import Run, plan
from sftlab.memory.shapes import linear_layers
from sftlab.models import load

SMALL = Run(batch=1, length=8, trained_per_row=4, r=2)


def error(blocks, code):
    return ((restored(blocks, code) - blocks).norm() / blocks.norm()).item()


@pytest.mark.parametrize("bits", BITS)
def test_every_code_takes_as_many_bits(bits):
    for code in CODES:
        stored = 20 if code == OFFSET else 16
        assert 4 + stored / block_size(code, bits) == bits


@pytest.mark.parametrize("bits", BITS)
def test_no_code_with_a_scale_alone_errs_less_than_lloyd_and_max_on_normal_numbers(bits):
    size = block_size(NF4, bits)
    blocks = torch.randn(2000, size)  # other numbers than those the values were found on
    least = error(blocks, LLOYD)
    assert all(least < error(blocks, code) for code in CODES if code not in (LLOYD, OFFSET))
    assert torch.equal(lloyd_max(size), lloyd_max(size).sort().values)


def test_blocks_of_a_weight_are_completed_by_zeros():
    blocks = in_blocks(torch.ones(3, 5), 4)
    assert blocks.shape == (4, 4) and blocks.sum() == 15 and blocks[-1, -1] == 0


@pytest.mark.parametrize("arm", [SPREAD, RANDOM_WAY, LARGEST_WAY])
def test_a_control_has_the_size_of_nf4s_error(arm):
    weight = torch.randn(64, 48)
    sizes = [(moved(weight, a, 4.25, draw=1) - weight).norm().item() for a in (NF4, arm)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-4)


def test_the_largest_direction_changes_by_over_a_third():
    """As the text says: NF4's error, divided by the largest singular value, in the mean of the layers."""
    model, _ = load("almanac")
    shares = []
    for name in linear_layers(model):
        weight = model.get_submodule(name).weight.detach()
        size = (moved(weight, NF4, 4.25) - weight).norm()
        shares.append((size / torch.linalg.matrix_norm(weight, 2)).item())
    assert 1 / 3 < sum(shares) / len(shares) < 1 / 2


def test_a_draw_cuts_other_blocks_and_puts_the_columns_back():
    weight = torch.randn(20, 64)  # two blocks in a row
    found = [moved(weight, NF4, 4.5, draw=k) for k in (0, 1, 1)]
    assert torch.equal(found[1], found[2]) and not torch.equal(found[0], found[1])
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(moved(weight[:, order], NF4, 4.5), found[1][:, order])


def test_the_library_s_fp4_is_that_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    theirs = functional.get_4bit_type("fp4", device="cpu")
    assert torch.allclose(theirs.sort().values, fp4_of_bitsandbytes())


# --- words and figures -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    planned = {key: [0.9 * size for size in sizes] for key, sizes in PUBLISHED.items()}
    normal = {code: dict.fromkeys(BITS, 0.1) for code in CODES}
    in_64 = dict.fromkeys(CODES, 0.09)
    recorded, real = deepcopy(runs("four_bit_codes")), runs("four_bit_codes_smollm2")
    return recorded, real, normal, planned, in_64, dict.fromkeys(BITS, 1.2)


def exchanged(recorded, one, other):
    """The recorded runs with the results of two arms exchanged."""
    names = {one: other, other: one}
    return [{**r, "arm": names.get(r["arm"], r["arm"])} for r in recorded]


def test_the_claims_follow_the_numbers(found):
    recorded, *rest = found
    said = claims(recorded, *rest)["claim"]
    flipped = claims(exchanged(recorded, NF4, EVEN), *rest)["claim"]
    assert "16 even values the error is larger than with NF4" in said[0]
    assert "16 even values the error is smaller than with NF4" in flipped[0]
    assert "INT4's error is larger" in said[1]
    assert "INT4's error is smaller" in claims(exchanged(recorded, NF4, OFFSET), *rest)["claim"][1]
    lower = [{**r, "loss": [-loss for loss in r.get("loss", [])]} for r in recorded]
    assert (
        "INT4, −7 to 7, all layers together: ×1.20" in claims(*found)["where it stops holding"][0]
    )
    assert "is higher" in said[2] and "is lower" in claims(lower, *rest)["claim"][2]


def test_why_the_loss_rises_little_follows_the_controls(found):
    recorded = found[0]
    said = why_small(recorded)
    assert "same size: noise +0.07 points" in said
    assert said.count("not settled here") == 2 and said.count("NF4 costs less") == 1
    assert "NF4 costs more" in why_small(exchanged(recorded, NF4, LARGEST_WAY))
    assert in_percent((0.5, (0.25, 1.0))) == (50, (25, 100))


def test_the_deviation_is_that_of_the_plan(found):
    assert gaps(found[3]).shape == (len(PUBLISHED), len(LENGTHS))
    assert gaps(found[3]).loc["qwen-7b, 16 bits", "256 tokens"] == "18.1, 20.1 (+11%)"
    planned = {key: [2 * size for size in sizes] for key, sizes in PUBLISHED.items()}
    planned["qwen-7b", "nf4"] = [PUBLISHED["qwen-7b", "nf4"][0] / 3, *planned["qwen-7b", "nf4"][1:]]
    planned["qwen-14b", "nf4"] = [*planned["qwen-14b", "nf4"][:3], 279.0]
    told = claims(*found[:3], planned, *found[4:])["measured"][3]
    assert told.endswith("-90% (qwen-14b, 8,192 tokens) to +200% (qwen-7b, 256 tokens)")


def test_whether_the_gap_is_the_same_follows_the_numbers(found):
    assert same_gap(found[3]).startswith("No: in 16 bits the gap goes from +0.7 to +5.5 GB, in 4")
    shifted = {key: [size - 2 for size in sizes] for key, sizes in PUBLISHED.items()}
    assert same_gap(shifted).startswith("Yes: in 16 bits the gap goes from +2.0 to +2.0 GB")


def test_figures_and_tables_are_drawn_without_a_complaint(found, capfd):
    recorded, real, normal, *_ = found
    panels = {"normal": normal, "base": normal}
    for figure in (
        code_values({"NF4": [-1, 0, 1], "INT4": [-1, 1]}),
        error_over_bits(panels),
        losses(recorded),
        against_cards(plan(SMALL), "cards", "words"),
    ):
        figure.draw_without_rendering()
        plt.close(figure)
    assert len(ratios_table(recorded, real)) == 2 * (len(CODES) - 1)
    assert capfd.readouterr().err == ""


# --- planner ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["fp32", "bf16", "nf4"])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_parts_of_a_bar_add_up_to_the_peak(weights, recompute):
    planned = plan(replace(SMALL, weights=weights, recompute=recompute))
    parts = parts_of(planned)
    assert sum(parts.values()) == planned.peak
    assert min(parts.values()) >= 0


def test_the_smallest_card_that_holds_it():
    assert [explorers.smallest(int(gb * 1e9)) for gb in (1, 16, 16.1, 80)] == [
        f"the plan is below {card} GB" for card in (16, 16, 24, 80)
    ]
    assert str(CARDS[-1]) in explorers.smallest(int(80.1e9))


def test_the_planner_draws_its_extremes(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        explorers, "explorer", lambda controls, draw, alt: seen.update(draw=draw, alt=alt)
    )
    explorers.plan_memory()
    least = {"shape": "smollm2-135m", "weights": "nf4", "r": 1, "targets": "q and v",
             "batch": 1, "length": 128, "recompute": True}  # fmt: skip
    most = {"shape": "llama-3-70b", "weights": "fp32", "r": 256, "targets": "every linear layer",
            "batch": 16, "length": 8192, "recompute": False}  # fmt: skip
    for settings, words in ((least, "the plan is below 16 GB"), (most, "the plan is above 80 GB")):
        figure = seen["draw"](**settings)
        figure.draw_without_rendering()
        assert words in seen["alt"](**settings)
        assert words in figure.get_suptitle()
        plt.close(figure)


@pytest.mark.base
def test_a_recorded_run_is_measured_again():
    recorded = next(
        r for r in runs("four_bit_codes") if r["arm"] == LARGEST_WAY and r["bits"] == 4.25
    )
    again = run(LARGEST_WAY, 4.25, recorded["draw"])
    assert again["loss"] == pytest.approx(recorded["loss"], rel=0.05, abs=1e-3)
    assert again["error"] == pytest.approx(recorded["error"], rel=0.01)
