"""Notebook 21: censuses of packed models, the limited process, tables, figures and the explorer."""

from __future__ import annotations

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from sftlab.errors import WorkbookError
from sftlab.exercises.ex21_qlora_finetuning import bases, plots
from sftlab.exercises.ex21_qlora_finetuning import explorer as explorers
from sftlab.exercises.ex21_qlora_finetuning import moved_back as moves
from sftlab.exercises.ex21_qlora_finetuning import roundings as others
from sftlab.exercises.ex21_qlora_finetuning.census import census
from sftlab.exercises.record import runs
from sftlab.loss import model_loss
from sftlab.memory import limit
from sftlab.memory.count import parameter_bytes
from sftlab.memory.plan import Run, plan
from sftlab.memory.shapes import SHAPES
from sftlab.quantized_layers import dequantize_model_linears, quantize_model_linears

SMALL = Run(batch=1, length=8, trained_per_row=4, r=2)


def small_model():
    return nn.ModuleDict({"embed": nn.Embedding(10, 64), "up": nn.Linear(64, 128), "norm": nn.LayerNorm(128)})  # fmt: skip


def test_a_census_adds_up_and_packing_changes_linear_layers_alone():
    net = small_model().to(torch.bfloat16)
    before = census(net)
    after = census(quantize_model_linears(net))
    assert plots.whole(after) == parameter_bytes(net)
    assert {k: v for k, v in before.items() if k[0] != "linear"} == {
        k: v for k, v in after.items() if k[0] != "linear"
    }
    assert after["linear", "uint8"][1] < before["linear", "bfloat16"][1] / 3


def test_what_each_line_of_the_libraries_does_to_dtypes():
    """What the notebook says of PEFT: embeddings are cast up, and A and B are, unless it is told not to."""
    net = bases.plain().to(torch.bfloat16)
    quantize_model_linears(net)
    config = bases.peft.LoraConfig(r=2, target_modules=["q_proj"])
    kept = bases.peft.get_peft_model(copy.deepcopy(net), config, autocast_adapter_dtype=True)
    assert ("adapter", "float32") in census(kept)
    prepared = census(bases.peft.prepare_model_for_kbit_training(net, False))
    assert ("embedding", "float32") in prepared
    assert ("linear", "uint8") in prepared


def test_the_control_has_the_gradients_of_the_arm_in_bfloat16():
    """At the first step: so the two differ in what is stored, and in nothing that is computed."""
    _, tokenizer = bases.load("almanac")
    batch = {name: tensor[:2] for name, tensor in next(bases.batches(tokenizer, 0)).items()}
    found = []
    for base, dtype in ((bases.HALF, torch.bfloat16), (bases.PRODUCTS, torch.float32)):
        model = bases.with_adapters(bases.plain(), 0, dtype)
        if base == bases.PRODUCTS:
            bases.multiply_in_bfloat16(model)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(2**-7)
        model_loss(model, batch)[0].backward()
        found.append({n: p.grad.float() for n, p in model.named_parameters() if p.requires_grad})
    arm, control = found
    assert all(torch.equal(arm[name], control[name]) for name in arm)


def test_moments_in_float32_leave_nothing_finer_in_the_weights():
    """With weights in float32 it is AdamW; in bfloat16, its step from these weights, rounded."""
    drawn = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    plain, stored, half = (torch.nn.Parameter(drawn.clone().to(d)) for d in (torch.float32, torch.float32, torch.bfloat16))  # fmt: skip
    optimizers = [bases.adamw([p], 0.1, m) for p, m in ((plain, False), (stored, True), (half, True))]  # fmt: skip
    for _ in range(3):
        before = half.detach().clone()
        for parameter, optimizer in zip((plain, stored, half), optimizers, strict=True):
            optimizer.zero_grad()
            (parameter.float() ** 2).sum().backward()
            optimizer.step()
        assert torch.equal(plain, stored)
        (copied,) = optimizers[2].param_groups[0]["params"]
        assert copied.dtype == torch.float32 and torch.equal(copied, half.float())
        assert optimizers[2].state[copied]["exp_avg"].dtype == torch.float32
        assert half.dtype == torch.bfloat16 and not torch.equal(before, half)


@pytest.mark.parametrize("weights", ["bf16", "nf4"])
def test_a_model_built_by_layer_trains(weights):
    run = Run(**{**SMALL.settings(), "weights": weights})
    net = limit.build_by_layer(run)
    assert not any(t.is_meta for t in [*net.parameters(), *net.buffers()])
    assert net.lm_head.weight is net.model.embed_tokens.weight
    losses = limit.train(net, run, 3)
    assert losses[-1] < losses[0]


def test_layers_of_the_model_share_no_memory():
    net = limit.build_by_layer(Run(**{**SMALL.settings(), "weights": "nf4"}))
    places = [layer.mlp.up_proj.weight.data_ptr() for layer in net.model.layers]
    assert len(set(places)) == len(places)


def test_the_plan_of_the_example_lies_on_both_sides_of_the_limit():
    for shape, allowed in limit.ALLOWED.items():
        assert plan(limit.example("bf16", shape)).weights > allowed
        assert plan(limit.example("nf4", shape)).peak < 0.85 * allowed


@pytest.mark.thorough
def test_a_limited_process_says_where_its_memory_ended_or_that_it_fits():
    (tight,) = limit.in_limited_process([Run("smollm2-135m", 1, 8, 4, r=2)], 150_000_000)
    assert not tight["fits"] and "no room for" in tight["said"] and tight["losses"] == []
    assert tight["loaded"] == 0
    packed = Run("smollm2-135m", 1, 8, 4, r=2, weights="nf4")
    (roomy,) = limit.in_limited_process([packed], 1_000_000_000)
    assert roomy["fits"] and roomy["said"] == "" and len(roomy["losses"]) == limit.STEPS
    assert roomy["loaded"] == pytest.approx(plan(packed).weights, rel=0.15)
    assert roomy["peak"] >= roomy["loaded"]


def test_only_a_want_of_memory_is_told_as_such():
    with pytest.raises(WorkbookError, match="no room for it"), limit._room("it"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(RuntimeError, match="shapes"), limit._room("it"):
        raise RuntimeError("shapes do not fit")


def test_other_systems_are_told_that_they_have_no_such_limit(monkeypatch):
    monkeypatch.setattr(limit.sys, "platform", "darwin")
    with pytest.raises(WorkbookError, match="only Linux"):
        limit.in_limited_process([SMALL], 10**9)


def made(shift: float = 0.0, base: str = bases.FOUR) -> list[dict]:
    """Runs in which every arm is alike but for one, whose losses are multiplied."""
    found = []
    for setting in bases.settings():
        rate, seed = setting["learning_rate"], setting["seed"]
        value = (1 + abs(np.log(rate / plots.SAME))) * (1 + 0.01 * seed)
        value *= 1 + shift * (setting["base"] == base)
        losses = {"validation": value, "test": value, "documents": value}
        found.append({**setting, **losses, "before": {"documents": 1.0, "test": 99.0}})
        if setting["base"] == bases.FULL:
            found[-1]["moved"] = dict.fromkeys((bases.FOUR, bases.THREE, bases.TWO), 2 * value)
    return found


def made_back(ratio: float = 2.0) -> list[dict]:
    """Adapters from a rounded base, whose loss on 16 bits is that of 16 bits times a ratio."""
    own = {(r["learning_rate"], r["seed"]): r["test"] for r in made() if r["base"] == bases.FULL}
    return [
        {**setting, "own": 1.0, "moved": ratio * own[setting["learning_rate"], setting["seed"]]}
        for setting in moves.settings()
    ]


def made_others(documents: float = 1.0, own: float = 0.5, back: float = 1.0) -> list[dict]:
    """Further roundings: ratios to 16 bits of the documents, and of the test losses on either base."""
    full = {(r["learning_rate"], r["seed"]): r["test"] for r in made() if r["base"] == bases.FULL}
    found = []
    for setting in others.settings():
        value = full[setting["learning_rate"], setting["seed"]]
        none = setting["order"] == others.NONE
        moved = (
            dict.fromkeys(map(str, others.ORDERS), value / own) if none else {"-1": back * value}
        )
        found.append({**setting, "test": value, "documents": documents * value, "moved": moved})
    return found


STAGES = {
    "one": {("linear", "bfloat16"): (10, 20)},
    "two": {("linear", "uint8"): (10, 5)},
    "three": {("linear", "uint8"): (10, 5), ("embedding", "float32"): (2, 8)},
}
HELD = {"most": {"parameters": 9e6}, "least": {"parameters": 4e6}}
DONE = {"fits": True, "said": "", "loaded": 5e8, "peak": 6e8, "losses": [2.0, 1.0]}
REFUSED = {"fits": False, "said": "no room", "loaded": 0, "peak": 1e9, "losses": []}
LIMITS = [{"shape": "llama-3.2-1b", "allowed": 10**9, "16 bits": REFUSED, "4 bits": DONE}]
REAL = [
    {"model": "smollm2-instruct", "stored": stored, "seed": 0, "nll": nll}
    for stored, nll in (("bf16", 1.0), ("nf4", 1.2))
]


def test_arms_are_paired_by_seed_and_rates_chosen_on_validation():
    runs = made(0.5)
    assert plots.best(runs, bases.FOUR)[0]["learning_rate"] == plots.SAME
    assert plots.against(runs, bases.FOUR)[0] == pytest.approx(1.5)
    assert plots.against(runs, bases.HALF)[1] == pytest.approx((1, 1))
    assert plots.repaired(runs, bases.FOUR)[0] == pytest.approx(0.75)
    assert plots.repaired(runs, bases.THREE, 8e-4)[0] == pytest.approx(0.5)
    assert plots.at_low(runs, bases.HALF)[0] > 1  # the arm in float32 is the one with higher losses
    assert len(plots.loss(runs, bases.FOUR)) == bases.MORE
    assert plots.moved_back(runs, made_back(), bases.FOUR)[0] == pytest.approx(2.0)
    assert plots.moved_back(runs, made_back(4.0), bases.TWO, plots.SAME)[0] == pytest.approx(4.0)


def test_documents_are_compared_at_equal_test_loss():
    """An arm that is farther along one curve has no other documents there; one above the curve has."""

    def curve(base, shift, above):
        rates = [rate * shift for rate in bases.RATES]
        points = [{"test": 1 / (1000 * rate), "documents": 1 + 1000 * rate} for rate in rates]
        return [
            {"base": base, "learning_rate": rate, "seed": seed, "validation": point["test"],
             "test": point["test"], "documents": point["documents"] * above}
            for seed in range(3) for rate, point in zip(bases.RATES, points, strict=True)
        ]  # fmt: skip

    def found(shift, above, target=0.4):
        runs = [*curve(bases.FULL, 1, 1), *curve(bases.FOUR, shift, above)]
        return plots.at_equal_loss(runs, bases.FOUR, target)

    assert found(1.0, 1.2)[0] == pytest.approx(1.2)
    assert found(1.5, 1.0)[0] == pytest.approx(1, abs=0.02)
    assert found(1.5, 0.8)[0] == pytest.approx(0.8, abs=0.02)
    assert found(0.1, 1.0, 0.2) is None and found(1.0, 1.0, 2.0) is None  # no run on one side
    assert plots.equal(None) == "not reached by every seed"


def test_learning_rates_are_chosen_on_the_seeds_that_both_arms_have():
    """Seeds of one arm alone could give it another learning rate than the same losses give the other."""
    runs = made()
    for run in runs:
        if run["seed"] >= bases.SEEDS:
            run["validation"] = 1.0 if run["learning_rate"] == bases.RATES[0] else 9.0
    assert plots.best(runs, bases.FOUR)[0]["learning_rate"] == bases.RATES[0]
    assert plots.against(runs, bases.HALF, bases.FOUR)[1] == pytest.approx((1, 1))
    assert plots.repaired(runs, bases.THREE)[0] == pytest.approx(0.5)
    assert plots.moved_back(runs, made_back(), bases.TWO, plots.SAME)[0] == pytest.approx(2.0)


def test_the_usual_order_rounds_as_the_library_does_and_others_as_far():
    usual, error = others.rounded(0)
    packed = dequantize_model_linears(quantize_model_linears(bases.plain()))
    pairs = zip(usual.parameters(), packed.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    other, as_large = others.rounded(1)
    assert as_large == pytest.approx(error, rel=0.01)
    assert not all(torch.equal(a, b) for a, b in zip(usual.parameters(), other.parameters(), strict=True))  # fmt: skip
    assert others.rounded(others.NONE)[1] == 0


def test_roundings_are_those_of_the_other_records_and_all_seeds_reach_the_target():
    recorded, further = runs("qlora"), runs("roundings")
    sixteen = plots.loss(recorded, bases.FULL, rate=plots.SAME)
    again = {run["seed"]: run["test"] for run in further if run["order"] == others.NONE}
    assert again == pytest.approx(sixteen, rel=0.01)
    found = plots.roundings(recorded, runs("moved_back"), further)
    assert len(found) == 1 + len(others.ORDERS)
    assert {len(by) for each in found.values() for by in each.values()} == {bases.MORE}


def test_a_rate_is_told_with_the_seeds_that_agree():
    runs = made()
    assert (
        plots.stable(runs, bases.FOUR)
        == f"{plots.SAME:g} (lowest mean; lowest in {bases.MORE} of {bases.MORE} seeds)"
    )
    for run in runs:
        if run["seed"] == 0 and run["learning_rate"] == bases.RATES[0]:
            run["validation"] = 0.0
    assert plots.stable(runs, bases.FOUR) == f"{plots.SAME:g} (lowest mean; lowest in {bases.MORE - 1} of {bases.MORE} seeds)"  # fmt: skip


def test_the_words_follow_the_numbers(monkeypatch):
    def told(runs, back=None, further=None):
        args = back or made_back(), further or made_others()
        return " ".join(plots.claims(STAGES, HELD, runs, *args, LIMITS, REAL).to_numpy().flatten())

    def documents(factor):
        changed = [{**r, "documents": r["documents"] * (factor if r["base"] == bases.FOUR else 1)} for r in made()]  # fmt: skip
        return told(changed, further=made_others(factor))

    monkeypatch.setattr(plots, "TARGETS", (1.2, 1.1))
    monkeypatch.setattr(plots, "AT", 1.2)
    line = "At equal test loss (1.2) the loss on documents on 4 bits, compared with 16, is "
    assert f"{line}higher ×1.50 (1.50 to 1.50) over 5" in documents(1.5)
    assert f"{line}lower" in documents(0.5)
    assert f"{line}not settled here" in documents(1.0)
    mixed = [{**r, "documents": r["documents"] * (1.5 if r["order"] > 2 else 0.7)} for r in made_others()]  # fmt: skip
    assert f"{line}not settled here" in told(made(), further=mixed)  # roundings disagree
    assert "not reached by every seed" in told(made(0.5))
    assert f"in bfloat16: test loss at {len(bases.RATES)} learning rates higher" in told(made(0.5, bases.HALF))  # fmt: skip
    assert "learning rates the same within 5%" in told(made())
    one_rate = [{**r, "test": r["test"] * (2 if r["base"] == bases.HALF and r["learning_rate"] == plots.SAME else 1)} for r in made()]  # fmt: skip
    assert "learning rates not settled here" in told(one_rate)
    fits = made_others(back=2.0)
    assert "loss lower used on 4 bits, higher used on 16: each fits its own" in told(made(), None, fits)  # fmt: skip
    assert "lower used on 4 bits, lower used on 16: the match" in told(made(), made_back(0.5), made_others(back=0.5))  # fmt: skip
    assert "higher used on 4 bits, higher used on 16: the match" in told(made(3.0), None, made_others(own=2.0, back=2.0))  # fmt: skip
    assert "whether each fits its own base is not settled" in told(made(), made_back(1.0))
    assert "one seed, an observation: test ×1.20" in told(made())
    fitting = [{**LIMITS[0], "16 bits": DONE}]
    assert "in 16 bits: trains, peak 600 MB" in str(plots.claims(STAGES, HELD, made(), made_back(), made_others(), fitting, REAL).to_numpy())  # fmt: skip
    assert "3 bits ×1.50 (1.50 to 1.50), higher" in plots.why_same(made(0.5, bases.THREE))


def test_figures_and_tables_draw():
    runs = made(0.5)
    for figure in (plots.by_stage(STAGES), plots.repairs(runs), plots.trade_off(runs)):  # fmt: skip
        figure.draw_without_rendering()
        plt.close(figure)
    rising = [{**run, "documents": run["learning_rate"]} for run in runs]
    titles = [plots.trade_off(some).get_suptitle() for some in (rising, runs)]
    assert ["from left to right" in title for title in titles] == [True, False]
    plt.close("all")
    assert list(plots.arms_table(runs).index) == list(plots.ARMS)
    assert len(plots.repairs_table(runs, made_back())) == 3
    table = plots.roundings_table(plots.roundings(runs, made_back(), made_others()))
    assert len(table) == 2 + len(others.ORDERS)
    assert plots.limit_table(LIMITS)["16 bits"].tolist() == ["no room"]
    assert plots.limit_table(LIMITS)["4 bits"].tolist() == ["trains, peak 600 MB"]
    assert list(plots.low_table(runs).index) == [bases.HALF, bases.MOMENTS, bases.PRODUCTS]
    halved = {"one": STAGES["two"], "other": {("adapter", "bfloat16"): (1, 1), ("embedding", "bfloat16"): (1, 1)}}  # fmt: skip
    assert "40% of the bytes of one: embedding in bfloat16, adapter" in plots.two_recipes(halved)


def test_bytes_of_a_published_shape():
    parts = plots.step_bytes("llama-3-8b", "16 bits", 16, 32, 64)
    assert parts["linear layers"] + parts["embedding and head"] == 2 * SHAPES["llama-3-8b"].parameters  # fmt: skip
    assert parts["moments of AdamW"] == 2 * parts["gradients"] == 8 * 167_772_160


def test_the_explorer_shows_its_extremes(monkeypatch):
    shown = {}
    monkeypatch.setattr(explorers, "explorer", lambda c, d, w: shown.update(c=c, draw=d, words=w))
    explorers.choose_dtypes()
    for end in (0, -1):
        settings = {name: control.options[end] for name, control in shown["c"].items()}
        settings = {k: v[1] if isinstance(v, tuple) else v for k, v in settings.items()}
        figure = shown["draw"](**settings)
        figure.draw_without_rendering()
        assert "Together" in shown["words"](**settings)
    plt.close("all")


def test_answers_in_between_change_no_gradient_of_a_whole_model():
    """Train, answer with a cache, train on: bit for bit the gradients of before."""
    run = Run(**{**SMALL.settings(), "weights": "nf4"})
    net = limit.build_by_layer(run)
    limit.train(net, run, 2)
    ids = torch.arange(8)[None]

    def gradients():
        net.train().zero_grad()
        net(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return [p.grad.clone() for p in net.parameters() if p.requires_grad]

    before = gradients()
    assert all(g.abs().max() > 0 for g in before)
    net.eval()
    net.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(), strict=True))


def test_the_adapters_that_are_moved_back_are_those_of_the_other_record():
    """Both records train them, from the same seeds: the loss on their own base is the same."""
    trained = {(r["base"], r["learning_rate"], r["seed"]): r["test"] for r in runs("qlora")}
    for found in runs("moved_back"):
        key = found["base"], found["learning_rate"], found["seed"]
        assert found["own"] == pytest.approx(trained[key], rel=0.01)
    rates = {base: plots.best(runs("qlora"), base)[0]["learning_rate"] for base in moves.RATES}
    assert all(rate in moves.RATES[base] for base, rate in rates.items())
