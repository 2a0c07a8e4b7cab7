"""A progress bar that leaves no times behind: when the work is done, one line stays.

In a terminal it is tqdm's, on stderr. In a notebook, tqdm would leave times in the stored output,
and these differ from run to run; this bar shows them only while it moves.
"""

from __future__ import annotations

import html
import sys
import time


def in_notebook() -> bool:
    """Is this a Jupyter kernel?"""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return bool(shell) and hasattr(shell, "kernel")


class Bar:
    """Use as ``with Bar(total, "steps") as bar: bar.update(note="loss 1.2")``.

    Args:
        total, unit: how much there is to do, and of what.
        first: how much was done before (a resumed run).
        shown: False for no bar and no line.

    ``done`` is the line that stays.
    """

    def __init__(self, total: int, unit: str = "steps", first: int = 0, shown: bool = True):
        self.total, self.unit, self.count, self.first = total, unit, first, first
        self.done = ""
        self._started = self._drawn = time.monotonic()
        self._handle = self._tqdm = None
        if not shown:
            return
        if in_notebook():
            from IPython.display import display

            self._handle = display({"text/plain": ""}, raw=True, display_id=True)
        else:
            from tqdm import tqdm

            self._tqdm = tqdm(total=total, initial=first, unit=f" {unit}", leave=False)

    def __enter__(self) -> Bar:
        return self

    def update(self, amount: int = 1, note: str = "") -> None:
        self.count += amount
        if self._tqdm:
            self._tqdm.set_postfix_str(note, refresh=False)
            self._tqdm.update(amount)
        elif self._handle and time.monotonic() - self._drawn > 0.1:  # ten times a second is enough
            self._drawn = time.monotonic()
            self._handle.update(self._picture(note), raw=True)

    def _picture(self, note: str) -> dict[str, str]:
        passed = time.monotonic() - self._started
        left = passed / max(self.count - self.first, 1) * (self.total - self.count)
        text = f"{self.count} of {self.total} {self.unit} · {left:.0f} s left"
        text += f" · {note}" if note else ""
        bar = f'<progress max="{self.total}" value="{self.count}" style="width:20em"></progress> '
        return {"text/html": bar + html.escape(text), "text/plain": text}

    def __exit__(self, *error) -> None:
        text = self.done or f"{self.count} of {self.total} {self.unit}"
        if self._tqdm:
            self._tqdm.close()
            print(text, file=sys.stderr)
        if self._handle:
            final = {"text/plain": text, "text/html": f"<p>{html.escape(text)}</p>"}
            self._handle.update(final, raw=True)
