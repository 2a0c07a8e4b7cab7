"""Checkpoints of a training run: written whole or not at all, taken up only by the run they are of."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryFile

import torch

from sftlab.errors import WorkbookError
from sftlab.run_identity import differences, digest


def check_folder(setting: str, folder: str | Path) -> None:
    """Make the folder of a run, that this setting names, unless it is there.

    Raises:
        WorkbookError: it is a file, or nothing can be written there.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise WorkbookError(
            f"{setting} is {folder}, which cannot be written to ({reason}); name a folder, new or not"
        ) from None


def save_checkpoint(
    path: Path,
    trainable: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    history: dict,
    run: dict,
) -> None:
    """Write a checkpoint. A full disk, a kill or an interrupt never leaves half of one.

    It goes to a second file first, which then takes the first one's name: at every moment the name
    stands for a whole checkpoint, the old one or the new one.
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
            os.fsync(file.fileno())  # on the disk before it takes the old one's name
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
    """Put parameters and optimiser where the checkpoint left them.

    Args:
        run: as ``save_checkpoint`` was given it; see ``run_identity.describe``.
        starts: where else the parameters began, before this process trained them.

    Returns:
        The history's fields, and the run that goes on: the checkpoint's own.

    Raises:
        WorkbookError: it is damaged, or of another run, which is told setting by setting, or of the
            first edition, which noted too little to tell. Nothing is changed then.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        parameters = state["parameters"]
        history, moments = dict(state["history"]), state["optimizer"]
        first_edition = "config" in state
        found = {} if first_edition else {key: dict(state[key]) for key in ("identity", "names")}
    except Exception as error:  # a damaged archive raises anything
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
    # Parameters that stand where the checkpoint left them, or began where it began, are of its run.
    if found["identity"]["start"] in starts or digest(parameters) == digest(trainable):
        wanted["start"] = found["identity"]["start"]
    if told := differences(found["identity"], wanted, found["names"], run["names"]):
        raise WorkbookError(
            f"{path} belongs to another run ({'; '.join(told)}): to go on with that run, set back "
            "what differs; to begin a new one, remove the file or choose another folder"
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(parameters[name])
    optimizer.load_state_dict(moments)
    return history, found
