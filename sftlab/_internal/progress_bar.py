"""A progress bar (tqdm) for terminals and notebooks that leaves one line without times."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm


class ProgressBar(tqdm):
    """Use as ``with ProgressBar(total, "steps") as bar: bar.update(note="loss 1.2")``.

    Args:
        total, unit: number and kind of units of work.
        first: units done before (in a resumed run).
        shown: False for no bar and no line.

    The attribute ``done`` is the line that remains. It should contain no times, which would differ
    from run to run.
    """

    def __init__(
        self, total: int, unit: str = "steps", first: int = 0, shown: bool = True, **options: Any
    ):
        self.done = ""
        super().__init__(total=total, initial=first, unit=f" {unit}", leave=False,
                         disable=not shown, **options)  # fmt: skip
        self._words = unit

    def update(self, amount: int = 1, note: str = "") -> None:
        self.set_postfix_str(note, refresh=False)
        super().update(amount)

    def close(self) -> None:
        if self.disable:  # hidden or already closed
            return
        super().close()
        line = self.done or f"{self.n} of {self.total} {self._words}"
        print(line, file=sys.stdout if in_notebook() else sys.stderr)


def in_notebook() -> bool:
    """Return whether the code runs in a Jupyter kernel."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return bool(shell) and hasattr(shell, "kernel")
