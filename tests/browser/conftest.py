"""One server and one browser for all tests; each notebook is opened once and looked at from all sides."""

from __future__ import annotations

import os

import pytest
from lab import SWITCHES, Notebook, chromium, served

ALL_CELLS = os.environ.get("SFTLAB_BROWSER") == "all"  # `make browser`: Run All in each notebook


def pytest_collection_modifyitems(items):
    if chromium():
        return
    reason = "no chromium on PATH (Debian: apt install chromium; or name one: SFTLAB_CHROMIUM=…)"
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """Where JupyterLab listens."""
    with served(tmp_path_factory.mktemp("lab")) as found:
        yield found


@pytest.fixture(scope="session")
def progress_file(tmp_path_factory, address):
    """The progress of everything that is done in this browser."""
    return next(tmp_path_factory.getbasetemp().glob("lab*/progress.json"))


@pytest.fixture(scope="session")
def page():
    """A window of a fresh browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=SWITCHES)
        yield browser.new_page()
        browser.close()


@pytest.fixture(scope="module")
def notebook(request, page, address):
    """The notebook that the test names, open, with a kernel of its own."""
    opened = Notebook(page, address, request.param)
    if ALL_CELLS:
        opened.run_all()
    yield opened
    opened.close()
