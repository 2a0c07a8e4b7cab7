"""Notebook 08: gradients of A and B, seven initializations, words, and a part of the recorded runs again."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from sftlab.almanac.pairs import pairs
from sftlab.data import collate
from sftlab.exercises.ex08_lora_zero_init import explorer, plots
from sftlab.exercises.ex08_lora_zero_init.experiment import (
    BATCH,
    BOTH_SMALL,
    INITS,
    PAIRS,
    RATE,
    SEEDS,
    SWEPT,
    batches,
    examples,
    initialize,
    logits_of,
    questions,
    run,
    settings,
)
from sftlab.exercises.ex08_lora_zero_init.gradients import lora_gradients
from sftlab.exercises.ex08_lora_zero_init.plots import LABELS
from sftlab.exercises.record import runs
from sftlab.lora import LoRALinear, inject_lora, lora_layers, lora_parameters
from sftlab.lora_statistics import gradient_norms, relative_update, updates, which_is_stuck
from sftlab.loss import model_loss

NAME = "lora_init"


def start(model, how: str, **options) -> None:
    """Add LoRA to a model as an arm begins."""
    inject_lora(model, "all-linear", r=8, lora_alpha=16, seed=0, **options)
    generator = torch.Generator().manual_seed(0)
    for layer in lora_layers(model).values():
        initialize(layer.A, layer.B, how, generator)


def held_out(tokenizer, count: int = 4) -> dict:
    return collate(examples(tokenizer, questions()[0][:count]), tokenizer.pad_token_id)


@pytest.mark.parametrize("how", INITS)
def test_each_gradient_passes_through_the_other_matrix(tiny_model, tokenizer, how):
    start(tiny_model, how)
    loss, count = model_loss(tiny_model, next(batches(tokenizer, 0, 1)))
    (loss / count).backward()
    norms = gradient_norms(tiny_model)
    both = how.startswith("both random")
    A_random, B_random = ("A" in how or both), ("B" in how or both)
    assert set(norms) == set(lora_layers(tiny_model))
    for of_A, of_B in norms.values():
        assert (of_A > 0, of_B > 0) == (B_random, A_random)
    assert which_is_stuck(norms) == (list(norms) if how == "both zero" else [])


@pytest.mark.parametrize("how", INITS)
def test_a_product_with_a_zero_matrix_leaves_every_logit_as_it_was(tiny_model, tokenizer, how):
    batch = held_out(tokenizer)
    before = logits_of(tiny_model, batch)
    start(tiny_model, how)
    assert torch.equal(logits_of(tiny_model, batch), before) == (not how.startswith("both random"))


def test_the_start_is_exact_in_16_bits_and_with_dropout_too(tiny_model, tokenizer):
    batch = held_out(tokenizer)
    model = tiny_model.to(torch.bfloat16).train()
    before = logits_of(model, batch)
    start(model, "A random", lora_dropout=0.5)
    assert torch.equal(logits_of(model, batch), before)


def test_the_formulas_are_autograd_s():
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(7, 5), r=3, alpha=4.2).double()
    nn.init.normal_(layer.B)
    x, grad = torch.randn(11, 7).double(), torch.randn(11, 5).double()
    layer(x.requires_grad_()).backward(grad)
    with torch.no_grad():
        mine = lora_gradients(x, grad, layer.base.weight, layer.A, layer.B, layer.scale)
    for found, tensor in zip(mine, (x, layer.A, layer.B), strict=True):
        assert torch.allclose(found, tensor.grad, rtol=1e-10)


def test_entries_of_one_size_have_one_bound_in_both_matrices():
    drawn = {}
    for how in SWEPT:
        A, B = torch.empty(8, 512), torch.empty(512, 8)
        initialize(A, B, how, torch.Generator().manual_seed(0))
        drawn[how] = max(A.abs().max().item(), B.abs().max().item())
    assert drawn["A random"] == pytest.approx(drawn["B random, small"], rel=0.01)
    assert drawn["A random, large"] == pytest.approx(drawn["B random"], rel=0.01)
    assert drawn["B random"] / drawn["A random"] == pytest.approx(8, rel=0.01)  # √(512/8)
    A, B = torch.empty(8, 512), torch.empty(512, 8)
    initialize(A, B, BOTH_SMALL, torch.Generator().manual_seed(0))
    for small in (A, B):
        assert small.abs().max().item() == pytest.approx(drawn["A random"], rel=0.01)


def test_a_layer_without_a_gradient_has_norm_zero(tiny_model):
    inject_lora(tiny_model, "q_proj", r=2, lora_alpha=4)
    assert set(gradient_norms(tiny_model).values()) == {(0.0, 0.0)}


def test_only_two_zeros_are_stuck():
    norms = {"a": (0.0, 1.0), "b": (0.0, 0.0), "c": (1e-12, 0.0), "d": (0.0, 0.0)}
    assert which_is_stuck(norms) == ["b", "d"]
    assert which_is_stuck({}) == []


def test_the_update_of_a_layer_is_scaled_by_its_own_rule():
    model = nn.Sequential(nn.Linear(6, 4, bias=False))
    inject_lora(model, "0", r=4, lora_alpha=6, rule="rslora")
    (layer,) = lora_layers(model).values()
    nn.init.ones_(layer.B)
    (delta,) = updates(model).values()
    assert torch.allclose(delta, 3.0 * layer.B @ layer.A)  # 6 / √4
    ratio = (delta.norm() / layer.base.weight.norm()).item()
    assert relative_update(model) == pytest.approx(ratio, rel=1e-5)


def test_batches_are_as_many_as_asked_for_and_the_seed_decides_them(tokenizer):
    def ids(seed):
        return [batch["input_ids"].tolist() for batch in batches(tokenizer, seed, 5)]

    assert [len(batch) for batch in ids(0)] == [BATCH] * 5
    assert ids(0) == ids(0) != ids(1)


def test_no_pair_has_the_subject_of_a_question():
    validation, test = ({(q["kind"], q["subject"]) for q in some} for some in questions())
    assert not validation & test
    for seed in range(SEEDS):
        trained = {(p["kind"], p["subject"]) for p in pairs(PAIRS, seed, skills=())}
        assert not trained & (validation | test)


def test_only_the_adapter_is_trained(tiny_model):
    start(tiny_model, "A random")
    trained = {id(p) for p in tiny_model.parameters() if p.requires_grad}
    assert trained == {id(p) for p in lora_parameters(tiny_model)}


# --- words that follow the numbers -----------------------------------------------------------


def swapped(recorded, one: str, other: str):
    """The runs with two arms exchanged."""
    names = {one: other, other: one}
    return [{**r, "how": names.get(r["how"], r["how"])} for r in recorded]


def test_the_claims_turn_round_with_their_numbers():
    recorded = runs(NAME)
    before = list(plots.claims(recorded)["claim"])
    assert "starts at the base" in before[0] and "never changes" in before[1]
    damaged = [{**r, "difference": 0.5} for r in recorded]
    moved = [{**r, "nll_end": r["nll_base"] - (r["how"] == "both zero")} for r in recorded]
    assert "away from" in plots.claims(damaged)["claim"][0]
    assert "never" not in plots.claims(moved)["claim"][1]
    for pair in (("B random", "B random, small"), ("A random", "B random, small")):
        first, second = (plots.rate_ratio(found, *pair) for found in (recorded, swapped(recorded, *pair)))  # fmt: skip
        assert second[0] == pytest.approx(1 / first[0])
        first, second = (plots.loss_ratio(found, *pair) for found in (recorded, swapped(recorded, *pair)))  # fmt: skip
        assert second[0] == pytest.approx(1 / first[0])
    turned = plots.claims(swapped(recorded, "B random", "B random, small"))["claim"][2]
    assert turned != before[2] or "not settled" in turned


def test_a_start_away_from_the_base_is_told_by_its_size_and_the_words_follow():
    limits = plots.claims(runs(NAME))["where it stops holding"][0]
    assert "large B" in limits and limits.count("×") == 3
    for times, word in ((9, "higher"), (1 / 9, "lower")):
        turned = [{**r, "nll_end": r["nll_end"] * (times if r["how"] == BOTH_SMALL else 1)} for r in runs(NAME)]  # fmt: skip
        told = plots.claims(turned)["where it stops holding"][0]
        assert told.split("small ")[1].split(";")[0].endswith(word) and told.endswith(word)


def test_a_direction_at_large_entries_needs_both_ways_of_tuning():
    assert plots.agreed([(1.2, (1.01, 1.4)), (1.3, (1.1, 1.5))], "up", "down") == "up"
    assert "not settled" in plots.agreed([(1.2, (1.01, 1.4)), (1.3, (0.9, 1.5))], "up", "down")
    for times, word in ((9, "higher"), (1 / 9, "lower")):
        turned = [{**r, "nll_end": r["nll_end"] * (times if r["how"] == "B random" else 1)} for r in runs(NAME)]  # fmt: skip
        row = plots.claims(turned).iloc[3]
        assert row["claim"].endswith(f"with large ones {word} with B")
        assert f", {word}; small" in row["where it stops holding"]
        assert plots.at_equal_rates(turned, "B random", "A random, large")[0] == pytest.approx(
            times * plots.at_equal_rates(runs(NAME), "B random", "A random, large")[0]
        )


def test_the_explanation_of_equal_sizes_follows_the_interval():
    recorded = runs(NAME)
    assert plots.why_which(recorded).endswith("Over 5 seeds no difference in loss is settled.")
    for times, word in ((9, "higher"), (1 / 9, "lower")):
        turned = [
            {**r, "nll_end": r["nll_end"] * (times if r["how"] == "B random, small" else 1)}
            for r in recorded
        ]
        assert plots.why_which(turned).endswith(f"B random is {word}.")


# --- the recorded runs ---------------------------------------------------------------------


def test_no_run_is_recorded_that_no_setting_asks_for():
    assert len(runs(NAME)) == len(settings())


def test_the_first_step_is_as_long_as_the_entries_are_large():
    for seed in range(SEEDS):
        first = {how: runs(NAME, how=how, seed=seed, rate=RATE)[0]["first_update"] for how in SWEPT}
        assert first["A random"] == pytest.approx(first["B random, small"], rel=0.05)
        assert first["A random, large"] == pytest.approx(first["B random"], rel=0.05)


@pytest.mark.base
@pytest.mark.parametrize("how", ("A random", "both zero"))
def test_a_run_measured_again_gives_what_is_recorded(how):
    (recorded,) = runs(NAME, how=how, seed=0, rate=RATE)
    again = run(how, 0, steps=4)
    for name in ("loss", "norm_A", "norm_B"):
        assert again[name] == pytest.approx(recorded[name][:4], rel=0.05, abs=1e-6)
    for name in ("difference", "nll_base", "nll_start", "first_update"):
        assert again[name] == pytest.approx(recorded[name], rel=1e-3)


# --- pictures ------------------------------------------------------------------------------


def test_the_explorer_offers_the_seven_starts(monkeypatch):
    shown = {}
    monkeypatch.setattr(
        explorer, "explorer", lambda controls, draw, alt: shown.update(controls, draw=draw, alt=alt)
    )
    explorer.pick_a_start(runs(NAME))
    assert shown["how"].value == "A random"
    assert [value for _, value in shown["how"].options] == list(LABELS) == list(INITS)
    assert "A has the norm 0.0" in shown["alt"]("A random")
    for how in INITS:
        plt.close(shown["draw"](how))
