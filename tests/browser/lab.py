"""JupyterLab in a headless chromium: a server over copies of the notebooks, and one open notebook.

JupyterLab saves by itself, so it never sees the repository's notebooks: it serves copies.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Locator, Page

from sftlab._internal.paths import ROOT

SCREENSHOTS = Path(os.environ.get("SFTLAB_SCREENSHOTS") or ROOT / "build" / "screenshots")
SWITCHES = [  # no sandbox: chromium has none for root, the only user of many containers
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTHS = {"laptop": (1280, 900), "presentation": (1920, 1080)}  # pixels of the window
CELL_LIMIT = 180_000  # ms that a cell may take, on a busy machine too
LIMIT = 60_000  # ms that the page may take for anything else
TOKEN = "of-the-tests"
FRONT = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook"  # not one that lies behind it
NOTEBOOK = "jupyterapp.shell.currentWidget"  # the open document, as JupyterLab knows it
MEASURE = (Path(__file__).parent / "measure.js").read_text(encoding="utf-8")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """JupyterLab over copies of the notebooks in ``folder``; gives its address.

    Settings, workspaces and progress are the folder's own: nobody's are read or written.
    """
    notebooks, state = folder / "notebooks", folder / "state"
    shutil.copytree(ROOT / "notebooks", notebooks, ignore=shutil.ignore_patterns("progress.json"))
    state.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "tests" / "no_network"),
        "SFTLAB_PROGRESS": str(folder / "progress.json"),
        "HF_HUB_OFFLINE": "1",
        **{
            name: str(state / name.lower())
            for name in (
                "IPYTHONDIR",
                "JUPYTER_CONFIG_DIR",
                "JUPYTER_DATA_DIR",
                "JUPYTER_RUNTIME_DIR",
                "JUPYTERLAB_SETTINGS_DIR",
                "JUPYTERLAB_WORKSPACES_DIR",
            )
        },
    }
    command = [
        *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"),
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={notebooks}",
        "--LabApp.expose_app_in_browser=True",
    ]
    with open(folder / "server.log", "w+") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_it_listens(server, port, Path(log.name))
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(server)


def _stop(server: subprocess.Popen) -> None:
    """End the server; one that hangs while it asks its kernels to end is killed (they end with it)."""
    server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _wait_until_it_listens(server: subprocess.Popen, port: int, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


class Notebook:
    """One notebook, open in the browser, with its kernel."""

    def __init__(self, page: Page, address: str, name: str):
        self.page, self.name = page, name
        self.ran: set[int] = set()
        page.set_default_timeout(LIMIT)
        if page.url.startswith(f"{address}/lab"):  # JupyterLab is there: starting it takes seconds
            page.evaluate(
                f"() => {{ jupyterapp.commands.execute('docmanager:open', {{path: '{name}'}}) }}"
            )
        else:
            page.goto(f"{address}/lab/tree/{name}?reset&token={TOKEN}")
        self.until(f"window.jupyterapp && {NOTEBOOK}?.context?.path == '{name}'")
        self.until(f"{NOTEBOOK}.sessionContext?.session?.kernel?.status == 'idle'")
        page.evaluate(MEASURE)
        self.look()
        # Each cell gets its place as an attribute, by which it is found again.
        page.evaluate(
            f"{NOTEBOOK}.content.widgets.forEach((w, i) => w.node.setAttribute('data-at', i))"
        )

    def until(self, condition: str, timeout: float = LIMIT) -> None:
        """Wait until a condition in the page's own language holds."""
        self.page.wait_for_function(condition, timeout=timeout)

    def cell(self, index: int) -> Locator:
        return self.page.locator(f'{FRONT} [data-at="{index}"]')

    def sources(self) -> dict[int, str]:
        """Index of a code cell -> its text."""
        found = self.page.evaluate(
            f"{NOTEBOOK}.content.widgets.map((w, i) => [i, w.model.type, w.model.sharedModel.source])"
        )
        return {index: source for index, kind, source in found if kind == "code"}

    def find(self, text: str) -> int:
        """The first code cell that contains a text."""
        found = [index for index, source in self.sources().items() if text in source]
        assert found, f"{self.name}: no code cell contains {text}"
        return found[0]

    def exercise(self, id: str) -> tuple[int, int]:
        """The cell of a stub, and the one that checks it."""
        check = next(i for i, s in self.sources().items() if f'"{id}"' in s and "check(" in s)
        return max(index for index in self.sources() if index < check), check

    def show(self, index: int) -> Locator:
        """Scroll a cell into view, as a reader would."""
        cell = self.cell(index)
        for _ in range(2):  # cells that come into view for the first time change their height
            cell.evaluate("e => e.scrollIntoView({block: 'start'})")
            self.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        return cell

    def run(self, *indices: int) -> None:
        """Run cells by JupyterLab's own command, and wait. An error in one is an error here."""
        for index in indices:
            self._start(f"{NOTEBOOK}.content.activeCellIndex = {index}", "notebook:run-cell")
            self._finish(index)
            self.ran.add(index)

    def run_all(self) -> None:
        """What the menu's Run All Cells does."""
        self._start("", "notebook:run-all-cells")
        self._finish(*self.sources())
        self.ran.update(self.sources())

    def _start(self, before: str, command: str) -> None:
        self.page.evaluate(
            f"() => {{ {before}; {NOTEBOOK}.content.deselectAll(); window.ended = false;"
            f" jupyterapp.commands.execute('{command}').finally(() => {{ window.ended = true; }}); }}"
        )

    def _finish(self, *indices: int) -> None:
        self.until("window.ended", CELL_LIMIT * (3 if len(indices) > 1 else 1))
        self.wait_for_kernel()
        for index in indices:
            errors = self.page.evaluate(
                f"{NOTEBOOK}.content.widgets[{index}].model.outputs.toJSON()"
                ".filter(o => o.output_type == 'error').map(o => o.ename + ': ' + o.evalue)"
            )
            assert not errors, f"{self.name}, cell {index}: {errors[0]}"

    def wait_for_kernel(self) -> None:
        self.until(f"{NOTEBOOK}.sessionContext.session.kernel.status == 'idle'", CELL_LIMIT)

    def type_and_run(self, index: int, source: str) -> None:
        """Replace a cell's text by hand, unfolded where it is folded, and press Ctrl+Enter."""
        cell = self.show(index)
        folded = cell.locator(".jp-InputPlaceholder")
        if folded.count():
            folded.click()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(source)
        assert self.sources()[index] == source
        count = f"{NOTEBOOK}.content.widgets[{index}].model.executionCount"
        self.page.evaluate(f"{count} = null")
        self.page.keyboard.press("Control+Enter")
        self.until(f"{count} !== null", CELL_LIMIT)  # the kernel gives it when it begins
        self.wait_for_kernel()

    def output(self, index: int) -> Locator:
        """The area under a cell where its results are."""
        return self.cell(index).locator(".jp-OutputArea").first

    # --- how the page looks ----------------------------------------------------------------

    def look(self, width: str = "laptop", dark: bool = False) -> None:
        """Set the window's size and theme; "presentation" is JupyterLab's mode for a beamer."""
        w, h = WIDTHS[width]
        self.page.set_viewport_size({"width": w, "height": h})
        body, on_beamer = "document.body.dataset", "jupyterapp.shell.presentationMode"
        self.page.evaluate(f"{on_beamer} = {str(width == 'presentation').lower()}")
        theme = "JupyterLab Dark" if dark else "JupyterLab Light"
        if self.page.evaluate(f"{body}.jpThemeName") != theme:
            self.page.evaluate(
                f"jupyterapp.commands.execute('apputils:change-theme', {{theme: '{theme}'}})"
            )
            self.until(f"{body}.jpThemeName == '{theme}'")
            self.until("!document.getElementById('jupyterlab-splash')")  # drawn over all of it
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")

    def measure(self, what: str) -> list[str]:
        """What `measure.js` still finds once the page is at rest: ``cut_off``, ``overlaps``, ``pale``.

        JupyterLab lays cells out anew over several frames after the window changes its size; what is
        wrong in one of these only isn't seen by anyone.
        """
        return self.page.evaluate(
            """async what => {
                let found = measure[what]();
                for (let i = 0; found.length && i < 20; i++) {
                    await new Promise(done => setTimeout(() => requestAnimationFrame(done), 100));
                    found = measure[what]();
                }
                return found;
            }""",
            what,
        )

    def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{self.name[:2]}_{name}.png")

    def screenshots(self, name: str) -> None:
        """The whole notebook, window by window."""
        panel = self.page.locator(f"{FRONT} .jp-WindowedPanel-outer").first
        height, window = panel.evaluate("e => [e.scrollHeight, e.clientHeight]")
        for number, top in enumerate(range(0, height, window - 40)):
            panel.evaluate(f"e => e.scrollTo(0, {top})")
            self.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
            self.screenshot(f"{name}_{number:02d}")

    def close(self) -> None:
        """End the kernel and close the document; nobody is asked whether to save."""
        self.page.evaluate(f"{NOTEBOOK}.sessionContext.shutdown()")
        self.page.evaluate(f"{NOTEBOOK}.dispose()")
