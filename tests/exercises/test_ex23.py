"""Notebook 23: every fault does what its name says, probes tell faults from harmless differences, words follow numbers."""

from __future__ import annotations

import copy

import matplotlib.pyplot as plt
import pytest
import torch

from sftlab.classroom.plots import use_style
from sftlab.data import collate
from sftlab.errors import WorkbookError
from sftlab.exercises.ex23_broken_runs_clinic import clinic, experiment
from sftlab.exercises.ex23_broken_runs_clinic import explorer as explorers
from sftlab.exercises.ex23_broken_runs_clinic.clinic import (
    FIRST,
    HEALTHY,
    KINDS,
    SECOND,
    SHOWN,
    UNSEEN,
    Kind,
    Run,
    admit,
    blind,
    broken,
    served_as,
    trained_as,
)
from sftlab.exercises.ex23_broken_runs_clinic.evidence import (
    PROBES,
    WRITTEN,
    alarms,
    answer_of,
    tolerances,
    values,
)
from sftlab.exercises.ex23_broken_runs_clinic.own_probes import first_loss_ratio, learned
from sftlab.exercises.ex23_broken_runs_clinic.plots import (
    CURVE,
    LEARNED,
    NAMES,
    OWN,
    SMALL,
    STRICT,
    begins_by_seed,
    claims,
    cost_table,
    costs,
    counted,
    curve_limits,
    extra_token,
    false_alarms,
    hits,
    in_some_seeds,
    loss_curves,
    probes_table,
    read_grid,
    recorded_cost,
    sound_kinds,
    told,
    tolerance_table,
    which_finds_what,
    why_curve,
    why_start,
    why_unseen,
    would_you_notice,
)
from sftlab.exercises.ex23_broken_runs_clinic.probes import (
    label_errors,
    split_gap,
    update_strength,
)
from sftlab.lora import lora_layers
from sftlab.loss import IGNORE_INDEX, accumulated_loss, mean_of_means
from sftlab.masking import Example

M = IGNORE_INDEX
ROWS = [Example([7, 1, 2, 3, 9], [M, M, 2, 3, 9]), Example([7, 4, 5, 9], [M, M, 5, 9])]


class Tokenizer:
    bos_token_id = 7


# --- the faults --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "first"),
    [
        (clinic.train_everything, Example([7, 1, 2, 3, 9], [7, 1, 2, 3, 9])),
        (clinic.begin_twice, Example([7, 7, 1, 2, 3, 9], [M, M, M, 2, 3, 9])),
        (clinic.shift_labels, Example([7, 1, 2, 3, 9], [M, 2, 3, 9, M])),
        (clinic.cut_rows, Example([7, 1, 2], [M, M, 2])),
        (clinic.invert, Example([7, 1, 2, 3, 9], [7, 1, M, M, M])),
        (clinic.end_with_another_token, Example([7, 1, 2, 3, 7], [M, M, 2, 3, 7])),
        (clinic.answers_of_the_next, Example([7, 1, 5, 9], [M, M, 5, 9])),
        (clinic.one_pair, ROWS[0]),
        (clinic.cut_prompts, Example([1, 2, 3, 9], [M, 2, 3, 9])),
    ],
)
def test_a_fault_of_the_examples_leaves_the_sound_ones_alone(fault, first):
    before = copy.deepcopy(ROWS)
    found = fault(ROWS, Tokenizer())
    assert found[0] == first
    assert len(found) == len(ROWS)
    assert before == ROWS


def test_answers_of_the_next_pair_train_what_the_answers_trained():
    rows = [Example([*row.input_ids, 8], [*row.labels, M]) for row in ROWS]  # a line break after it
    assert clinic.answers_of_the_next(rows, Tokenizer())[0] == Example(
        [7, 1, 5, 9, 8], [M, M, 5, 9, M]
    )


def test_both_wards_hold_sound_runs_and_the_second_no_fault_of_the_first():
    assert len(broken(list(FIRST))) == 10
    assert len(broken(list(SECOND))) == 13
    assert len(sound_kinds()) == 4
    assert set(SHOWN) <= set(FIRST)
    assert set(UNSEEN) <= set(SECOND)
    assert sorted(blind(3).values()) == sorted(UNSEEN)
    assert blind(3) != blind(4)


def test_over_all_tokens_divides_by_masked_ones_too():
    logits, labels = torch.zeros(1, 3, 4), torch.tensor([[M, 1, M]])
    parts = [(logits, labels)]
    assert clinic.over_all_tokens(parts).item() == pytest.approx(accumulated_loss(parts).item() / 3)


# --- runs of two steps: enough for the probes that compare with the run itself -------------------------
@pytest.fixture(scope="module")
def sound() -> Run:
    return trained_as(Kind(), steps=2)


EXACT = [
    name for name in PROBES if name not in ("stops", "learned", CURVE)
]  # known after two steps
FINDS = {  # kind -> probes that must find it; no other exact one may
    HEALTHY: set(),
    "prompts trained too": {"preflight", "first loss", "wrong labels"},
    "end-of-turn token masked": {"preflight", "first loss", "wrong labels"},
    "begin token doubled": {"preflight", "first loss", "begin tokens", "prompt fits"},
    "labels shifted twice": {"preflight", "first loss", "wrong labels"},
    "answers cut off": {"preflight", "first loss", "wrong labels"},
    "dropout in evaluation": {"two passes"},
    "merged without r": {"strength"},
    "adapter not loaded": {"strength"},
    "another family's template": {"prompt fits"},
    "sound, another seed": set(),
    "sound, other pairs": set(),
    "sound, merged": set(),
    "answers of the next pair": {"first loss", "wrong labels"},
    "divided by all tokens": {"first loss"},
    "half of the adapters frozen": {"untrained adapters"},
    "adapter applied twice": {"strength"},
    "no assistant header": set(),
    "a system turn": {"prompt fits"},
}


@pytest.mark.base
@pytest.mark.parametrize("name", FINDS)
def test_each_fault_is_seen_by_its_own_probes_and_by_no_other(name, sound, monkeypatch):
    kind = KINDS[name]
    shared = kind.trained == Kind().trained
    run = served_as(kind, sound if shared else trained_as(kind, steps=2))
    for skipped in ("stops", "learned"):
        monkeypatch.setitem(PROBES, skipped, PROBES[CURVE])  # no answers are written here
    limits = tolerances([dict.fromkeys(PROBES, 1.0)]) | {"strength": 1e-3}
    found = alarms(values(run), limits)
    assert {probe for probe in EXACT if found[probe]} == FINDS[name]


@pytest.mark.base
def test_the_mean_of_means_moves_the_gradient():
    run = trained_as(FIRST["mean of means"], steps=2)
    assert PROBES["gradient and split"].measure(run) > 0.1


@pytest.mark.base
def test_serving_changes_none_of_the_run_and_a_ward_shares_one_training(sound, monkeypatch):
    weights = {name: p.clone() for name, p in sound.model.named_parameters()}
    for kind in KINDS.values():
        if kind.trained == Kind().trained:
            assert served_as(kind, sound).losses == sound.losses
    assert all(torch.equal(p, weights[n]) for n, p in sound.model.named_parameters())
    made = []
    monkeypatch.setattr(clinic, "trained_as", lambda *_: made.append(1) or sound)
    ward = admit(["sound", "merged without r", "adapter not loaded"])
    assert len(made) == 1
    assert ward["sound"].model is not ward["adapter not loaded"].model


@pytest.mark.base
def test_frozen_adapters_stay_and_gradients_that_are_kept_change_the_run(sound):
    half = trained_as(SECOND["half of the adapters frozen"], steps=2)
    zero = [not layer.B.any() for layer in lora_layers(half.model).values()]
    assert sum(zero) == len(zero) // 2
    kept = trained_as(SECOND["gradients not cleared"], steps=2)
    assert kept.losses[0] == sound.losses[0]
    assert any(not torch.equal(kept.adapter[name], t) for name, t in sound.adapter.items())


# --- the probes that students write ------------------------------------------------------------------
def test_a_sound_example_has_no_wrong_label():
    assert [label_errors(r.input_ids, r.labels, answer_of(r)) for r in ROWS] == [0, 0]
    assert label_errors([7, 1, 2, 3, 9], [7, 1, 2, 3, 9], [2, 3, 9]) == 5


def test_only_a_loss_that_depends_on_the_split_has_a_gap():
    logits, labels = torch.randn(2, 4, 5), torch.tensor([[M, 1, 2, 3], [M, M, M, 4]])
    assert split_gap(accumulated_loss, logits, labels) == pytest.approx(0, abs=1e-6)
    assert split_gap(mean_of_means, logits, labels) > 0.1


def test_the_strength_counts_updates_and_nothing_else():
    base, A, B = torch.randn(4, 6), torch.randn(2, 6), torch.randn(4, 2)
    assert update_strength(base + 3 * 2.5 * B @ A, base, A, B, 2.5) == pytest.approx(3, rel=1e-4)


# --- figures, tables, explorer -----------------------------------------------------------------------
def made_up(caught: bool):
    """Recorded runs in which the three written probes raise an alarm for every fault, or for none."""
    found = []
    for setting in experiment.settings():
        seen = {name: probe.sound for name, probe in PROBES.items()}
        if caught and KINDS[setting["kind"]].where:
            seen |= {name: PROBES[name].sound + 9 for name in WRITTEN}
        if caught and setting["kind"] == "mean of means" and setting["seed"] == 0:
            seen["first loss"] += 0.01
        if caught and setting["kind"] == "a system turn":
            seen["learned"] -= 0.5
        exact = 0.2 if caught and KINDS[setting["kind"]].where else 0.9
        score = {"exact": exact + 0.01 * (setting["seed"] % 2), "content": 0.9, "stops": 1.0}
        found.append(setting | {"values": seen} | score)
    return found


def test_the_words_follow_the_numbers():
    every, none = made_up(caught=True), made_up(caught=False)
    assert hits(every, WRITTEN, SECOND) == (13, (13, 13))
    assert hits(none, WRITTEN, SECOND)[0] == 0
    assert counted(every, broken(list(FIRST)), WRITTEN) == "10 of 10"
    assert len(costs(every, broken(list(KINDS)))["lower"]) == 23
    assert len(costs(none, broken(list(KINDS)))[SMALL]) == 23
    assert SMALL == "loses less than 5 points"
    assert "learned finds 5 of 115 runs" in claims(every)["claim"].iloc[-1]
    assert "learned finds 0 of 0" in claims(none)["claim"].iloc[-1]
    for run in every:
        run["exact"] *= run["kind"] != "a system turn" or run["seed"] > 1
    assert "learned finds 3 of 113 runs" in claims(every)["claim"].iloc[-1]
    assert claims(every)["measured"].iloc[-1].startswith("of all their runs 5 of 115;")
    assert recorded_cost(every, "begin token doubled").endswith(", lower")
    assert recorded_cost(none, "begin token doubled").endswith(f", {SMALL}")
    assert "a system turn" not in claims(every)["where it stops holding"][2]
    assert "a system turn" in claims(none)["where it stops holding"][2]
    assert begins_by_seed(every).endswith(": 1.0100, 1.0000, 1.0000, 1.0000, 1.0000")
    assert in_some_seeds(every) == "Found in some seeds only: mean of means (1 of 5)."
    assert in_some_seeds(none).endswith("none.")
    assert "Missed: none." in why_unseen(every)
    assert "*learned* alone finds 1 of 13" in why_unseen(every)
    assert "designed for: 12 of 12; the five 12 of 12" in why_unseen(every)
    assert "designed for: 0 of 12; the five 0 of 12" in why_unseen(none)
    assert "a system turn (5 of 5 seeds)" in why_unseen(none)
    assert "loss: 1 of 1; adapter: 0 of 1" in why_start(every)
    assert "examples: 0 of 5; loss: 0 of 1" in why_start(none)
    assert "the five probes: 23 of 23" in would_you_notice(every)
    assert "the five probes: 0 of 23" in would_you_notice(none)
    assert "none" in which_finds_what(every).get_suptitle()
    assert "a system turn" in which_finds_what(none).get_suptitle()
    plt.close("all")


def test_words_about_the_curve_follow_its_threshold():
    runs = made_up(caught=False)
    for run in runs:
        run["values"][CURVE] = {"adapter not loaded": 0.3, "sound, merged": 0.09}.get(
            run["kind"], 0.05
        )
    assert "two thirds is a lenient rule" in why_curve(runs)
    assert (
        "0.15: 1 of 10, 0 of 13, 0 of 15 trainings; 0.05: 1 of 10, 0 of 13, 5 of 15 trainings"
        in curve_limits(runs)
    )
    assert counted(runs, broken(list(FIRST)), [STRICT]) == "1 of 10"
    for run in runs:
        run["values"][CURVE] = 0.9 if run["kind"] == "adapter not loaded" else 0.05
    assert why_curve(runs).startswith("It finds adapter not loaded.")


def test_a_training_that_is_served_twice_is_one_false_alarm():
    runs = made_up(caught=False)
    assert false_alarms(runs, OWN) == "0 of 15 trainings"
    for run in runs:
        if run["kind"] in ("sound, merged", "sound, merged in bfloat16"):
            run["values"]["strength"] = 0.0
    assert false_alarms(runs, OWN) == "5 of 15 trainings"
    assert "the five probes: 0 of 23, false alarms 5 of 15 trainings" in would_you_notice(runs)


def test_other_tolerances_of_learned_are_told_in_questions():
    runs = made_up(caught=False)
    for run in runs:
        calibrates = run["kind"] == HEALTHY and run["seed"] in experiment.CHOSEN_ON
        run["values"]["learned"] = 1 - (2 if calibrates else 3) / 16
    table = tolerance_table(runs)
    assert list(table.index) == ["1 of 16", "2 of 16 (calibrated)", "3 of 16", "4 of 16"]
    assert table["learned alone, unseen faults"].tolist() == ["13 of 13"] * 2 + ["0 of 13"] * 2
    assert table["false alarms"].tolist() == ["15 of 15 trainings"] * 2 + ["0 of 15 trainings"] * 2


def test_words_below_the_figure_follow_its_alarms():
    runs = made_up(caught=False)
    assert "false one: none." in read_grid(runs)
    assert "no assistant header: a prompt" in read_grid(runs)
    for run in runs:
        if run["kind"] in ("no assistant header", "divided by all tokens"):
            run["values"] |= {"prompt fits": 0.0, "gradient and split": 1.0}
        if run["kind"] == "sound, merged":
            run["values"]["strength"] = 0.0
    assert "false one: sound, merged (strength)." in read_grid(runs)
    assert "No alarm" not in read_grid(runs)


def test_words_about_the_other_trainer_follow_its_labels():
    assert extra_token({0}, ["a", "E"], "E") == "Your probe finds no mismatch in any example."
    assert "the token after E, 'x', is trained too" in extra_token({1}, ["E", "x"], "E")
    assert "after" not in extra_token({2, 3}, ["E", "x"], "E")


@pytest.mark.base
def test_the_probes_of_the_notebook_measure_what_the_recorded_ones_do(sound):
    base, tokenizer = clinic.patient()
    batch = collate(clinic.sound_rows(tokenizer, [sound.pairs[i] for i in sound.first]), tokenizer.pad_token_id)  # fmt: skip
    labels = batch.pop("labels")
    with torch.no_grad():
        found = first_loss_ratio(sound.losses, base(**batch).logits, labels)
    assert found == pytest.approx(PROBES["first loss"].measure(sound), rel=1e-5)
    some = sound.pairs[:2]
    text = [reply.text for reply in sound.ask([pair["prompt"] for pair in some])]
    asked = [{"prompt": p["prompt"], "response": t} for p, t in zip(some, text, strict=True)]
    assert learned(lambda q: [reply.text for reply in sound.ask(q)], asked) == 1.0
    assert len(OWN) == 5 and LEARNED in OWN
    assert len(broken(list(SHOWN))) + len(broken(list(UNSEEN))) == 23 - 10  # told in the notebook


def test_tables_hold_every_probe_and_every_kind():
    runs = made_up(caught=True)
    shown = probes_table(runs).index.get_level_values(1)
    known = {NAMES.get(name, name) for name in PROBES}
    assert set(shown) == known | {STRICT, "the five of Build", "all"}
    assert len(shown) == len(PROBES) + 3
    assert list(probes_table(runs).loc["calibrated"].index) == ["stops", "learned", STRICT]
    assert list(cost_table(runs, SECOND).index) == list(SECOND)
    for run in runs:
        run["exact"] *= run["kind"] != "a system turn"
    told_ = cost_table(runs, SECOND)["exact, against the sound run"]
    assert told_["a system turn"].endswith("points (0% in every seed)")
    assert told_["no assistant header"].endswith(" to -70.0)")


def test_numbers_are_written_so_that_rounding_moves_no_digit():
    assert [told(v) for v in (1.0, 0.0, 3e-7, 0.59012, 8.0, 0.05342)] == ["1", "0", "0", "0.59", "8", "0.05"]  # fmt: skip


def test_the_figure_has_a_panel_for_every_run():
    use_style()
    ward = {name: Run([], [], None, None, None, [3.0, 1.0, 0.1]) for name in "ABCDE"}
    drawn = [axis for axis in loss_curves(ward).axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in drawn] == list("ABCDE")
    plt.close("all")


@pytest.mark.base
def test_the_explorer_answers_with_every_instrument_on_sound_and_merged_runs(monkeypatch, sound):
    shown = {}
    monkeypatch.setattr(explorers, "explorer", lambda c, d, w: shown.update(c, draw=d, words=w))
    ward = {"A": sound, "B": served_as(FIRST["merged without r"], sound)}
    explorers.examine_a_run(ward, "Where does the frog live?")
    assert list(shown["bed"].options) == ["A", "B"]
    for bed in ward:
        for instrument in shown["instrument"].options:
            drawn = shown["draw"](bed, instrument, "Where does the frog live?")
            assert hasattr(drawn, "text") or hasattr(drawn, "savefig"), instrument
    assert "Run B" in shown["words"]("B", "label counts", "")
    plt.close("all")
    with pytest.raises(WorkbookError, match="type a question"):
        shown["draw"]("A", "prompt and answer", " ")
