"""Without a timer signal, as on Windows, a student's code is held to its time in a thread."""

import sys
import threading
import time

import pytest

from sftlab.classroom import sandbox
from sftlab.classroom.catalogue import exercise
from sftlab.classroom.checking import examine


@pytest.fixture(autouse=True)
def no_timer_signal(monkeypatch):
    monkeypatch.delattr("signal.setitimer", raising=False)
    monkeypatch.delattr("signal.SIGALRM", raising=False)


def gone(before):
    """The threads are as many as they were, within a second."""
    end = time.monotonic() + 1
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    return threading.active_count() <= before


def endless():
    while True:
        pass


def endless_and_deaf():
    while True:
        try:
            time.sleep(0.001)
        except:  # noqa: E722
            pass


def endless_and_prints():
    print("begun")
    endless()


@pytest.mark.parametrize("function", [endless, endless_and_deaf, endless_and_prints])
def test_an_endless_loop_is_ended_and_leaves_no_thread(function):
    before = threading.active_count()
    found = sandbox.run(function, limit=0.2)
    assert found.timed_out and found.error is None
    assert found.printed == ("begun\n" if function is endless_and_prints else "")
    assert gone(before)


def test_a_result_an_error_and_what_is_printed_come_back():
    assert sandbox.run(lambda: print("a") or print("b", file=sys.stderr) or 3).value == 3
    assert sandbox.run(lambda: print("a") or print("b", file=sys.stderr)).printed == "a\nb\n"
    assert isinstance(sandbox.run(lambda: 1 / 0).error, ZeroDivisionError)
    assert isinstance(sandbox.run(sys.exit).error, SystemExit)


def interrupted():
    raise KeyboardInterrupt


def test_an_interrupt_of_the_code_is_an_error_like_others():
    assert isinstance(sandbox.run(interrupted).error, KeyboardInterrupt)


def test_an_interrupt_of_the_user_comes_through_and_ends_the_code(interruptible):
    import _thread

    before = threading.active_count()
    timer = threading.Timer(0.2, _thread.interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.run(endless, limit=20)
    timer.join()
    assert gone(before)


def test_a_check_names_the_loop_that_it_ended():
    def answer(ids, n):
        endless_and_prints()

    finding = examine(exercise("12.mask_prompt"), answer, limit=0.2)
    assert finding.status == "wrong" and "a loop that never ends?" in finding.message
    assert "begun" in finding.printed


def test_a_quick_call_is_not_held_up():
    began = time.monotonic()
    for _ in range(20):
        sandbox.run(lambda: None)
    assert time.monotonic() - began < 1
