"""The book in a browser: no serious finding of axe, and nothing wider than a telephone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ALL_CELLS
from lab import SCREENSHOTS

from tools import book

pytestmark = pytest.mark.browser
# axe takes seconds for a page: all of them in `make browser`, otherwise those of most kinds of output.
LOOKED_AT = ("index", "00", "04", "13", "22")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return book.build(tmp_path_factory.mktemp("book") / "book")


@pytest.fixture(scope="module")
def window(page):
    """A window of its own: the other tests go on with theirs."""
    own = page.context.browser.new_context().new_page()
    yield own
    own.context.close()


def test_axe_finds_nothing_serious(pages, window):
    window.set_viewport_size({"width": 1280, "height": 900})
    found = []
    for path in pages:
        if not ALL_CELLS and not path.name.startswith(LOOKED_AT):
            continue
        window.goto(path.as_uri())
        for violation in Axe().run(window).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found.append((path.name, violation["id"], violation["nodes"][0]["html"][:200]))
    assert not found


def test_no_page_is_wider_than_a_telephone(pages, window):
    window.set_viewport_size({"width": 400, "height": 800})
    for path in pages:
        window.goto(path.as_uri())
        assert window.evaluate("document.documentElement.scrollWidth") <= 400, path.name


def test_a_choice_tells_the_outcome_and_is_kept(pages, window):
    window.goto(next(path for path in pages if path.name.startswith("04")).as_uri())
    ask = window.locator(".ask").first
    assert not ask.locator(".answer").is_visible()
    for right in (False, True):
        chosen = ask.locator(
            "button" + ("[data-measured]" if right else ":not([data-measured])")
        ).first
        words = chosen.inner_text()
        chosen.focus()
        window.keyboard.press("Enter")
        verdict = "You were right." if right else "It turned out otherwise."
        assert ask.locator(".verdict").inner_text() == verdict
        said = window.locator(f".yours[data-poll='{ask.get_attribute('data-poll')}']")
        assert said.inner_text() == f"You predicted “{words}”. {verdict}"
    window.reload()
    assert window.locator(".ask .answer").first.is_visible()
    assert window.locator(".ask [aria-pressed='true']").inner_text() == words
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    window.screenshot(path=SCREENSHOTS / "book_prediction.png")
