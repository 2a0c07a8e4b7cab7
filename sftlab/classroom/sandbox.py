"""Run a student's code so that it cannot harm the notebook.

The code may loop forever, print, write to stderr, call ``exit()``, recurse without end, ask for all
memory, seed the random generators or raise any exception. The caller gets a ``Run`` that says what
happened.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import io
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any


@dataclass
class Run:
    """The result of one call: its value or the exception that ended it, and the printed text.

    ``reseeded`` names the function that set a random seed, such as "torch.manual_seed".
    """

    value: Any = None
    error: BaseException | None = None
    timed_out: bool = False
    printed: str = ""
    reseeded: str = ""


class _TimeUp(BaseException):
    """Not an Exception, so that ``except Exception`` in a student's code does not catch it."""


class _TimeUpAgain(_TimeUp):
    """Raised in a thread whose code caught the first one; also traces the next lines."""

    def __init__(self) -> None:
        _stop_at_next_line(sys._getframe(1))


SEED = 0xC0DE_5F7A  # no student's own


def run(function: Callable[[], Any], limit: float = 5.0, seed: int = SEED) -> Run:
    """Call ``function`` for at most ``limit`` seconds; catch all exceptions and printed text.

    All random generators begin with ``seed``, and have their states back afterwards.

    On the main thread, where notebooks run their cells, a timer signal enforces the limit. On other
    threads, and on Windows, which has no such signal, the code runs in a new thread that is told to
    end when the time is up. A call into compiled code can be stopped only when it returns.

    Raises:
        KeyboardInterrupt: only if the user interrupts, not if the code itself raises one.
    """
    result = Run()
    with (
        _captured(result),
        _random_state_kept(result, seed),
        _torch_settings_kept(),
        _memory_limited(),
        _kernel_kept_alive(),
    ):
        on_main = threading.current_thread() is threading.main_thread()
        if on_main and hasattr(signal, "setitimer"):
            _with_timer(function, limit, result)
        else:
            _in_thread(function, limit, result)
    return result


def _call(function: Callable[[], Any], result: Run) -> None:
    try:
        result.value = function()
    except _TimeUp:
        result.timed_out = True
    except BaseException as error:
        result.error = error


def _with_timer(function: Callable[[], Any], limit: float, result: Run) -> None:
    armed, interrupted, strikes = True, False, 0

    def stop(_: int, frame: FrameType | None) -> None:
        nonlocal strikes
        if not armed:
            return
        strikes += 1
        if strikes > 1:
            _stop_at_next_line(frame)
        raise _TimeUp

    def interrupt(*_: Any) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    old_trace = sys.gettrace()
    old_alarm = signal.signal(signal.SIGALRM, stop)
    old_interrupt = signal.getsignal(signal.SIGINT)
    # A process that ignores interrupts (a background job) continues to ignore them; None is a
    # handler not set from Python.
    ours = old_interrupt not in (signal.SIG_IGN, None)
    if ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        # Repeated because a bare `except:` in a loop may catch the first one.
        signal.setitimer(signal.ITIMER_REAL, limit, 0.1)
        _call(function, result)
        armed = False
    except _TimeUp:  # raised between the end of the call and the line above
        armed = False
        result.timed_out = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.settrace(old_trace)
        signal.signal(signal.SIGALRM, old_alarm)
        if ours:
            signal.signal(signal.SIGINT, old_interrupt)
    if interrupted:
        raise KeyboardInterrupt


def _stop_at_next_line(frame: FrameType | None) -> None:
    """Raise the exception again at the next line of each running function.

    A bare `except:` catches a signal that arrives inside its `try`. The next line is then the
    handler's own, which that `try` does not protect.
    """

    def again(_: FrameType, event: str, __: Any) -> Callable:
        if event == "line":
            raise _TimeUp
        return again

    sys.settrace(again)
    while frame is not None and frame.f_code is not _call.__code__:
        frame.f_trace = again
        frame = frame.f_back


def _in_thread(function: Callable[[], Any], limit: float, result: Run) -> None:
    # An event, because in Python 3.11 a thread whose join is interrupted counts as ended.
    inner, ended = Run(), threading.Event()

    def work() -> None:
        try:
            _call(function, inner)
        except _TimeUp:  # raised at the end of the call
            inner.timed_out = True
        finally:
            sys.settrace(None)
            ended.set()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    end = time.monotonic() + limit
    try:
        while not ended.wait(0.05) and time.monotonic() < end:
            pass  # in short steps because Windows delivers no interrupt during a wait
    finally:
        result.timed_out = not ended.is_set()
        # Make the thread end at its next instruction, so that it does not use the CPU forever.
        for error in (_TimeUp, *[_TimeUpAgain] * 4):
            if not ended.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(worker.ident), ctypes.py_object(error)
                )
                ended.wait(0.1)
    if not result.timed_out:
        result.value, result.error = inner.value, inner.error


@contextlib.contextmanager
def _captured(result: Run) -> Iterator[None]:
    """Collect stdout and stderr, from Python and from compiled code (file descriptors 1 and 2)."""
    text = io.StringIO()
    with tempfile.TemporaryFile() as raw:
        kept = []
        for number in (1, 2):
            with contextlib.suppress(OSError):  # a process may have none
                kept.append((number, os.dup(number)))
                os.dup2(raw.fileno(), number)
        try:
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                yield
        finally:
            for number, copy in kept:
                os.dup2(copy, number)
                os.close(copy)
            raw.seek(0)
            result.printed = text.getvalue() + raw.read().decode(errors="replace")


@contextlib.contextmanager
def _random_state_kept(result: Run, seed: int) -> Iterator[None]:
    """Restore the random states, so that a check does not change later experiments.

    A student's own seed for torch shows in ``torch.initial_seed``; those for Python and NumPy are
    noted when they are set.
    """
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    python_state, limit = random.getstate(), sys.getrecursionlimit()
    numpy_state = numpy.random.get_state() if numpy else None
    torch_state = torch.get_rng_state() if torch else None
    random.seed(seed)
    if numpy:
        numpy.random.seed(seed)
    if torch:
        torch.default_generator.manual_seed(seed)  # of the CPU alone, which is fast
    try:
        with (
            _noted(random, "random.seed", result),
            _noted(numpy and numpy.random, "numpy.random.seed", result),
        ):
            yield
    finally:
        if torch and torch.initial_seed() != seed:
            result.reseeded = "torch.manual_seed"
        random.setstate(python_state)
        sys.setrecursionlimit(limit)
        if numpy_state is not None:
            numpy.random.set_state(numpy_state)
        if torch_state is not None:
            torch.set_rng_state(torch_state)


@contextlib.contextmanager
def _noted(module: Any, name: str, result: Run) -> Iterator[None]:
    """Note in the result if the code calls the module's ``seed``."""
    if module is None:
        yield
        return
    seed = module.seed

    def noted(*arguments: Any, **named: Any) -> None:
        result.reseeded = name
        seed(*arguments, **named)

    module.seed = noted
    try:
        yield
    finally:
        module.seed = seed


@contextlib.contextmanager
def _torch_settings_kept() -> Iterator[None]:
    """Enable gradients, and restore the caller's setting and the default dtype afterwards."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    dtype = torch.get_default_dtype()
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextlib.contextmanager
def _memory_limited(extra: int = 4 * 2**30) -> Iterator[None]:
    """Let an allocation of more than ``extra`` bytes fail, where the system has such a limit.

    Without it Linux ends the kernel's process when memory runs out.
    """
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = pages * resource.getpagesize() + extra
        if soft != resource.RLIM_INFINITY and soft <= limit:
            raise OSError
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    except (ImportError, OSError, ValueError):  # Windows and macOS have no such file
        yield
        return
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def _kernel_kept_alive() -> Iterator[None]:
    """Let ``exit()`` and ``os._exit()`` raise SystemExit, and refuse to wait for ``input()``."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    ends, asks = os._exit, builtins.input

    def refuse(*_: Any) -> None:
        raise SystemExit

    def type_nothing(*_: Any) -> None:
        raise EOFError("nobody types anything while a check runs; use the arguments")

    os._exit, builtins.input = refuse, type_nothing
    if shell is not None:
        shell.ask_exit = refuse
    try:
        yield
    finally:
        os._exit, builtins.input = ends, asks
        if shell is not None:
            del shell.ask_exit
