"""Real models: what was recorded on them, what notebooks say on them, and settings that suit them."""

from __future__ import annotations

import nbformat
import pytest

from sftlab.classroom import catalogue, progress
from sftlab.classroom.catalogue import NOTEBOOKS
from sftlab.classroom.progress_overview import start
from sftlab.errors import WorkbookError
from sftlab.exercises.ex13_before_after_sft.plots import continues, share
from sftlab.exercises.ex21_qlora_finetuning.plots import real_ratio, real_table
from sftlab.exercises.real_models import EMBEDDED, GEMMA, SMOL, run, settings
from sftlab.exercises.real_models import questions as real_questions
from sftlab.exercises.recipes import fewer, suited
from sftlab.exercises.record import MODEL, read, runs
from sftlab.fetch import PACKAGES, model_folder
from sftlab.models import checksums
from sftlab.scoring import RUBRIC, score_answer
from sftlab.train import TrainConfig
from tools.notebook_metadata import KERNELSPEC
from tools.other_models import main, try_notebook, with_model

NAME = "real_models"
fetched = [
    pytest.mark.slow,
    pytest.mark.skipif(not model_folder(SMOL).is_dir(), reason=f"{SMOL} was not fetched"),
]


class TestSettings:
    def test_a_small_model_keeps_its_settings_and_a_large_one_gets_gentler_ones(self, tiny_model):
        config = TrainConfig(learning_rate=3e-3, num_train_epochs=12, batch_size=16, seed=4)
        assert suited(config, tiny_model) is config
        assert fewer(200, tiny_model) == 200

        class Large:
            @staticmethod
            def num_parameters():
                return 135_000_000

        found = suited(config, Large)
        assert (found.learning_rate, found.num_train_epochs, found.batch_size) == (1e-3, 3, 8)
        assert found.seed == 4
        assert suited(TrainConfig(num_train_epochs=1, batch_size=1), Large).num_train_epochs == 1
        assert [fewer(n, Large) for n in (250, 100, 20)] == [50, 20, 10]


class TestWhatNotebooksSay:
    def test_on_the_embedded_model_nothing_is_added(self):
        assert all(catalogue.on_model(f"{n:02d}", "almanac-base") == [] for n in range(25))

    def test_on_another_one_the_minutes_are_said_before_anything_runs(self, capsys):
        start("13", model=SMOL)
        assert f"MODEL is {SMOL}: on two cores this notebook takes about" in capsys.readouterr().out
        start("18", model=SMOL)
        assert "minutes" not in capsys.readouterr().out

    def test_what_cannot_run_says_in_one_sentence_what_it_lacks(self):
        for number in ("02", "23"):
            with pytest.raises(WorkbookError, match="does not run on") as told:
                start(number, model=SMOL)
            assert "\n" not in str(told.value)

    def test_a_copy_differs_in_its_model_alone(self):
        path = next(NOTEBOOKS.glob("13_*.ipynb"))
        mine, theirs = (with_model(path, name) for name in ("almanac", "a/folder's name"))
        changed = [
            (a.source, b.source)
            for a, b in zip(mine.cells, theirs.cells, strict=True)
            if a.source != b.source
        ]
        ((before, after),) = changed
        assert 'MODEL = "almanac"' in before
        assert 'MODEL = "a/folder\'s name"' in after

    @pytest.mark.parametrize(
        ("code", "state", "said"),
        [
            ("assert MODEL == 'other'", "runs", ""),
            ("from sftlab.errors import WorkbookError\nraise WorkbookError('it lacks a base')",
             "lacks", "it lacks a base"),
            ("1 / 0", "fails", "ZeroDivisionError"),
        ],
    )  # fmt: skip
    def test_a_copy_is_kept_by_what_came_of_it(self, code, state, said, tmp_path):
        first = nbformat.v4.new_code_cell("MODEL = 'almanac'", metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(
            cells=[first, nbformat.v4.new_code_cell(code)], metadata={"kernelspec": KERNELSPEC}
        )
        nbformat.write(notebook, tmp_path / "one.ipynb")
        found, told = try_notebook(tmp_path / "one.ipynb", "other", tmp_path / "kept")
        assert found == state and said in told
        assert [p.name for p in (tmp_path / "kept").iterdir()] == [f"one.{state}.ipynb"]

    def test_a_copy_leaves_the_students_progress_alone(self, tmp_path):
        code = "from sftlab.classroom import predict\npredict('13.a', '?', ['a', 'b'], answer='a')"
        first = nbformat.v4.new_code_cell("MODEL = 'almanac'", metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(
            cells=[first, nbformat.v4.new_code_cell(code)], metadata={"kernelspec": KERNELSPEC}
        )
        nbformat.write(notebook, tmp_path / "one.ipynb")
        assert try_notebook(tmp_path / "one.ipynb", "other", tmp_path / "kept")[0] == "runs"
        assert not progress.progress_path().exists()

    def test_the_tool_runs_copies_keeps_them_and_goes_on(self, tmp_path, monkeypatch, capsys):
        from tools import other_models

        states = {"a": ("runs", ""), "b": ("lacks", "it lacks a base"), "c": ("fails", "cell 3")}
        for name in states:
            (tmp_path / f"{name}.ipynb").write_text("{}")
        asked = []

        def pretend(path, model, folder):
            asked.append(path.stem)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{path.stem}.{states[path.stem][0]}.ipynb").write_text("{}")
            return states[path.stem]

        monkeypatch.setattr(other_models, "ROOT", tmp_path)
        monkeypatch.setattr(other_models, "try_notebook", pretend)
        arguments = [SMOL, *(str(tmp_path / f"{name}.ipynb") for name in states)]
        assert main(arguments) == 1
        told = capsys.readouterr().out
        assert "lacks  it lacks a base" in told
        assert "fails  cell 3" in told
        main(arguments)
        assert asked == ["a", "b", "c", "c"]


class TestFigures:
    def test_shares_of_the_first_answers(self):
        runs = [{"content": "1100"}, {"content": "1000"}]
        assert share(runs, "content") == pytest.approx(3 / 8)
        assert continues([{"bare": {"answered": 1, "continued": 3, "stopped": 0}}]) == 0.75

    def test_rows_of_the_4_bit_table(self):
        run = {"bytes": {"linear": [160, 40], "whole": [200, 80]}, "untuned": 2.0, "nll": 1.5}
        run |= {"model": "m", "stored": "nf4", "seed": 0}
        plain = run | {"stored": "bf16", "nll": 1.0, "bytes": {"linear": [9, 9], "whole": [9, 9]}}
        assert real_table([plain, run]).to_numpy().tolist() == [
            ["1.0×", "1.0×", "2.00", "1.00"],
            ["4.0×", "2.5×", "2.00", "1.50"],
        ]
        assert real_ratio([plain, run], "m") == 1.5


# --- the recorded file -----------------------------------------------------------------------


def test_it_is_complete_and_of_these_models():
    recorded = read(NAME)
    done = [entry["settings"] for entry in recorded["runs"]]
    assert sorted(map(str, done)) == sorted(map(str, settings()))
    assert all(s["base"] == checksums()[MODEL][:16] for s in recorded["provenance"])
    for found in runs(NAME):
        if found["model"] in PACKAGES:
            assert found["weights"] == PACKAGES[found["model"]].member_sha256[:16]


def test_what_notebook_13_says_of_gemma_holds():
    found = {run["count"]: run for run in runs(NAME, kind="first", model=GEMMA, seed=0)}
    for line in ("format", "stops"):
        assert share([found[0]], line) == 0
        assert share([found[32]], line) == 1
    assert 0.4 < continues([found[0]]) < 0.6
    assert all(0.3 < share([found[n]], "content") < 0.5 for n in (32, 64))
    asked = real_questions()
    for run_ in found.values():
        for place, text in enumerate(run_["answers"]):
            score = score_answer(asked[place], text, run_["stops"][place] == "1")
            assert all(getattr(score, line) == (run_[line][place] == "1") for line in RUBRIC)


def test_4_bits_keep_gradients_and_logits_on_every_model():
    for found in runs(NAME, kind="qlora"):
        assert found["gradients_kept"]
        assert found["logits_kept"]
        whole = found["bytes"]["whole"]
        assert (whole[0] > 2 * whole[1]) == (found["stored"] == "nf4")


@pytest.mark.base
@pytest.mark.thorough
def test_the_embedded_model_in_4_bits_is_as_recorded():
    (recorded,) = runs(NAME, kind="qlora", model=EMBEDDED, stored="nf4", seed=0)
    found = run("qlora", EMBEDDED, stored="nf4", seed=0)
    assert found["bytes"] == recorded["bytes"]
    assert found["untuned"] == pytest.approx(recorded["untuned"], rel=0.01)
    assert found["nll"] == pytest.approx(recorded["nll"], abs=0.05)
    assert found["answer"] == recorded["answer"]
