"""Notebook 16: train, pause, ask, continue."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as widgets

from sftlab.classroom.explorer import DESCRIBED, explorer, text_box
from sftlab.classroom.views import View, table
from sftlab.errors import WorkbookError
from sftlab.exercises.ex16_sft_training_loop.plots import curve
from sftlab.generate import answer
from sftlab.train import TrainConfig, planned_batches, sft_train

WAIT = "This run has not begun: press the button, press it again after some steps, and it answers."


class Training:
    """A run in a thread of its own, which can be paused after any step and continued."""

    def __init__(self, start: Callable[[], Any], examples, config: TrainConfig, pad_id: int):
        self.start, self.examples, self.config, self.pad_id = start, examples, config, pad_id
        self.steps = len(planned_batches(examples, config))
        self.model: Any = None
        self.losses: list[float] = []
        self.error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._pause = threading.Event()
        self._folder = tempfile.TemporaryDirectory()

    def go(self, tell: Callable[[int], None], ended: Callable[[], None]) -> None:
        """Train on from where it stands; ``tell(steps_done)`` after each step.

        After an error the model begins anew, at the last checkpoint if there is one.
        """
        self.pause()
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
                self.losses[done - 1 :] = [loss]  # steps after the last checkpoint are done again
                tell(done)
            if self._pause.is_set():
                raise KeyboardInterrupt  # what the stop button does

        try:
            if self.model is None or self.error:
                self.model = self.start()
            self.error = None
            sft_train(self.model, self.examples, self.config, self.pad_id, on_step=on_step,
                      folder=self._folder.name, progress=False)  # fmt: skip
        except Exception as error:  # a thread's error is lost unless it is kept for the reader
            self.error = error
        finally:
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
    first = prompt
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
        if run.error and not go:
            raise run.error
        if not prompt.strip():
            raise WorkbookError("type something to ask")
        if not go and not done and prompt != first:
            return View(f"<p>{escape(WAIT)}</p>", WAIT)
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
