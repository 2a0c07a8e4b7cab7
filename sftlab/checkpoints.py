"""Checkpoints of a training run: written atomically, and resumed only by the run they belong to."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryFile

import torch

from sftlab.distributed import rank_and_world_size
from sftlab.errors import WorkbookError
from sftlab.run_identity import differences, digest, environment_differences


def check_folder(setting: str, folder: str | Path) -> None:
    """Create the folder of a run if it does not exist, and check that it is writable.

    Args:
        setting: name of the setting, used in the error message.

    Raises:
        WorkbookError: the path is a file, or the folder cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = (
            "it is a file"
            if isinstance(error, FileExistsError)
            else getattr(error, "strerror", None) or error
        )
        raise WorkbookError(
            f"{setting} is {folder}, which cannot be written to ({reason}); name a folder, new or not"
        ) from None


def folder_problem(folder: str | Path) -> str | None:
    """Return why a folder could not be written to, without creating it; None if it could."""
    place = Path(folder)
    try:
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            return f"{place} is a file"
    except (OSError, ValueError) as error:  # ValueError: a null character
        return getattr(error, "strerror", None) or str(error)
    return None if os.access(place, os.W_OK) else f"{place} is not writable"


def save_checkpoint(
    path: Path,
    trainable: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    history: dict,
    run: dict,
) -> None:
    """Write a checkpoint atomically: a full disk, a kill or an interrupt leaves no partial file.

    The data goes to a temporary file, which then replaces the old checkpoint. At any moment the
    path refers to a complete checkpoint, the old one or the new one.

    Raises:
        WorkbookError: the checkpoint cannot be written.
    """
    state = {
        **run,
        "parameters": {name: p.detach() for name, p in trainable.items()},
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, new)
        with open(new, "rb+") as file:
            os.fsync(file.fileno())  # written to disk before it replaces the old file
        os.replace(new, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        try:
            new.unlink(missing_ok=True)
        except OSError:
            pass
        reason = str(error).splitlines()[0]
        kept = "; the checkpoint before it is still there" if path.exists() else ""
        raise WorkbookError(
            f"the checkpoint after {len(history['losses'])} steps cannot be written to {path} "
            f"({reason}){kept}: free some space or choose another folder, then run again"
        ) from error


def load_checkpoint(
    path: Path,
    trainable: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    run: dict,
    starts: Collection[str] = (),
) -> tuple[dict, dict]:
    """Restore parameters and optimizer state from a checkpoint.

    Args:
        run: the run to resume, as in ``save_checkpoint``; see ``run_identity.describe``.
        starts: digests of the parameters with which this process started earlier runs of the model.

    Returns:
        The fields of the history, and the run stored in the checkpoint in today's environment. If
        that is another one (versions, device, threads), a line on standard error says so.

    Raises:
        WorkbookError: the checkpoint is damaged, belongs to another run (the message lists the
            settings that differ), or was written by the first edition, which stored too little to
            tell. Nothing is changed in these cases.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        parameters = state["parameters"]
        history, moments = dict(state["history"]), state["optimizer"]
        first_edition = "config" in state
        found = {} if first_edition else {key: dict(state[key]) for key in ("identity", "names")}
        environment = dict(state.get("environment", {}))
    except Exception as error:  # a damaged archive can raise any exception
        raise WorkbookError(
            f"{path} is damaged and cannot be read; remove it and train from the beginning"
        ) from error
    if first_edition:
        raise WorkbookError(
            f"{path} is a checkpoint of the first edition, which noted neither the adapter's settings "
            "nor the base, so that nothing tells whether it belongs to this run; remove it or "
            "choose another folder, and train from the beginning"
        )
    wanted = {**run["identity"]}
    # The parameters belong to the checkpoint's run if they equal the stored ones or have the
    # same initial values.
    if found["identity"]["start"] in starts or digest(parameters) == digest(trainable):
        wanted["start"] = found["identity"]["start"]
    here = run.get("environment", {})
    libraries = {"transformers", "peft"} & {*environment, *here}
    same = bool(environment) and all(environment.get(n) == here.get(n) for n in libraries)
    if told := differences(found["identity"], wanted, found["names"], run["names"], same):
        raise WorkbookError(
            f"{path} belongs to another run ({'; '.join(told)}): to go on with that run, set back "
            "what differs; to begin a new one, remove the file or choose another folder"
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(parameters[name])
    # The optimizer numbers its parameters. Another version may hold them in another order.
    numbers = {name: number for number, name in enumerate(parameters)}
    moved = {n: moments["state"].get(numbers[name]) for n, name in enumerate(trainable)}
    moments["state"] = {number: state for number, state in moved.items() if state is not None}
    optimizer.load_state_dict(moments)
    note = environment_differences(environment, here, "dropout" in found["identity"])
    if note and rank_and_world_size()[0] == 0:
        print(note, file=sys.stderr)
    return history, found | {"environment": here}
