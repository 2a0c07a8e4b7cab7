"""The clinic's runs: every fault moves its own figure, and nothing moves a sound run's."""

from __future__ import annotations

import copy

import pytest
import torch

from sftlab.exercises.ex23_broken_runs_clinic import clinic, experiment
from sftlab.exercises.ex23_broken_runs_clinic.clinic import (
    FAULTS,
    HEALTHY,
    Run,
    admit,
    fault_of,
    served,
    trained,
    trained_on,
)
from sftlab.exercises.ex23_broken_runs_clinic.evidence import SOUND, diagnose, figures
from sftlab.exercises.ex23_broken_runs_clinic.repairs import (
    drop,
    fit_names,
    micro_batch_weights,
    repair_merge,
    repair_row,
    serving_prompt,
)
from sftlab.exercises.record import runs
from sftlab.loss import IGNORE_INDEX, accumulated_loss
from sftlab.masking import Example

ROWS = [Example([7, 1, 2, 3, 9], [IGNORE_INDEX, IGNORE_INDEX, 2, 3, 9])]


def test_faults_of_rows_leave_the_sound_rows_alone():
    before = copy.deepcopy(ROWS)
    assert clinic.train_everything(ROWS)[0].labels == [7, 1, 2, 3, 9]
    assert clinic.mask_the_padding_id(ROWS, 9)[0].labels == [
        IGNORE_INDEX,
        IGNORE_INDEX,
        2,
        3,
        IGNORE_INDEX,
    ]
    assert clinic.begin_twice(ROWS)[0].input_ids == [7, 7, 1, 2, 3, 9]
    assert clinic.shift_labels(ROWS)[0].labels == [IGNORE_INDEX, 2, 3, 9, IGNORE_INDEX]
    assert clinic.cut_rows(ROWS)[0] == Example([7, 1, 2], [IGNORE_INDEX, IGNORE_INDEX, 2])
    assert before == ROWS


def test_each_bed_has_a_fault_of_its_own_and_one_is_healthy():
    assert sorted(map(fault_of, clinic.BEDS)) == sorted(FAULTS)


def test_the_template_writes_the_begin_token_once():
    _, tokenizer = clinic.patient()
    for row in clinic.sound_rows(tokenizer):
        assert row.input_ids.count(tokenizer.bos_token_id) == 1 == row.input_ids[:1].count(0)


@pytest.fixture(scope="module")
def sound() -> Run:
    """The healthy run, stopped after two steps: figures do not need more."""
    return trained(HEALTHY, steps=2)


@pytest.mark.base
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_its_figures_even_after_two_steps(fault, sound):
    run = trained(fault, steps=2) if FAULTS[fault] not in ("", "serving") else served(sound, fault)
    seen = figures(run)
    assert list(seen) == list(SOUND)
    assert diagnose(seen)[0] == fault
    if fault == HEALTHY:
        assert seen == pytest.approx(SOUND, abs=1e-5)


@pytest.mark.base
def test_the_same_seed_trains_the_same_run_and_serving_changes_none_of_it(sound):
    weights = {name: p.clone() for name, p in sound.model.named_parameters()}
    for fault, where in FAULTS.items():
        if where == "serving":
            assert served(sound, fault).losses == sound.losses
    assert all(torch.equal(p, weights[n]) for n, p in sound.model.named_parameters())
    again = trained_on(sound.rows, accumulated_loss, steps=2)
    assert again.losses == sound.losses


@pytest.mark.base
def test_a_ward_of_two_shares_one_training(monkeypatch):
    monkeypatch.setattr(
        clinic, "CONFIG", clinic.TrainConfig(max_steps=2, num_train_epochs=1, batch_size=32)
    )
    ward = admit(beds="BG")
    assert ward["B"].losses == ward["G"].losses and ward["B"].model is not ward["G"].model


@pytest.mark.base
class TestRepairs:
    """The package's repairs make the sick run's figures those of a sound one."""

    def test_of_rows(self, sound):
        _, tokenizer = clinic.patient()
        rows = []
        for pair in clinic.pairs():
            prompt = sound.prompt(pair["prompt"])
            answer = tokenizer.encode(pair["response"], add_special_tokens=False)
            rows.append(repair_row([prompt[0], *prompt], answer, prompt[0], 2, 80))
        for (ids, labels), row in zip(rows, sound.rows, strict=True):
            assert (ids, labels) == (row.input_ids[: len(ids)], row.labels[: len(ids)])
        assert repair_row([1, 1, 5], [6], 1, 2, 3) is None

    def test_of_the_merge(self, sound):
        sick = served(sound, "wrong factor in the merge")
        for name in {key.rpartition(".")[0] for key in sick.adapter}:
            weight = sick.model.get_submodule(name).weight
            A, B = (sick.adapter[f"{name}.{matrix}"] for matrix in "AB")
            weight.data = repair_merge(weight.data, A, B, clinic.ALPHA, clinic.R)
        assert figures(sick)["strength"] == pytest.approx(1, abs=1e-3)

    def test_of_the_prompt(self, sound):
        _, tokenizer = clinic.patient()
        question = clinic.pairs()[0]["prompt"]
        assert serving_prompt(tokenizer, question) == sound.prompt(question)


def test_micro_batch_weights_sum_to_one():
    assert micro_batch_weights([7, 34, 0]) == [7 / 41, 34 / 41, 0]


def test_names_fit_by_their_ends_and_the_rest_is_told():
    assert fit_names(["m.h.1.A", "m.x"], ["h.1.A", "h.2.A"]) == ({"m.h.1.A": "h.1.A"}, ["h.2.A"], ["m.x"])  # fmt: skip


def test_dropout_by_hand_keeps_the_mean_and_ends_with_the_training():
    x = torch.full((200, 200), 2.0)
    assert drop(x, 0.4, False) is x
    dropped = drop(x, 0.4, True)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.02)
    assert dropped.mean().item() == pytest.approx(2, abs=0.05)


# --- the recorded runs ---------------------------------------------------------------------------------


def test_every_fault_is_recorded_for_every_seed():
    found = runs("clinic")
    assert {(r["fault"], r["seed"]) for r in found} == {
        (s["fault"], s["seed"]) for s in experiment.settings()
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_the_recorded_figures_tell_the_fault(fault):
    for run in runs("clinic", fault=fault):
        assert diagnose(run["figures"])[0] == fault


@pytest.mark.base
@pytest.mark.parametrize("fault", [HEALTHY, "another family's template"])
def test_a_run_measured_again_gives_what_is_recorded(fault):
    (recorded,) = runs("clinic", fault=fault, seed=0)
    found = experiment.run(fault, 0)
    for line in ("exact", "content", "stops"):  # last digits of training differ between processors
        assert found[line] == pytest.approx(recorded[line], abs=0.06), line
    assert found["losses"] == pytest.approx(recorded["losses"], rel=0.05, abs=0.05)
    assert found["figures"] == pytest.approx(recorded["figures"], abs=0.02)
