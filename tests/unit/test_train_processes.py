"""Runs from a file: killed and resumed, on two processes, and refused with one clear sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sftlab import pipeline, results
from sftlab._internal.paths import INSTRUCTIONS, ROOT
from sftlab.adapters import load_adapter
from sftlab.architectures import limits
from sftlab.data import write_jsonl
from sftlab.errors import WorkbookError
from sftlab.exercises.record import runs
from sftlab.formats import ReadingReport
from sftlab.lora import lora_layers
from sftlab.models import load
from sftlab.pipeline import load_examples, load_start, train_run
from sftlab.settings import read_run
from sftlab.train import sft_train

sys.path.insert(0, str(Path(__file__).parent))
import two_processes

LIMIT = 120  # seconds that a program may take before it counts as hanging
# The loss of one process against that of two: the same numbers, summed in another order. float32
# has 24 bits, so a sum is good to some 1e-7 of it, and a few steps carry that on.
TOLERANCE = 1e-5


@pytest.fixture
def folder(tmp_path, tokenizer, tiny_model):
    """A tiny model, ten rows of unequal length, and the settings of a run on them."""
    tiny_model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [
        {"prompt": f"What is {n} plus 1?", "response": f"It is {n + 1}. " * n} for n in range(1, 11)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    return tmp_path


def write_run(folder, name="run.json", **changes):
    run = {
        "model": "model",
        "data": "rows.jsonl",
        "adapter": {"target_modules": "all-linear", "r": 2, "lora_alpha": 4},
        "train": {"learning_rate": 0.01, "num_train_epochs": 2, "batch_size": 3},
        "output": name.removesuffix(".json"),
    } | changes
    run = {key: value for key, value in run.items() if value != "left out"}
    (folder / name).write_text(json.dumps(run))
    return folder / name


def environment(**more):
    """Without what a launcher around the tests may have set; gloo talks to this machine alone."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | more


def program(*arguments):
    """Run it to its end, within the limit."""
    found = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def same(first, second):
    """Equal to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


class TestFile:
    def test_trains_and_stores_an_adapter_that_can_be_loaded_anew(self, folder):
        history = train_run(read_run(write_run(folder)), progress=False)
        assert history.finished
        record = json.loads((folder / "run" / "history.json").read_text())
        assert record["losses"] == history.losses
        assert record["processes"] == 1
        fresh, _ = load(folder / "model")
        load_adapter(fresh, folder / "run" / "adapter")
        assert any(layer.B.any() for layer in lora_layers(fresh).values())

    def test_without_an_adapter_all_parameters_are_trained_and_the_model_is_stored(self, folder):
        train_run(read_run(write_run(folder, adapter=None)), progress=False)
        before, after = load(folder / "model")[0], load(folder / "run" / "model")[0]
        pairs = zip(before.parameters(), after.parameters(), strict=True)
        assert not any(torch.equal(a, b) for a, b in pairs)

    def test_the_committed_file_is_whole(self, tokenizer):
        run = read_run(ROOT / "configs" / "sft.json")
        assert Path(run.data).resolve() == INSTRUCTIONS / "pairs.jsonl"
        assert (
            len(load_examples(run, tokenizer, ReadingReport(run.data), limits(load_start(run)[0])))
            >= 200
        )

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"ouput": "x"}, r'run\.json: unknown setting "ouput"; did you mean "output"\?'),
            ({"train": {"learning_rat": 1}}, r'"train": unknown setting "learning_rat"; did you mean "learning_rate"\?'),
            ({"adapter": {"rank": 8}}, r'"adapter": unknown setting "rank"; .*Known: target_modules, r, lora_alpha, lora_dropout'),
            ({"zebra": 1}, r'unknown setting "zebra"; Known: model, data'),
            ({"data": "left out"}, 'the setting "data" is missing'),
            ({"train": {"num_train_epochs": "8"}}, r'"train": "num_train_epochs" is "8"; expected a valid integer'),
            ({"train": {"num_train_epochs": True}}, r'"train": "num_train_epochs" is true; expected a valid integer'),
            ({"train": {"num_train_epochs": 0}}, r"run\.json: num_train_epochs is 0; it must be at least 1"),
            ({"train": {"precision": "fp8"}}, "precision is 'fp8'; use one of auto, fp32, bf16"),
            ({"train": [1]}, r'"train" is \[1\]; expected an object'),
            ({"adapter": 8}, '"adapter" is 8; expected an object or null'),
            ({"model": 3}, '"model" is 3; expected a valid string'),
            ({"max_length": 1.5}, r'"max_length" is 1\.5; expected a valid integer or null'),
        ],
    )  # fmt: skip
    def test_a_setting_that_cannot_be_is_named(self, folder, changes, told):
        with pytest.raises(WorkbookError, match=told):
            read_run(write_run(folder, **changes))

    def test_files_that_cannot_be_read_are_named(self, folder):
        with pytest.raises(WorkbookError, match=r"nowhere\.json cannot be read: No such file"):
            read_run(folder / "nowhere.json")
        (folder / "half.json").write_text('{"model": ')
        with pytest.raises(WorkbookError, match=r"half\.json is no valid JSON"):
            read_run(folder / "half.json")
        (folder / "list.json").write_text("[]")
        with pytest.raises(WorkbookError, match=r"list\.json: expected an object in braces"):
            read_run(folder / "list.json")
        with pytest.raises(WorkbookError, match=r"gone\.jsonl is no file; expected a JSONL file"):
            train_run(read_run(write_run(folder, data="gone.jsonl")), progress=False)
        with pytest.raises(WorkbookError, match=r"\(\d+ tokens\): more tokens than max_length"):
            train_run(read_run(write_run(folder, max_length=5)), progress=False)

    def test_a_result_that_cannot_be_written_is_told_in_one_sentence(self, folder, monkeypatch):
        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(results, "save_adapter", full)
        with pytest.raises(WorkbookError, match=r"result cannot be written .*No space left.*kept"):
            train_run(read_run(write_run(folder)), progress=False)

    def test_the_command_tells_its_errors_without_a_traceback(self, folder, capsys):
        assert pipeline.main([str(write_run(folder, data="gone.jsonl"))]) == 1
        told = capsys.readouterr().err
        assert "gone.jsonl is no file" in told
        assert "Traceback" not in told


@pytest.mark.slow
def test_a_killed_program_goes_on_to_the_very_same_weights(folder):
    """SIGKILL gives a program no chance to tidy up: what counts is what lies on the disk."""
    train = {"learning_rate": 0.003, "num_train_epochs": 50, "batch_size": 3, "save_steps": 1}
    adapter_with_dropout = {
        "target_modules": "all-linear",
        "r": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.3,
    }
    settings = {"train": train, "adapter": adapter_with_dropout}
    steps = 200
    command = [
        sys.executable,
        "-m",
        "sftlab",
        "train",
        str(write_run(folder, "killed.json", **settings)),
    ]
    checkpoint = folder / "killed" / "checkpoint.pt"
    running = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + LIMIT
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
    finally:
        running.kill()
    assert running.wait(LIMIT) == -signal.SIGKILL
    done = len(torch.load(checkpoint, weights_only=True)["history"]["losses"])
    assert 0 < done < steps

    program("sftlab", "train", folder / "killed.json")
    program("sftlab", "train", write_run(folder, "straight.json", **settings))
    resumed, straight = (
        json.loads((folder / name / "history.json").read_text()) for name in ("killed", "straight")
    )
    assert len(straight["losses"]) == steps
    assert resumed["losses"] == straight["losses"]
    assert same(adapter(folder / "killed"), adapter(folder / "straight"))


@pytest.mark.slow
def test_two_processes_compute_what_one_does(folder):
    """In float64 nothing but the order of the sums is left to differ."""
    arguments = (folder / "model", folder / "rows.jsonl")
    program(
        "torch.distributed.run", "--standalone", "--nproc_per_node", 2,
        two_processes.__file__, *arguments, folder,
    )  # fmt: skip
    first, second = (torch.load(folder / f"process{n}.pt", weights_only=True) for n in (0, 1))
    alone = two_processes.outcomes(*map(str, arguments))
    for name, expected in alone.items():
        assert first[name]["losses"] == pytest.approx(expected["losses"], rel=1e-10), name
        assert first[name]["tokens"] == expected["tokens"], name
        assert first[name]["losses"] == second[name]["losses"], name
        assert same(first[name]["weights"], second[name]["weights"]), name
        for which, weight in expected["weights"].items():
            torch.testing.assert_close(first[name]["weights"][which], weight, rtol=0, atol=1e-7)


@pytest.mark.thorough
def test_accelerate_launches_the_run_on_two_processes(folder):
    found = program(
        "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--num_machines", 1,
        "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", 0,
        "-m", "sftlab", "train", write_run(folder, "two.json"),
    )  # fmt: skip
    assert "2 process(es) on cpu" in found.stderr
    record = json.loads((folder / "two" / "history.json").read_text())
    assert record["processes"] == 2
    alone = train_run(read_run(write_run(folder, "one.json")), progress=False)
    assert record["trained_tokens"] == alone.tokens
    assert record["losses"] == pytest.approx(alone.losses, rel=TOLERANCE)


@pytest.mark.base
class TestRecordedRuns:
    def test_the_recorded_losses_are_those_of_the_file(self):
        """The first five steps, recomputed."""
        recorded = runs("several_processes")
        run = read_run(ROOT / "configs" / "sft.json")
        model, tokenizer = load_start(run)
        rows = load_examples(run, tokenizer, ReadingReport(run.data), limits(model))
        found = sft_train(model, rows, run.train, progress=False, stop_after_steps=5).losses
        for entry in recorded:
            assert entry["losses_of_one"][:5] == pytest.approx(found, rel=1e-3)

    def test_several_processes_kept_to_the_trajectory_of_one(self):
        recorded = runs("several_processes")
        assert [entry["processes"] for entry in recorded] == [2, 3]
        for entry in recorded:
            assert entry["losses"] == pytest.approx(entry["losses_of_one"], rel=TOLERANCE)
            assert entry["largest_relative_difference"] < TOLERANCE
