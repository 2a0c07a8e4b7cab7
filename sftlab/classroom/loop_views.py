"""Notebook 16: pictures of a whole training run, and an explorer that trains, pauses and asks."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt

from sftlab.classroom.explorer import explorer
from sftlab.classroom.explorers import DESCRIBED, text_box
from sftlab.classroom.plots import BLUE, GREY, ORANGE, RED
from sftlab.classroom.views import View, table
from sftlab.errors import WorkbookError
from sftlab.generate import answer
from sftlab.paired import mcnemar, paired_difference
from sftlab.train import TrainConfig, planned_batches, sft_train


def loss_and_rate(losses: Sequence[float], rates: Sequence[float], pause: int, title: str):
    """Loss and learning rate over the steps of a run, with a mark where it will be paused later."""
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(7, 3.8), sharex=True, height_ratios=(2.2, 1)
    )
    steps = range(1, len(losses) + 1)
    above.plot(steps, losses, color=BLUE, lw=2, marker="o", ms=2.5)
    above.axvline(pause + 0.5, color=GREY, lw=1, ls=":")
    above.annotate(
        f"paused here below,\nafter step {pause}", (pause + 0.5, max(losses) * 0.8),
        xytext=(6, 0), textcoords="offset points", fontsize=9,
    )  # fmt: skip
    above.set(ylabel="loss (nats per\ntrained token)", ylim=(0, None), title=title)
    below.plot(steps, [1000 * rate for rate in rates], color=ORANGE, lw=2)
    below.axvline(pause + 0.5, color=GREY, lw=1, ls=":")
    below.set(ylabel="rate (×0.001)", xlabel="optimiser step", ylim=(0, None))
    return figure


def differences(
    found: Mapping[str, tuple[float, tuple[float, float]]],
    title: str,
    xlabel: str,
    counts: Mapping[str, int] | None = None,
):
    """Differences of two shares with their intervals, one line each, and 0 marked.

    Args:
        found: label -> (difference, (low, high)), all in shares from -1 to 1.
        counts: how many questions are behind each label.
    """
    figure, axis = plt.subplots(figsize=(7, 0.32 * len(found) + 1.3))
    for place, (difference, (low, high)) in enumerate(found.values()):
        clear = low > 0 or high < 0
        axis.plot([low, high], [place, place], color=BLUE if clear else GREY, lw=2, ls="-")
        axis.plot(difference, place, "o" if clear else "D", color=BLUE if clear else GREY, ms=6)
        axis.text(1.08, place, f"{100 * difference:+.0f}", va="center", ha="right", fontsize=9,
                  transform=axis.get_yaxis_transform())  # fmt: skip
    axis.axvline(0, color=RED, lw=1.2, ls="--")
    names = [f"{label} ({counts[label]})" if counts else label for label in found]
    axis.set(yticks=range(len(found)), yticklabels=names, xlabel=xlabel, title=title)
    axis.xaxis.set_major_formatter(lambda x, _: f"{100 * x:+.0f}" if x else "0")
    axis.invert_yaxis()
    return figure


def paired_table(pairs: Mapping[str, tuple[Sequence[bool], Sequence[bool]]], seed: int = 0) -> View:
    """What tuning changed, question by question. ``pairs``: the base's name -> (its, the tuned)."""
    rows = []
    for name, (before, after) in pairs.items():
        difference, (low, high) = paired_difference(before, after, seed=seed)
        won, lost, p = mcnemar(before, after)
        change = f"{100 * difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        shares = [f"{sum(right) / len(right):.1%}" for right in (before, after)]
        told = "< 0.001" if p < 0.001 else f"{p:.3f}"
        rows.append([name, len(before), *shares, change, won, lost, told])
    return table(
        rows,
        ["against", "questions", "base", "tuned", "tuned − base, points [95%]", "won", "lost", "McNemar p"],
    )  # fmt: skip


def curve(losses: Sequence[float], steps: int, width: int = 420, height: int = 90) -> str:
    """The loss so far as a small SVG: quick enough to be drawn at every step."""
    top = max(losses, default=1.0)
    points = " ".join(
        f"{4 + (width - 8) * n / max(steps - 1, 1):.1f},{height - 4 - (height - 12) * loss / top:.1f}"
        for n, loss in enumerate(losses)
    )
    label = f"loss curve, {len(losses)} of {steps} steps"
    return (
        f'<svg role="img" aria-label="{label}" width="{width}" height="{height}" '
        'style="background:rgba(128,128,128,.08)">'
        f'<polyline points="{points}" fill="none" stroke="{BLUE}" stroke-width="2"/></svg>'
    )


class Training:
    """A run in a thread of its own, which can be paused after any step and continued."""

    def __init__(self, start: Callable[[], Any], examples, config: TrainConfig, pad_id: int):
        self.start, self.examples, self.config, self.pad_id = start, examples, config, pad_id
        self.steps = len(planned_batches(examples, config))
        self.model, self.losses, self.error = None, [], None
        self._thread, self._pause = None, threading.Event()
        self._folder = tempfile.TemporaryDirectory()

    def go(self, tell: Callable[[int], None], ended: Callable[[], None]) -> None:
        """Train on from where it stands; ``tell(steps_done)`` after each step."""
        self.pause()
        self.model = self.model or self.start()
        self._pause.clear()
        self._thread = threading.Thread(target=self._train, args=(tell, ended), daemon=True)
        self._thread.start()

    def pause(self) -> None:
        """Let the step in progress end, and wait for it."""
        self._pause.set()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()

    def _train(self, tell, ended) -> None:
        def on_step(done: int, loss: float) -> None:
            if done:
                self.losses.append(loss)
                tell(done)
            if self._pause.is_set():
                raise KeyboardInterrupt  # what the stop button does

        try:
            sft_train(self.model, self.examples, self.config, self.pad_id, on_step=on_step,
                      folder=self._folder.name, progress=False)  # fmt: skip
        except WorkbookError as error:
            self.error = error
        ended()


def train_and_ask(
    start: Callable[[], Any],
    tokenizer,
    examples: Sequence,
    config: TrainConfig,
    prompt: str,
    album: Mapping[int, str],
) -> None:
    """Train and pause with a button; while it pauses, ask the model anything.

    Args:
        start: makes the model as it is before the first step.
        album: what a run answered to ``prompt`` after some steps: shown until training begins, and
            on a stored page.
    """
    run = Training(start, examples, config, tokenizer.pad_token_id)
    go = widgets.ToggleButton(value=False, description="train / pause", icon="play")
    done = widgets.IntProgress(value=0, max=run.steps, description="steps", style=DESCRIBED)

    def pressed(change) -> None:
        if change["new"]:
            run.go(lambda step: setattr(done, "value", step), lambda: setattr(go, "value", False))
        else:
            run.pause()

    go.observe(pressed, names="value")  # before the picture's own observer: it pauses first

    def draw(go: bool, done: int, prompt: str) -> View:
        if run.error:
            raise run.error
        if not prompt.strip():
            raise WorkbookError("type something to ask")
        if not go and not done:
            rows = [[step, text] for step, text in album.items()]
            return table(rows, ["after step", "the run above answered"])
        loss = f" · loss {run.losses[-1]:.2f}" if run.losses else ""
        state = f"step {done} of {run.steps}{loss}"
        if go:
            said = "training … press the button to pause and ask"
        else:
            (reply,) = answer(run.model, tokenizer, [prompt], max_new_tokens=40)
            said = f"asked in the pause: {prompt}\nanswer: {reply.text}"
        markup = f"<p>{escape(state)}</p>{curve(run.losses, run.steps)}<pre>{escape(said)}</pre>"
        return View(markup, f"{state}\n{said}")

    controls = {"go": go, "done": done, "prompt": text_box(prompt, "Prompt (Enter to ask)")}
    explorer(
        controls,
        draw,
        lambda go, done, prompt: (
            f"A training run after {done} of {run.steps} steps, asked {prompt!r}."
        ),
    )
