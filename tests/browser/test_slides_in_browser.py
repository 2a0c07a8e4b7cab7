"""The slides in a browser without a network, and the live mode: JupyterLab before a class."""

from __future__ import annotations

import pytest
from explorers import cells, operate
from lab import WIDTHS
from needed_cells import needed
from playwright.sync_api import TimeoutError

from sftlab.classroom import slides, website
from sftlab.errors import WorkbookError

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SHOWN = ("04", "12", "22")  # formulas, tokens, wide tables and pictures
SIZES = [(1280, 720), (1920, 1080)]
CUT_OFF = """() => {
  const body = Reveal.getCurrentSlide().querySelector('.body'), own = body.getBoundingClientRect();
  const faults = [];
  if (body.scrollWidth > body.clientWidth) faults.push('wider than the slide');
  if (own.bottom > innerHeight || own.right > innerWidth) faults.push('beyond the window');
  if (body.scrollHeight > body.clientHeight && !body.classList.contains('scrolls')) faults.push(`cut off: ${body.scrollHeight} of ${body.clientHeight} pixels`);
  if (parseInt(body.style.fontSize) < 75) faults.push('too small');
  for (const picture of body.querySelectorAll('img')) if (picture.offsetHeight < 250) faults.push('a small picture');
  return faults;
}"""

SETTLED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    try:
        slides.reveal_files()
    except WorkbookError as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(website, "numbers", lambda: list(SHOWN))
        paths = slides.build(tmp_path_factory.mktemp("slides") / "slides")
    return {path.name[:2]: path for path in paths}


@pytest.fixture
def window(page):
    """A window of its own, without a network; an error of a script is an error here."""
    context = page.context.browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_offline(True)
    own, errors = context.new_page(), []
    own.on("pageerror", lambda error: errors.append(str(error)))
    yield own
    context.close()
    assert not errors


def opened(window, path, heading=""):
    """The deck, at the first slide of a heading."""
    window.goto(path.as_uri())
    window.wait_for_function("window.Reveal && Reveal.isReady()")
    window.evaluate(
        """heading => {
           const found = Reveal.getSlides().find(s => s.querySelector('h1, h2').textContent.startsWith(heading));
           const {h, v} = Reveal.getIndices(found); Reveal.slide(h, v); }""",
        heading,
    )


def now(window):
    """The slide that is shown."""
    return window.locator("section.present:not(.stack)")


@pytest.mark.parametrize("number", SHOWN)
def test_arrows_lead_through_all_slides_and_nothing_is_cut_off(decks, window, number):
    opened(window, decks[number])
    total, faults = window.evaluate("Reveal.getTotalSlides()"), []
    for _ in range(2 * total):
        for width, height in SIZES:
            window.set_viewport_size({"width": width, "height": height})
            window.evaluate(SETTLED)
            try:  # a busy machine draws late
                window.wait_for_function(f"!({CUT_OFF})().length", timeout=3_000)
            except TimeoutError:
                heading = now(window).locator("h1, h2").inner_text()
                faults += [(heading, width, fault) for fault in window.evaluate(CUT_OFF)]
        if window.evaluate("Reveal.isLastSlide()"):
            break
        window.keyboard.press("ArrowRight")
    assert window.evaluate("Reveal.isLastSlide()")
    assert not faults


def test_hands_are_counted_and_the_answer_waits_until_it_is_asked_for(decks, window):
    opened(window, decks["12"], "Prediction 12.a")
    slide = now(window)
    widths = "all => all.map(e => e.getBoundingClientRect().width)"
    assert slide.locator(".answer").is_hidden()
    window.keyboard.press("2")
    window.keyboard.press("2")
    window.keyboard.press("-")
    slide.locator(".hand").nth(2).click()
    slide.locator(".hand").nth(2).click()
    assert slide.locator("output").all_inner_texts() == ["0", "1", "2"]
    window.wait_for_timeout(300)  # the bars grow
    first, second, third = slide.locator(".bar").evaluate_all(widths)
    assert first == 0 < second < third
    slide.locator(".less").nth(1).click()
    window.goto("about:blank")
    opened(window, decks["12"], "Prediction 12.a")
    assert now(window).locator("output").all_inner_texts() == ["0", "0", "2"]
    window.keyboard.press("a")
    assert "is exactly the same" in now(window).locator(".answer").inner_text()
    assert now(window).locator(".answer").is_visible()
    assert now(window).locator(".measured").count() == 1


def test_a_solution_is_hidden_until_a_key_unfolds_it(decks, window):
    opened(window, decks["12"], "Solution")
    source = now(window).locator("pre").first
    assert not source.is_visible()
    window.keyboard.press("c")
    assert source.is_visible()
    assert "def build_example" in now(window).inner_text()


def test_the_presenter_has_a_view_with_notes(decks, window):
    opened(window, decks["12"], "Prediction 12.a")
    with window.expect_popup() as popup:
        window.keyboard.press("s")
    notes = popup.value.locator(".speaker-controls-notes .value")
    notes.get_by_text("Measured: is exactly the same").wait_for()


@pytest.mark.parametrize(
    "notebook", [pytest.param("12_prompt_masking.ipynb", id="12")], indirect=True, scope="module"
)
def test_live_the_explorer_moves_and_hands_are_counted_before_a_class(notebook):
    notebook.look("presentation")
    assert notebook.page.viewport_size["width"] == WIDTHS["presentation"][0]
    sources, (explorer,) = notebook.sources(), cells(notebook)
    asked = notebook.find('"12.a"')
    wanted = {notebook.find("start("), *needed(sources, explorer)}
    notebook.run(*sorted(wanted - notebook.ran))
    notebook.show(explorer)
    assert not any(operate(notebook, notebook.output(explorer)).values())
    counted = f'from sftlab.classroom import show_of_hands\n{sources[asked]}\nshow_of_hands("12.a")'
    notebook.type_and_run(asked, counted)
    output = notebook.output(asked)
    notebook.show(asked)
    hand = output.locator("button.sft-choice", has_text="falls")
    hand.click()
    hand.click()
    output.get_by_text("2", exact=True).wait_for()
    notebook.screenshot("show_of_hands")
    assert not notebook.measure("cut_off") + notebook.measure("overlaps")
