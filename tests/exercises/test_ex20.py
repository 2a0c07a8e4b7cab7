"""Notebook 20: rounding, the versions of a model, words that follow the numbers, and the recorded runs."""

from __future__ import annotations

import copy

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from sftlab.exercises.ex20_merge_lora import explorer as explorers
from sftlab.exercises.ex20_merge_lora import plots
from sftlab.exercises.ex20_merge_lora.experiment import (
    ARITHMETIC,
    BF16,
    BOTH,
    EMBEDDED,
    FOUR,
    HIGH,
    LOW,
    MERGED,
    RECIPES,
    RECORD,
    REFERENCE,
    ROUNDED,
    SIXTEEN,
    SMOL,
    answer_logits,
    batches,
    compare,
    divergence,
    examples,
    load_base,
    moved_to,
    questions,
    recipe,
    rounded,
    run,
    seconds_each,
    see,
    settings,
    versions,
)
from sftlab.exercises.record import runs
from sftlab.lora import LoRALinear, inject_lora, lora_layers, merge_lora
from sftlab.merging import relative_error, rounding_loss
from sftlab.models import cast
from sftlab.quantized_layers import dequantize_model_linears, quantize_model_linears

IDS = torch.arange(24).reshape(2, 12)


@pytest.fixture
def model(tiny_model):
    """A tiny Llama in bfloat16's numbers, with LoRA whose B is not zero; α ≠ r."""
    made = cast(cast(tiny_model, BF16), torch.float32)
    inject_lora(made, "all-linear", r=2, lora_alpha=6, seed=0)
    for layer in lora_layers(made).values():
        nn.init.normal_(layer.B, std=0.05)
    return made.eval()


@torch.inference_mode()
def logits(model):
    return model(IDS).logits.float()


# --- rounding --------------------------------------------------------------------------------


def test_relative_error_of_nothing_and_of_everything():
    wanted = torch.tensor([3.0, 4.0])
    assert relative_error(wanted, wanted) == 0
    assert relative_error(torch.zeros(2), wanted) == 1
    assert relative_error(torch.tensor([3.0, 4.5]), wanted) == pytest.approx(0.1)


def layer_of(update: float) -> LoRALinear:
    """W is 1 everywhere, the update the same number everywhere."""
    layer = LoRALinear(nn.Linear(4, 4, bias=False), r=1, alpha=2)
    layer.base.weight.data, layer.A.data = torch.ones(4, 4), torch.ones(1, 4)
    layer.B.data = torch.full((4, 1), update / 2)
    return layer


def test_an_update_below_half_a_step_of_bfloat16_is_lost_and_one_of_whole_steps_is_not():
    assert rounding_loss([layer_of(2**-9)], BF16) == (1.0, 1.0)
    assert rounding_loss([layer_of(2**-7)], BF16) == (0.0, 0.0)
    assert rounding_loss([layer_of(2**-9), layer_of(2**-7)], BF16)[0] == 0.5
    assert rounding_loss([layer_of(2**-9)], torch.float32) == (0.0, 0.0)


def test_half_a_step_is_a_512th_to_a_256th_of_a_number():
    for number in torch.linspace(1, 1.99, 50).bfloat16().float():
        step = (number.bfloat16().view(torch.int16) + 1).view(BF16).float() - number
        assert 1 / 512 <= step / 2 / number <= 1 / 256


# --- the versions of a model -----------------------------------------------------------------


def test_each_version_is_what_its_name_says(model):
    made = {name: make() for name, make in versions(model).items()}
    assert [bool(lora_layers(m)) for m in made.values()] == [False, True, False, False]
    assert [m.lm_head.weight.dtype for m in made.values()] == [torch.float32, BF16, torch.float32, BF16]  # fmt: skip
    assert all(layer.A.dtype == torch.float32 for layer in lora_layers(made[ARITHMETIC]).values())
    wanted = logits(model)
    away = {name: relative_error(logits(m), wanted) for name, m in made.items()}
    assert away[MERGED] < 1e-6 < min(away[ARITHMETIC], away[ROUNDED], away[BOTH])
    weights = made[BOTH].state_dict()
    for name, weight in made[ROUNDED].state_dict().items():
        assert torch.equal(weight, weights[name].float()), name
    assert torch.equal(logits(model), wanted), "the model itself stays"


def test_the_base_is_exact_in_bfloat16_so_only_a_merge_can_lose():
    for name, parameter in load_base(EMBEDDED)[0].named_parameters():
        assert torch.equal(parameter, parameter.bfloat16().float()), name


def test_what_is_compared(tokenizer):
    wanted = torch.randn(5, 9)
    assert divergence(wanted, wanted + 3) == pytest.approx(0, abs=1e-6)
    assert divergence(torch.tensor([[0.0, -99]]), torch.zeros(1, 2)) == pytest.approx(0.6931, abs=1e-3)  # fmt: skip
    asked = questions(EMBEDDED)[1][:2]
    texts = [question["answer"] for question in asked]
    ids = torch.zeros(5, dtype=torch.long)
    found = compare((wanted, ids, texts), (2 * wanted, ids, [texts[0], "Nothing."]), asked)
    assert (found["changed"], found["correct"], found["logits"]) == (0.5, 0.5, pytest.approx(1.0))


def test_logits_are_those_that_predict_the_answer(tiny_model, tokenizer):
    (row,) = examples(tokenizer, questions(EMBEDDED)[1][:1])
    found, ids = answer_logits(tiny_model, [row], tokenizer.pad_token_id)
    places = [place for place, token in enumerate(row.labels) if token != -100]
    assert ids.tolist() == [row.labels[place] for place in places]
    whole = tiny_model(torch.tensor([row.input_ids])).logits[0]
    assert torch.allclose(found, whole[[place - 1 for place in places]], atol=1e-5)


def test_no_question_is_asked_twice_and_none_is_trained():
    validation, test = ({q["prompt"] for q in some} for some in questions(EMBEDDED))
    assert not validation & test
    assert (len(validation), len(test)) == RECIPES[EMBEDDED].questions
    assert recipe("another model") == RECIPES[SMOL]


def test_batches_go_on_and_the_seed_decides_them(tokenizer):
    first = [next(batches(tokenizer, seed, 4))["input_ids"].tolist() for seed in (0, 0, 1)]
    assert first[0] == first[1] != first[2]


def test_the_models_take_turns():
    order = []

    class Watched(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, ids):
            order.append(self.name)

    found = seconds_each({"a": Watched("a"), "b": Watched("b")}, IDS, 3)
    assert order == ["a", "b"] * 4
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3}


def test_an_adapter_belongs_to_the_weights_that_it_was_trained_on():
    """Merged into what the 4 bits stand for it stays what it was; into other weights it does not."""
    original = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    trained_on = quantize_model_linears(copy.deepcopy(original))
    inject_lora(trained_on, "all-linear", r=8, lora_alpha=16, seed=1)
    for layer in lora_layers(trained_on).values():
        nn.init.normal_(layer.B, std=0.05)
    unpacked = dequantize_model_linears(quantize_model_linears(copy.deepcopy(original)))
    x = torch.randn(20, 64)
    with torch.no_grad():
        wanted = trained_on(x)
        own, other = (moved_to(base, trained_on)(x) for base in (unpacked, copy.deepcopy(original)))
    assert relative_error(own, wanted) < 1e-5
    assert relative_error(other, wanted) > 0.01


# --- words that follow the numbers -----------------------------------------------------------


def swapped(recorded, key: str, one: str, other: str):
    """The runs with two values of a setting exchanged."""
    names = {one: other, other: one}
    return [{**r, key: names.get(r[key], r[key])} if key in r else r for r in recorded]


def exchanged(recorded, one: str, other: str):
    """The runs with the results of two versions exchanged."""
    return [{**r, one: r[other], other: r[one]} if one in r and other in r else r for r in recorded]


FACTORS = {"right": {"logits": 0, "changed": 0}, "twice": {"logits": 0.3, "changed": 0.4}, "none": {"logits": 1, "changed": 1}}  # fmt: skip


def test_the_control_of_a_merge_is_the_wrong_factor_that_shows_least():
    recorded = runs(RECORD)
    assert "the least: twice, 40%" in plots.claims(recorded, FACTORS)["control"][0]
    other = FACTORS | {
        "twice": {"logits": 0.3, "changed": 1},
        "none": {"logits": 1, "changed": 0.7},
    }
    assert "the least: none, 70%" in plots.claims(recorded, other)["control"][0]


@pytest.mark.parametrize("moved", [0.001, 0.0023, 0.025, 0.08])
def test_the_share_by_size_is_that_of_normal_weights_and_updates(moved):
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(400_000, generator=generator).bfloat16()
    update = moved * torch.randn(400_000, generator=generator)
    share = ((W + update).bfloat16() == W).float().mean().item()
    assert plots.by_size(moved) == pytest.approx(share, abs=0.003)


def test_what_is_beyond_the_size_follows_the_runs():
    recorded = runs(RECORD)
    alike = [
        r | {"unchanged": 2 * plots.by_size(r["moved"])} if r["kind"] == "merge" else r
        for r in recorded
    ]
    assert "low ×2.00 (2.00 to 2.00), high ×2.00" in plots.sized(alike, EMBEDDED)
    for adapter in (LOW, HIGH):  # on the larger model the size alone tells the share
        assert plots.beyond_size(recorded, adapter, SMOL)[1][0] == pytest.approx(1, abs=0.02)
        assert plots.beyond_size(recorded, adapter)[1][1][0] > 1


def test_the_claims_turn_round_with_their_numbers():
    recorded = runs(RECORD)
    before = list(plots.claims(recorded, FACTORS)["claim"])
    damaged = exchanged(recorded, MERGED, "base")
    assert "some answers" in plots.claims(damaged, FACTORS)["claim"][0] != before[0]
    turned = swapped(recorded, "adapter", HIGH, LOW)
    words = {"more entries": "fewer entries", "fewer entries": "more entries"}
    (now,) = [w for word, w in words.items() if word in before[1]]
    assert now in plots.claims(turned, FACTORS)["claim"][1]
    other = plots.claims(exchanged(recorded, ARITHMETIC, ROUNDED), FACTORS)["claim"][2]
    assert other != before[2] or "not settled" in other
    slow = [{**r, "ratios of seconds": {n: r["ratios of seconds"][o] for n, o in (("adapter", "merged"), ("merged", "adapter"))}}
            if r["kind"] == "speed" else r for r in recorded]  # fmt: skip
    assert plots.claims(slow, FACTORS)["claim"][3] != before[3]
    other = plots.claims(exchanged(recorded, SIXTEEN, FOUR), FACTORS)["claim"][4]
    assert other != before[4] or "not settled" in other


def test_reasons_and_ratios_follow_too():
    recorded = runs(RECORD)
    ratio = plots.other_base(recorded, FOUR)[0]
    assert plots.other_base(exchanged(recorded, SIXTEEN, FOUR), FOUR)[0] == pytest.approx(1 / ratio)
    turned = swapped(recorded, "adapter", HIGH, LOW)
    assert plots.why_few(turned) != plots.why_few(recorded)
    assert plots.why_apart(swapped(recorded, "trained_on", SIXTEEN, FOUR)) != plots.why_apart(
        recorded
    )
    ratio = plots.further(recorded, LOW)[0]
    assert plots.further(exchanged(recorded, ARITHMETIC, ROUNDED), LOW)[0] == pytest.approx(1 / ratio)  # fmt: skip


def test_distances_are_of_the_versions_that_the_rows_name():
    recorded = runs(RECORD)
    table = plots.distance_table(recorded)
    turned = plots.distance_table(exchanged(recorded, MERGED, BOTH))
    for column in ("KL, low", "error of the logits, low"):
        rows = plots.LABELS[MERGED], plots.LABELS[BOTH]
        assert [table[column][row] for row in rows] == [turned[column][row] for row in rows[::-1]]
        assert table[column][rows[0]] != table[column][rows[1]]


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((0, 0, 0, 0, 0), 0, 0.036), ((100,) * 5, 0.964, 1), ((1, 1, 1, 1, 0), 0, 0.0545), ((0, 0, 40, 0, 0), 0, 0.302)],
)  # fmt: skip
def test_an_interval_of_changed_answers_is_over_seeds_and_over_the_questions(counts, low, high):
    some = [{"kind": "merge", "model": EMBEDDED, "adapter": LOW, "seed": seed, BOTH: {"changed": n / 100}}
            for seed, n in enumerate(counts)]  # fmt: skip
    value, (found_low, found_high) = plots.changed(some, LOW, BOTH)
    assert value == pytest.approx(sum(counts) / 500)
    assert (found_low, found_high) == pytest.approx((low, high), abs=1e-3)


def test_tables_and_figures_hold_every_arm():
    recorded = runs(RECORD)
    for name in RECIPES:
        assert list(plots.adapters_table(recorded, name).index) == list(RECIPES[name].rates)
        assert plots.bases_table(recorded, name).shape == ((2, 5) if name == EMBEDDED else (1, 5))
        assert plots.distance_table(recorded, name).shape == (5, 2 * len(RECIPES[name].rates))
        figure = plots.changed_answers(recorded, name)
        assert plots.LABELS[ROUNDED] in figure.alt and LOW in figure.alt
        rows = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 1]
        assert all(len(set(zip(*line.get_data(), strict=True))) == len(line.get_xdata()) for line in rows)  # fmt: skip
        assert figure.axes[0].get_xlim()[0] == 0
    assert len(plots.speed_table(recorded)) == 3
    figure = plots.size_and_rounding(recorded)
    assert [len(line.get_xdata()) for line in figure.axes[0].lines[:4]] == [5] * 2 + [3] * 2
    plt.close("all")


# --- the recorded runs -----------------------------------------------------------------------


def test_no_run_is_recorded_that_no_setting_asks_for():
    assert len(runs(RECORD)) == len(settings())


def test_every_adapter_stops_at_its_target_and_not_at_the_limit():
    for run_ in runs(RECORD, kind="merge"):
        assert run_[REFERENCE]["changed"] == 0 < run_["base"]["changed"]
        assert run_["steps"] < RECIPES[run_["model"]].most


@pytest.mark.thorough
@pytest.mark.base
def test_a_run_measured_again_gives_what_is_recorded():
    chosen = {"kind": "merge", "model": EMBEDDED, "adapter": HIGH, "seed": 0}
    (recorded,), again = runs(RECORD, **chosen), run(**chosen)
    assert again["unchanged"] == pytest.approx(recorded["unchanged"], abs=0.01)
    assert again[BOTH]["nll"] == pytest.approx(recorded[BOTH]["nll"], rel=0.02)


# --- the explorer ----------------------------------------------------------------------------


def test_the_explorer_answers_at_its_extremes(model, tokenizer, monkeypatch):
    shown = {}
    monkeypatch.setattr(explorers, "explorer", lambda c, d, w: shown.update(c, draw=d, words=w))
    before = logits(model)
    explorers.merge_strength(model, tokenizer, "Hello?")
    for power in (shown["power"].min, shown["power"].max):
        for stored in shown["stored"].options:
            assert "not merged" in shown["draw"](power, stored, "Hello?").text
    assert "B times 4" in shown["words"](2, "float16", "Hello?")
    assert torch.equal(logits(model), before)
    with pytest.raises(explorers.WorkbookError, match="type something"):
        shown["draw"](1, "float32", " ")


def test_a_stored_model_keeps_its_adapter_in_float32(model, tokenizer):
    half = rounded(model)
    assert {layer.B.dtype for layer in lora_layers(half).values()} == {torch.float32}
    assert merge_lora(half).lm_head.weight.dtype == BF16
    first, second = (see(model, tokenizer, questions(EMBEDDED)[1][:2], 3) for _ in range(2))
    assert torch.equal(first[0], second[0]) and first[2] == second[2]
