"""Notebook 17: the zoo of layers, tests of layers, directions of a trained ΔW, and words that follow the numbers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from sftlab.almanac.pairs import pairs
from sftlab.exercises.ex17_lora_linear import check, explorer, plots
from sftlab.exercises.ex17_lora_linear.answers import Transposed
from sftlab.exercises.ex17_lora_linear.experiment import (
    CUTS,
    PAIRS,
    RATES,
    SEEDS,
    STEPS,
    R,
    change_of,
    cut,
    decomposed,
    kept,
    questions,
    run,
    settings,
    shares,
    shuffled,
)
from sftlab.exercises.ex17_lora_linear.judging import is_lora_layer
from sftlab.exercises.ex17_lora_linear.zoo import FACTORS, OTHERS, RIGHT, UNNAMED, USED, named, zoo
from sftlab.exercises.record import runs
from sftlab.lora import LoRALinear, effective_update, inject_lora, lora_layers

NAME = "lora_directions"
TESTS = ("equal", "other", "third", "yours")


# --- the zoo and tests of it -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_judged_rightly_whatever_the_numbers_are(seed):
    torch.manual_seed(seed)
    for kind, classes in zoo().items():
        for name, layer_class in classes.items():
            assert is_lora_layer(layer_class) == (kind == "right"), name


def test_the_zoo_has_what_the_predictions_say():
    found = zoo()
    assert [len(found[kind]) for kind in ("right", "factor", "others")] == [4, 8, 15]
    places = {place: len(classes) for place, classes in OTHERS.items()}
    assert places == {"start": 3, "trained": 2, "gradient": 3, "between calls": 2, "bias": 2,
                      "dropout": 1, "shape": 1, "function": 1}  # fmt: skip


def test_the_unnamed_classes_are_one_right_and_four_wrong_ones():
    found = zoo()
    names = list(UNNAMED.values())
    assert [name for name in names if name in found["right"]] == ["the formula"]
    assert all(name in found["factor"] | found["others"] for name in names if name != "the formula")


def test_the_check_knows_the_classes_that_are_called_used():
    tried = {case.arguments()[0] for case in check.TEST_CASES}
    assert tried == {check.ZOO[name] for name in USED}
    assert len(USED) == len(set(USED)) == len(RIGHT) + len(FACTORS) + sum(map(len, OTHERS.values())) - 9  # fmt: skip


@pytest.mark.parametrize(
    ("alpha", "r", "names"),
    [
        (4, 4, ["1", "r/α", "(α/r)²", "√(α/r)", "α//r"]),
        (12, 4, ["α//r"]),
        (7, 3, []),
        (7, 1, ["α", "α/√r", "α//r", "α·r"]),
        (8, 4, ["α//r"]),
    ],
)
def test_wrong_factors_that_are_right_somewhere(alpha, r, names):
    assert plots.coincide(alpha, r) == names


def test_matrices_get_their_names_by_their_shapes():
    class Other(nn.Module):
        def __init__(self, base, r, alpha):
            super().__init__()
            self.base = base.requires_grad_(False)
            self.down = nn.Linear(base.in_features, r, bias=False)
            self.up = nn.Linear(r, base.out_features, bias=False)
            nn.init.zeros_(self.up.weight)
            self.factor = alpha / r

        def forward(self, x):
            return self.base(x) + self.factor * self.up(self.down(x))

    assert not is_lora_layer(Other)
    assert is_lora_layer(named(Other))
    assert is_lora_layer(named(LoRALinear))


def test_the_workbook_s_class_stands_in_for_one_that_stores_transposes(capsys):
    assert named(Transposed) is LoRALinear
    assert "stands in" in capsys.readouterr().out


# --- directions ------------------------------------------------------------------------------


def trained(r: int = 3) -> LoRALinear:
    layer = LoRALinear(nn.Linear(7, 5), r=r, alpha=2 * r)
    nn.init.normal_(layer.B)
    return layer


def test_a_change_is_read_off_from_what_a_layer_computes():
    layer = trained()
    wanted = effective_update(layer.A, layer.B, layer.alpha, layer.r)
    assert torch.allclose(change_of(layer, layer.base), wanted, atol=1e-5)


def test_a_product_is_decomposed_without_being_formed():
    A, B = torch.randn(3, 7), torch.randn(5, 3)
    u, s, vt = decomposed(A, B)
    assert torch.allclose(u * s @ vt, B @ A, atol=1e-5)
    assert torch.allclose(s, torch.linalg.svdvals(B @ A)[:3], rtol=1e-4)
    assert torch.allclose(u.T @ u, torch.eye(3), atol=1e-5)


def test_shares_are_over_all_layers_together():
    assert shares([torch.tensor([3.0, 1.0]), torch.tensor([5.0, 1.0])]) == pytest.approx([0.8, 0.2])


def test_shuffling_keeps_the_entries_and_not_their_places():
    matrix = torch.arange(24.0).view(4, 6)
    found = shuffled(matrix, torch.Generator().manual_seed(0))
    assert found.shape == matrix.shape and not torch.equal(found, matrix)
    assert torch.equal(found.flatten().sort().values, matrix.flatten())


def test_parts_of_a_change_add_up_and_have_their_rank_and_energy():
    layer = trained()
    whole = (layer.B @ layer.A).detach()
    top, rest, part, short = (
        B @ A for A, B in (kept(layer, how, 1) for how in ("top", "rest", "part", "short"))
    )
    assert torch.allclose(top + rest, whole, atol=1e-5)
    assert torch.linalg.matrix_rank(top) == torch.linalg.matrix_rank(part) == 1
    assert torch.allclose(short.norm(), top.norm(), rtol=1e-4)
    assert torch.allclose(short / short.norm(), whole / whole.norm(), atol=1e-5)
    assert torch.allclose(part, layer.B[:, :1] @ layer.A[:1], atol=1e-5)


def test_a_cut_is_taken_back(tiny_model):
    inject_lora(tiny_model, "q_proj", r=2, lora_alpha=4, seed=0)
    layer = next(iter(lora_layers(tiny_model).values()))
    nn.init.normal_(layer.B)
    A, B = layer.A.clone(), layer.B.clone()
    with cut(tiny_model, "top", 1):
        assert torch.linalg.matrix_rank(layer.B @ layer.A) == 1
    assert torch.equal(layer.A, A) and torch.equal(layer.B, B)


def test_no_pair_has_the_subject_of_a_question():
    validation, test = ({(q["kind"], q["subject"]) for q in some} for some in questions())
    assert not validation & test
    for seed in range(SEEDS):
        used = {(p["kind"], p["subject"]) for p in pairs(PAIRS, seed, skills=())}
        assert not used & (validation | test)


# --- words that follow the numbers -----------------------------------------------------------


def verdicts(accepting: dict[str, dict[str, list[str]]] | None = None) -> dict:
    """Verdicts of tests that accept the right classes, and the wrong ones that are named."""
    accepting = accepting or {"equal": {"factor": ["1", "r/α"]}}
    return {
        kind: {
            name: {
                test: kind == "right" or name in accepting.get(test, {}).get(kind, [])
                for test in TESTS
            }
            for name in classes
        }
        for kind, classes in zoo().items()
    }


def table(recorded, found=None, apart=None):
    return plots.claims(recorded, (0.4, (0.3, 0.5)), found or verdicts(), apart or {"a": 1e-7}, 7.0)


def test_the_claims_about_tests_follow_the_verdicts():
    recorded = runs(NAME)
    first, second, third = table(recorded)["claim"][:3]
    assert "fewer" in first and "no fewer" not in first
    assert "misses 0 of 15" in second and "equals" in third
    blind = {"other": {"factor": ["1", "α"]}, "third": {"others": ["B is random"]}}
    turned = table(recorded, verdicts(blind), {"a": 1e-2})
    assert "no fewer" in turned["claim"][0] and "not enough" in turned["where it stops holding"][0]
    assert "misses 1 of 15" in turned["claim"][1] and "differs" in turned["claim"][2]


def test_the_claims_about_directions_turn_round_with_their_numbers():
    recorded = runs(NAME)
    flipped = [{**r, "shuffled": plots.last(r), "shares": {"24": r["shuffled"]}} for r in recorded]
    before, after = (table(some)["claim"][3] for some in (recorded, flipped))
    assert ("more energy" in before) and ("less energy" in after)

    def cut_to(factor) -> str:
        moved = [{**r, "top": {k: factor(r) * v for k, v in r["rest"].items()}} for r in recorded]
        return table(moved)["claim"][4]

    assert cut_to(lambda r: 10.0).endswith("higher")
    assert cut_to(lambda r: 0.1).endswith("lower")
    assert "not settled" in cut_to(lambda r: 1 + 0.1 * (-1) ** r["seed"])


def test_the_words_on_b_alone_turn_round_too():
    recorded = runs(NAME)

    def words(of_both: float, of_b: float) -> str:
        share = {None: of_both, "B": of_b}
        moved = [
            {**r, "shares": {"24": [share[r.get("only")] + 0.01 * r["seed"], 0.1]}}
            for r in recorded
        ]
        return table(moved)["control"][3] + plots.why_few(moved)

    less, more, open_ = words(0.7, 0.3), words(0.3, 0.7), words(0.5, 0.5)
    assert less.count(", less") == more.count(", more") == 2
    assert ", lower: A's movement matters" in less and ", higher: A's movement matters" in more
    assert open_.count("not settled") == 3 and "A's movement matters is" in open_


def test_the_explanation_follows_the_share_over_the_steps():
    told = plots.why_few(runs(NAME))
    shares = [run["shares"]["1"][0] for run in plots.best(runs(NAME), R)]
    assert f"{sum(shares) / len(shares):.0%} at step 1, " in told and "% at step 24." in told
    flat = [{**r, "shares": {"3": [0.25, 0.1]}} for r in runs(NAME)]
    assert "The share is 25% at step 3." in plots.why_few(flat)


def test_arms_are_compared_at_about_the_same_loss():
    losses = {(None, 1e-3): 0.05, (None, 3e-3): 0.03, ("B", 3e-3): 0.049, ("B", 1e-2): 0.051}
    moved = [
        {**r, "test": losses.get((r.get("only"), r["learning_rate"]), 9.0), "validation": 1.0 - (r["learning_rate"] == 1e-2)}
        for r in runs(NAME, r=R)
    ]  # fmt: skip
    told = plots.at_same_loss(moved)
    assert told.startswith("both") and "at 0.001 (loss 0.050), only B" in told
    assert "at 0.003 (loss 0.049)" in told and "at 0.01 (loss 0.051)" in told and "9.0" not in told


def test_a_rank_trained_for_longer_is_the_control_of_a_cut_one():
    for factor, word in ((0.1, "higher"), (10.0, "lower")):
        moved = [
            {**r, "test": (factor if "steps" in r else 1) * r["test"]}
            if r["r"] == 2
            else {**r, "top": dict.fromkeys(r["top"], plots.longer(runs(NAME), 2)[r["seed"]]["test"])}
            for r in runs(NAME)
        ]  # fmt: skip
        limits = table(moved)["where it stops holding"][4]
        assert f", {word} (rank 32 was not trained for 96)" in limits


def test_a_learning_rate_at_the_end_of_those_tried_is_named():
    lowest = [
        {**r, "validation": r["learning_rate"] * (1 if r["r"] == 8 or "steps" in r else -1)}
        for r in runs(NAME)
    ]
    assert plots.at_the_edge(lowest) == "rank 2; rank 8; rank 32; rank 2, 96 steps"
    inside = [
        {**r, "validation": abs(r["learning_rate"] - RATES[r["r"]][1])}
        for r in runs(NAME)
        if r.get("only") is None
    ]
    assert plots.at_the_edge(inside) == "none"


def test_counts_and_the_picture_follow_the_verdicts():
    found = verdicts({"equal": {"factor": ["1", "α·r"], "others": ["ReLU after A"]}})
    counts = plots.counts(found)
    assert counts.loc["equal", "wrong factors refused"] == "6 of 8"
    assert counts.loc["equal", "other mistakes refused"] == "14 of 15"
    assert counts.loc["equal", "unknown to the check of 17b"] == "7 of 9"
    assert counts.loc["yours", "right classes accepted"] == "4 of 4"
    assert counts.loc["yours", "unknown to the check of 17b"] == "9 of 9"
    blind = verdicts({"yours": {"factor": ["α//r", "α"], "others": ["bias is trained"]}})
    told = plots.counts(blind).loc["yours", "unknown to the check of 17b"]
    assert told == "7 of 9; missed: α//r, bias is trained"  # the check knows the factor α
    figure = plots.verdicts(found)
    assert "α·r" in figure.alt
    plt.close(figure)


def test_a_title_counts_the_factors_that_pass():
    for alpha, r, phrase in ((7, 1, "4 wrong factors"), (12, 4, "1 wrong factor of")):
        figure = plots.factors(alpha, r, "words")
        assert phrase in figure.get_suptitle()
        plt.close(figure)


# --- the recorded runs -----------------------------------------------------------------------


def test_every_setting_is_recorded_and_no_other():
    assert len(runs(NAME)) == len(settings())


def test_only_b_is_trained_where_that_is_asked(monkeypatch):
    seen = []
    monkeypatch.setattr("torch.optim.AdamW", lambda weights, **_: seen.extend(weights) or stop())
    for only, count in (("AB", 84), ("B", 42)):
        seen.clear()
        with pytest.raises(InterruptedError):
            run(2, 1e-3, 0, only=only)
        assert len(seen) == count and all(p.requires_grad for p in seen)


def stop():
    raise InterruptedError


def test_a_change_has_as_many_directions_as_its_rank_and_is_cut_below_it():
    for recorded in runs(NAME):
        whole = sum(plots.last(recorded))
        assert whole == pytest.approx(1, abs=1e-4) if recorded["r"] <= R else whole < 1
        cuts = CUTS if "only" not in recorded else ()
        assert set(recorded["top"]) == {str(k) for k in cuts if k < recorded["r"]}


@pytest.mark.base
def test_a_run_measured_again_gives_what_is_recorded():
    recorded = next(
        run for run in runs(NAME, r=2, seed=0, learning_rate=RATES[2][1]) if "steps" not in run
    )
    again = run(2, RATES[2][1], 0, STEPS)
    assert again["test"] == pytest.approx(recorded["test"], rel=0.1)
    assert again["shares"]["24"] == pytest.approx(recorded["shares"]["24"], abs=0.02)


# --- pictures --------------------------------------------------------------------------------


def test_pictures_of_the_recorded_runs_are_drawn():
    figure = plots.directions(runs(NAME))
    titles = [axis.get_title() or axis.get_title("left") for axis in figure.axes]
    assert [title.endswith("first 8") for title in titles] == [False, False, True]
    plt.close(figure)
    assert list(plots.cuts_table(runs(NAME)).index) == list(CUTS)


def test_the_explorer_draws_any_setting(monkeypatch):
    shown = {}
    monkeypatch.setattr(explorer, "explorer", lambda c, d, w: shown.update(c, draw=d, words=w))
    explorer.try_factors()
    assert shown["r"].value == shown["alpha"].value  # the task is to leave this setting
    for r in (1, 16):
        for alpha in (1, 32):
            plt.close(shown["draw"](r, alpha))
    assert "none of the wrong ones" in shown["words"](3, 7)
