"""Loaded by every Python process of a test (through PYTHONPATH): `sftlab` sees another system.

``SFTLAB_PRETEND`` names it, "win32" or "darwin". The package and the cells of notebooks get a view of
sys, os, signal, psutil and resource that lacks what the system lacks, and cannot import its missing modules.
Libraries go on seeing Linux: what they do elsewhere is theirs, and half of Python breaks if told
otherwise. bitsandbytes is hidden from all.
"""

import builtins
import importlib
import os
import sys
from types import ModuleType, SimpleNamespace

PLATFORM = os.environ["SFTLAB_PRETEND"]
WINDOWS = PLATFORM == "win32"
GONE = {"msvcrt"} | ({"resource", "fcntl", "termios", "pwd", "grp"} if WINDOWS else set())
LACKS = {
    "sys": set(),
    "os": {"sched_getaffinity"}
    | ({"fork", "forkpty", "getuid", "geteuid", "killpg", "setsid", "uname"} if WINDOWS else set()),
    "signal": {"SIGALRM", "SIGKILL", "SIGHUP", "setitimer", "getitimer", "ITIMER_REAL", "alarm"}
    if WINDOWS
    else set(),
    "psutil": set(),
    "resource": set(),
}
HAS = {"sys": {"platform": PLATFORM}, "os": {"name": "nt"} if WINDOWS else {}}


class View(ModuleType):
    """A module without some of its names, and with others; what is set goes to the module."""

    def __init__(self, module, lacks, has):
        super().__init__(module.__name__)
        self.__dict__.update(has, _real=module, _lacks=lacks)

    def __getattr__(self, name):
        if name in self._lacks:
            raise AttributeError(
                f"module {self.__name__!r} has no attribute {name!r} on {PLATFORM}"
            )
        return getattr(self._real, name)

    def __setattr__(self, name, value):
        setattr(self._real, name, value)


def view(name, views={}):  # noqa: B006
    if name not in views:
        module, has = importlib.import_module(name), HAS.get(name, {})
        if name == "psutil" and WINDOWS:

            class Process(module.Process):
                def memory_info(self):
                    held = super().memory_info().rss
                    return SimpleNamespace(rss=held, peak_wset=held)

            has = {"Process": Process}
        if name == "resource":  # macOS tells bytes

            def getrusage(who):
                return SimpleNamespace(ru_maxrss=module.getrusage(who).ru_maxrss * 1024)

            has = {"getrusage": getrusage}
        views[name] = View(module, LACKS[name], has)
    return views[name]


def is_ours(importer):
    """Does a module of the package import, a program of it, or a notebook's cell?"""
    name, spec = importer.get("__name__") or "", importer.get("__spec__")
    if name == "__main__":
        name = "sftlab" if "get_ipython" in importer else getattr(spec, "name", "")
    return name.partition(".")[0] == "sftlab"


def seen(name, globals=None, locals=None, fromlist=(), level=0):
    ours = level == 0 and is_ours(globals or {})
    if ours and name in GONE:
        raise ModuleNotFoundError(f"No module named {name!r} on {PLATFORM}", name=name)
    module = real_import(name, globals, locals, fromlist, level)
    return view(module.__name__) if ours and module.__name__ in LACKS else module


real_import, builtins.__import__ = builtins.__import__, seen
sys.modules["bitsandbytes"] = None
