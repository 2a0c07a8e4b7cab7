"""The book in a browser: no serious finding of axe, and nothing wider than a telephone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ALL_CELLS
from lab import SCREENSHOTS

pytestmark = pytest.mark.browser
# axe takes seconds for a page: all of them in `make browser`, otherwise those of most kinds of output.
STILL = "* { transition: none !important }"  # in between, colours are on their way
LOOKED_AT = ("index", "00", "04", "13", "22")


@pytest.fixture(scope="module")
def pages(book_pages):
    return book_pages


@pytest.fixture(scope="module")
def window(page):
    """A window of its own: the other tests go on with theirs."""
    own = page.context.browser.new_context().new_page()
    yield own
    own.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(pages, window, scheme):
    window.emulate_media(color_scheme=scheme)
    window.set_viewport_size({"width": 1280, "height": 900})
    found = []
    for path in pages:
        if not ALL_CELLS and not path.name.startswith(LOOKED_AT):
            continue
        window.goto(path.as_uri())
        window.add_style_tag(content=STILL)
        for violation in Axe().run(window).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found.append((path.name, violation["id"], violation["nodes"][0]["html"][:200]))
    assert not found


def test_no_page_is_wider_than_a_telephone(pages, window):
    window.set_viewport_size({"width": 400, "height": 800})
    for path in pages:
        window.goto(path.as_uri())
        assert window.evaluate("document.documentElement.scrollWidth") <= 400, path.name


def test_the_search_finds_a_word_of_one_lesson(pages, window):
    window.goto(f"{pages[0].with_name('search.html').as_uri()}?q=rsLoRA")
    window.wait_for_selector("#search-results li a")
    found = window.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any("09_lora_alpha_over_r.html" in link for link in found)
    assert not any("04_sft_loss.html" in link for link in found)


def test_the_page_can_be_read_on_paper(pages, window):
    window.emulate_media(media="print")
    window.goto(next(path for path in pages if path.name.startswith("17")).as_uri())
    hidden = window.locator(".bd-sidebar-primary")
    assert not hidden.is_visible()
    cut = window.locator(".cell_input pre").evaluate_all(
        "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert cut == 0
    window.emulate_media(media="screen")


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
