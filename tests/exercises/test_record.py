"""Recorded runs: resumed, never half written, never mixed with those of another base model."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal

import pytest

from sftlab.errors import WorkbookError
from sftlab.exercises import record
from sftlab.exercises.record import key, read, results_path, runs, sweep, write
from sftlab.exercises.recording import main, names

SETTINGS = [{"size": size, "seed": seed} for size in (8, 32) for seed in (0, 1)]


@pytest.fixture(autouse=True)
def a_base(monkeypatch):
    monkeypatch.setattr(record, "checksums", lambda: {record.MODEL: "0123456789abcdef0123"})


class Measured:
    """A run that notes what it was called with, and stops where it is told to."""

    def __init__(self, stop_at: int | None = None, error: type[BaseException] = KeyboardInterrupt):
        self.calls: list[dict] = []
        self.stop_at, self.error = stop_at, error

    def __call__(self, **settings):
        if len(self.calls) == self.stop_at:
            raise self.error
        self.calls.append(settings)
        return {"score": settings["size"] + settings["seed"] / 3}


def test_every_setting_is_run_once_and_kept(tmp_path):
    run = Measured()
    found = sweep("trial", SETTINGS, run, tmp_path, progress=False)
    assert run.calls == SETTINGS
    assert found == runs("trial", tmp_path)
    assert found[1] == {"size": 8, "seed": 1, "score": 8.33333}


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path):
    first, second = Measured(stop_at=3), Measured()
    assert len(sweep("trial", SETTINGS, first, tmp_path, progress=False)) == 3
    assert len(sweep("trial", SETTINGS, second, tmp_path, progress=False)) == 4
    assert second.calls == SETTINGS[3:]


def test_after_an_error_the_runs_before_it_are_kept(tmp_path):
    with pytest.raises(ZeroDivisionError):
        sweep("trial", SETTINGS, Measured(2, ZeroDivisionError), tmp_path, progress=False)
    assert len(runs("trial", tmp_path)) == 2


def test_a_finished_sweep_runs_nothing_and_leaves_the_file_as_it_is(tmp_path):
    sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)
    before = results_path("trial", tmp_path).read_bytes()
    again = Measured()
    sweep("trial", SETTINGS, again, tmp_path, progress=False)
    assert not again.calls
    assert results_path("trial", tmp_path).read_bytes() == before


def test_more_settings_are_added_to_a_file(tmp_path):
    sweep("trial", SETTINGS[:1], Measured(), tmp_path, progress=False)
    run = Measured()
    assert len(sweep("trial", SETTINGS, run, tmp_path, progress=False)) == 4
    assert run.calls == SETTINGS[1:]


def test_the_order_in_which_settings_are_named_does_not_matter(tmp_path):
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    sweep("trial", [{"size": 8, "seed": 0}], Measured(), tmp_path, progress=False)
    run = Measured()
    sweep("trial", [{"seed": 0, "size": 8}], run, tmp_path, progress=False)
    assert not run.calls


def test_a_write_that_fails_leaves_the_file_before_it(tmp_path, monkeypatch):
    sweep("trial", SETTINGS[:2], Measured(), tmp_path, progress=False)
    before = results_path("trial", tmp_path).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WorkbookError, match=r"No space left.*free some space"):
        sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)
    assert results_path("trial", tmp_path).read_bytes() == before
    assert list(tmp_path.iterdir()) == [results_path("trial", tmp_path)]


DAMAGES = {
    "cut": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "no runs": lambda text: '{"provenance": []}',
    "a run without a result": lambda text: text.replace('"result"', '"outcome"'),
    "a run of no sitting": lambda text: text.replace('"sitting": 0', '"sitting": 7'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_reported_and_not_overwritten(damage, tmp_path):
    sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)
    path = results_path("trial", tmp_path)
    path.write_text(damage(path.read_text()))
    before = path.read_bytes()
    for attempt in (
        lambda: read("trial", tmp_path),
        lambda: sweep("trial", SETTINGS, Measured(), tmp_path, progress=False),
    ):
        with pytest.raises(WorkbookError, match=r"trial\.json .* is damaged: restore it with"):
            attempt()
    assert path.read_bytes() == before


def test_a_missing_file_says_how_to_record_it(tmp_path):
    with pytest.raises(WorkbookError, match="sftlab record trial"):
        runs("trial", tmp_path)


def test_runs_are_chosen_by_their_settings(tmp_path):
    sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)
    assert [run["size"] for run in runs("trial", tmp_path, seed=1)] == [8, 32]
    with pytest.raises(WorkbookError, match="no run with"):
        runs("trial", tmp_path, seed=5)


def test_runs_of_another_base_are_not_mixed_in(tmp_path, monkeypatch):
    sweep("trial", SETTINGS[:1], Measured(), tmp_path, progress=False)
    monkeypatch.setattr(record, "checksums", lambda: {record.MODEL: "f" * 64})
    with pytest.raises(WorkbookError, match="another almanac-base"):
        sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)


def test_the_same_settings_twice_are_an_error(tmp_path):
    with pytest.raises(WorkbookError, match="same settings"):
        sweep("trial", [SETTINGS[0], dict(SETTINGS[0])], Measured(), tmp_path, progress=False)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_is_not_recorded(value, tmp_path):
    with pytest.raises(WorkbookError, match="measured"):
        sweep("trial", SETTINGS, lambda **_: {"score": value}, tmp_path, progress=False)
    assert not results_path("trial", tmp_path).exists()


def test_the_file_says_where_its_runs_come_from(tmp_path):
    sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)
    found = read("trial", tmp_path)
    (sitting,) = found["provenance"]
    assert set(sitting) == {"command", "commit", "versions", "machine", "date", "base", "code"}
    assert all(run["sitting"] == 0 for run in found["runs"])


def test_a_second_sitting_has_its_own_provenance(tmp_path, monkeypatch):
    sweep("trial", SETTINGS[:1], Measured(), tmp_path, progress=False)
    later = {**record.provenance("sftlab.exercises"), "date": "2031-01-01"}
    monkeypatch.setattr(record, "provenance", lambda module: later)
    sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)
    found = read("trial", tmp_path)
    assert [run["sitting"] for run in found["runs"]] == [0, 1, 1, 1]


def test_a_file_has_one_run_a_line(tmp_path):
    write(tmp_path / "trial.json", {"provenance": [], "runs": [{"settings": {}}, {"settings": {}}]})
    text = (tmp_path / "trial.json").read_text()
    assert json.loads(text)["runs"] == [{"settings": {}}, {"settings": {}}]
    assert text.count("\n") == 5


def test_the_list_says_what_each_experiment_measures(capsys):
    assert main(["--list"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == names()
    assert all(len(line.split()) > 4 for line in told)


def test_an_unknown_experiment_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["no_such_experiment"])
    assert "no_such_experiment" in capsys.readouterr().err


def test_modules_that_help_experiments_are_none_and_refused_by_name(capsys):
    assert {"lora_init", "several_processes"} <= set(names())
    assert not {"recipes", "record", "recording"} & set(names())
    for name in names():
        module = importlib.import_module(record.modules()[name])
        assert name == module.RECORD
        assert module.settings() and callable(module.run)
    with pytest.raises(SystemExit):
        main(["recipes"])
    told = capsys.readouterr().err
    assert "'recipes'" in told and "'lora_init'" in told


def test_a_run_that_swallows_an_interrupt_is_not_kept(tmp_path, interruptible):
    """As a training does: it ends early and quietly, and a half-trained model would be measured."""

    def run(size, seed):
        try:
            if size == 16:
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        return {"value": 1.0}

    settings = [{"size": 8, "seed": 0}, {"size": 16, "seed": 0}, {"size": 32, "seed": 0}]
    found = sweep("trial", settings, run, tmp_path, progress=False)
    assert [entry["size"] for entry in found] == [8]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class TestOlderThanTheCode:
    """A record is as new as the code that measured it, or that measured a part of it again."""

    @pytest.fixture
    def code(self, monkeypatch):
        now = {"sftlab.loss": "1"}
        monkeypatch.setattr(record, "code_behind", lambda _: dict(now))
        monkeypatch.setattr(record, "modules", lambda: {"trial": "sftlab.trial"})
        return now

    def test_a_new_record_is_not_older(self, tmp_path, code):
        sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)
        assert record.older_than("trial", tmp_path) == []

    def test_the_changed_module_is_named_until_the_runs_are_confirmed(self, tmp_path, code):
        sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)
        code["sftlab.loss"] = "2"
        assert record.older_than("trial", tmp_path) == ["sftlab.loss"]
        assert record.confirm("trial", SETTINGS[:1], Measured(), tmp_path) == 0
        assert record.older_than("trial", tmp_path) == []
        assert read("trial", tmp_path)["confirmed"]["runs"] == 1
        code["sftlab.lora"] = "1"
        assert record.older_than("trial", tmp_path) == ["sftlab.lora"]

    def test_runs_added_by_newer_code_do_not_make_the_others_newer(self, tmp_path, code):
        sweep("trial", SETTINGS[:2], Measured(), tmp_path, progress=False)
        code["sftlab.loss"] = "2"
        sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)
        assert record.older_than("trial", tmp_path) == ["sftlab.loss"]

    def test_a_run_that_comes_out_otherwise_confirms_nothing(self, tmp_path, code):
        sweep("trial", SETTINGS, Measured(), tmp_path, progress=False)
        before = results_path("trial", tmp_path).read_bytes()
        with pytest.raises(WorkbookError, match=r"lies 0\.125 apart"):
            record.confirm("trial", SETTINGS[:1], lambda **_: {"score": 9}, tmp_path)
        with pytest.raises(WorkbookError, match="apart"):
            record.confirm("trial", SETTINGS[:1], lambda **_: {"other": 8}, tmp_path)
        with pytest.raises(WorkbookError, match="record it first"):
            record.confirm("trial", [{"size": 1}], Measured(), tmp_path)
        assert results_path("trial", tmp_path).read_bytes() == before

    def test_seconds_are_not_confirmed_and_parts_of_a_result_are(self):
        stored = {"losses": [2.0, 0.5], "correct": "1101", "seconds": 3.0, "why": None}
        assert record._apart(stored, {**stored, "seconds": 9.0}) == 0
        assert record._apart(stored, {**stored, "losses": [2.2, 0.5]}) == pytest.approx(0.1)
        assert record._apart(stored, {**stored, "correct": "1100"}) == 0.25
        assert record._apart(stored, {**stored, "losses": [2.0]}) == math.inf
        assert record._apart(stored, {**stored, "why": "so"}) == math.inf
