"""One server and one browser for all tests; each notebook is opened once and looked at from all sides."""

from __future__ import annotations

import os
import re

import pytest
from lab import SWITCHES, Notebook, served

from tools.website import chromium

ALL_CELLS = os.environ.get("SFTLAB_BROWSER") == "all"  # `make browser`: Run All in each notebook


def pytest_collection_modifyitems(items):
    if chromium():
        return
    reason = "no chromium on PATH (Debian: apt install chromium; or name one: SFTLAB_CHROMIUM=…)"
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_xdist_make_scheduler(config, log):
    """With several processes, all tests of one notebook go to the same, to share the visit.

    So do all that read the book: to build it takes longer than they do.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByNotebook(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            named = re.search(r"\b(\d\d)\]$", nodeid)
            module = nodeid.partition("::")[0]
            book = "_book_" in module or "_live_" in module
            return named[1] if named else "book" if book else module

    return ByNotebook(config, log)


@pytest.fixture(scope="session")
def lab_folder(tmp_path_factory):
    """Where JupyterLab finds the copies, and keeps the progress of what is done in this browser."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="session")
def address(lab_folder):
    """Where JupyterLab listens."""
    with served(lab_folder) as found:
        yield found


@pytest.fixture(scope="session")
def book_pages(tmp_path_factory):
    """The pages of the book, opened from files."""
    from tools import book

    return book.build(tmp_path_factory.mktemp("book") / "book")


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
