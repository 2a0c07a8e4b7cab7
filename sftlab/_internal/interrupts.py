"""Delay an interrupt (the notebook's stop button, Ctrl-C) until a training step is complete."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any


class DeferredInterrupt:
    """Holds back an interrupt while closed, because half an optimizer step cannot be resumed.

    Use ``with DeferredInterrupt() as gate``, with ``close()`` and ``open()`` around each step.
    ``open()`` raises KeyboardInterrupt if an interrupt came in between. While open, an interrupt is
    raised immediately. ``closed_at`` is the time of the last ``close()`` in seconds of
    ``time.perf_counter``.
    """

    def __init__(self) -> None:
        self.closed = self.came = False
        self.closed_at = 0.0
        self._before: Any = None

    def __enter__(self) -> DeferredInterrupt:
        on_main = threading.current_thread() is threading.main_thread()  # only it gets interrupts
        # Leave custom handlers unchanged.
        if on_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *error) -> None:
        if self._before:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, *_) -> None:
        if not self.closed:
            raise KeyboardInterrupt
        self.came = True

    def close(self) -> None:
        self.closed, self.closed_at = True, time.perf_counter()

    def open(self) -> None:
        self.closed = False
        if self.came:
            self.came = False
            raise KeyboardInterrupt
