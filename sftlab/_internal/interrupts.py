"""An interrupt (the notebook's stop button, Ctrl-C) that waits until a training step is whole."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any


class DeferredInterrupt:
    """Holds an interrupt back while it is closed: half an optimiser step cannot be resumed.

    Use as ``with Gate() as gate``, then ``close()`` and ``open()`` around each step; an interrupt
    that came in between is raised by ``open()``, one that comes while it is open at once.
    ``closed_at`` says when it was closed last, in seconds of ``time.perf_counter``.
    """

    def __init__(self) -> None:
        self.closed = self.came = False
        self.closed_at = 0.0
        self._before: Any = None

    def __enter__(self) -> DeferredInterrupt:
        on_main = threading.current_thread() is threading.main_thread()  # no other is interrupted
        # A handler that is not Python's own is somebody else's business.
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
