"""Snapshots of a training run: written whole or not at all, taken up only by the run they are of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from sftlab.errors import WorkbookError
from sftlab.masking import Example


def fingerprint(examples: Sequence[Example]) -> str:
    """Tells two data sets apart, so that a snapshot is not continued on other rows."""
    rows = [[example.input_ids, example.labels] for example in examples]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def save_snapshot(
    path: Path,
    trainable: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    history: dict,
    run: dict,
) -> None:
    """Write a snapshot. A full disk, a kill or an interrupt never leaves half of one.

    It goes to a second file first, which then takes the first one's name: at every moment the name
    stands for a whole snapshot, the old one or the new one.
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
        kept = "; the snapshot before it is still there" if path.exists() else ""
        raise WorkbookError(
            f"the snapshot after {len(history['losses'])} steps cannot be written to {path} "
            f"({reason}){kept}: free some space or choose another folder, then run again"
        ) from error


def load_snapshot(
    path: Path,
    trainable: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    run: dict,
) -> dict:
    """Put parameters and optimiser where the snapshot left them; returns the history's fields.

    Raises:
        WorkbookError: it is damaged, or of a run with other settings, rows or parameters. Nothing
            is changed then.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: tuple(p.shape) for name, p in state["parameters"].items()}
        same = all(state[key] == value for key, value in run.items())
        history, moments = dict(state["history"]), state["optimizer"]
    except Exception as error:  # a damaged archive raises anything
        raise WorkbookError(
            f"{path} is damaged and cannot be read; remove it and train from the beginning"
        ) from error
    if not same or found != {name: tuple(p.shape) for name, p in trainable.items()}:
        raise WorkbookError(
            f"{path} belongs to another run (other settings, rows or parameters); remove it or "
            "choose another folder"
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(state["parameters"][name])
    optimizer.load_state_dict(moments)
    return history
