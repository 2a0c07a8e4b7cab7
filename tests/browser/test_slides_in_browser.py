"""The slides in a browser without a network, and the live mode: JupyterLab before a class."""

from __future__ import annotations

import pytest
from conftest import ALL_CELLS
from explorers import cells, operate
from lab import WIDTHS
from needed_cells import needed

from sftlab.errors import WorkbookError
from tools import slides, website

pytestmark = [pytest.mark.browser, pytest.mark.slow]
# All of them in `make browser`, otherwise those with formulas, tokens, wide tables and pictures.
SHOWN = tuple(website.numbers()) if ALL_CELLS else ("04", "12", "14", "22")
SIZES = [(1280, 720), (1920, 1080)]
SCROLL = {("14", "Four families"), ("22", "Explore")}  # four views of one chat; two tables at once
# Walks through all slides: as they come, with the code and solutions unfolded, with the answer told.
FAULTS = """() => {
  const faults = [], scrolling = [];
  const look = (slide, how) => {
    const heading = slide.querySelector('h1, h2'), body = slide.querySelector('.body'), own = body.getBoundingClientRect();
    const fault = (what) => faults.push(`${heading.textContent} (${how}): ${what}`);
    const scrolls = body.classList.contains('scrolls');
    if (scrolls && how === 'folded') scrolling.push(heading.textContent);
    if (body.scrollWidth > body.clientWidth) fault('wider than the slide');
    if (own.bottom > innerHeight || own.right > innerWidth) fault('beyond the window');
    if (own.top < heading.getBoundingClientRect().bottom) fault('over the heading');
    if (body.scrollHeight > body.clientHeight && !scrolls) fault(`cut off: ${body.scrollHeight} of ${body.clientHeight} pixels`);
    if (parseInt(body.style.fontSize) < 75) fault('too small');
    for (const picture of body.querySelectorAll('img')) {
      if (!picture.naturalWidth) fault('a broken picture');
      const ratio = picture.naturalWidth / picture.naturalHeight, height = Math.min(picture.offsetHeight, picture.offsetWidth / ratio);
      if (how === 'folded' && height < 300 && height * ratio < 1100) fault('a small picture');
    }
  };
  for (const slide of Reveal.getSlides()) {
    const {h, v} = Reveal.getIndices(slide);
    Reveal.slide(h, v);
    look(slide, 'folded');
    if (slide.querySelector('.poll')) { turn(slide.querySelector('.poll')); look(slide, 'told'); turn(slide.querySelector('.poll')); }
    const folded = [...slide.querySelectorAll('details')];
    folded.forEach(d => { d.open = true; }); fit(); look(slide, 'unfolded');
    folded.forEach(d => { d.open = false; });
  }
  return [faults, scrolling];
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
    own.on("console", lambda told: errors.append(told.text) if told.type == "error" else None)
    yield own
    context.close()
    assert not errors


def opened(window, path, heading="", last=False):
    """The deck, at the first slide of a heading, or at the last."""
    window.goto(path.as_uri())
    window.wait_for_function("window.Reveal && Reveal.isReady()")
    window.evaluate(
        """([heading, last]) => {
           const found = Reveal.getSlides()[last ? 'findLast' : 'find'](s => s.querySelector('h1, h2').textContent.startsWith(heading));
           const {h, v} = Reveal.getIndices(found); Reveal.slide(h, v); }""",
        [heading, last],
    )


def now(window):
    """The slide that is shown."""
    return window.locator("section.present:not(.stack)")


def test_arrows_lead_through_all_slides(decks, window):
    opened(window, decks["12"])
    for _ in range(2 * window.evaluate("Reveal.getTotalSlides()")):
        window.keyboard.press("ArrowRight")
    assert window.evaluate("Reveal.isLastSlide()")


@pytest.mark.parametrize("number", SHOWN)
def test_nothing_is_cut_off_and_hardly_a_slide_has_to_be_scrolled(decks, window, number):
    opened(window, decks[number])
    for width, height in SIZES:
        window.set_viewport_size({"width": width, "height": height})
        window.evaluate(SETTLED)
        faults, scrolling = window.evaluate(FAULTS)
        assert not faults, width
        assert {(number, heading) for heading in scrolling} <= SCROLL, width


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
    assert "more than 0.5" in now(window).locator(".answer").inner_text()
    assert now(window).locator(".answer").is_visible()
    assert now(window).locator(".measured").count() == 1


def test_after_the_experiment_the_answer_is_one_step_for_the_arrow_and_the_key_alike(decks, window):
    opened(window, decks["12"], "Prediction 12.a", last=True)
    answer = now(window).locator(".answer")
    for key, shown in (("a", True), ("a", False), ("ArrowRight", True), ("ArrowLeft", False)):
        window.keyboard.press(key)
        assert answer.is_visible() == shown, key


def test_a_solution_is_hidden_until_a_key_unfolds_it(decks, window):
    opened(window, decks["12"], "12b", last=True)
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
    notes.get_by_text("Measured: more than 0.5").wait_for()


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
    hand = output.locator("button.sft-choice", has_text="not at all")
    hand.click()
    hand.click()
    output.get_by_text("2", exact=True).wait_for()
    notebook.screenshot("show_of_hands")
    assert not notebook.measure("cut_off") + notebook.measure("overlaps")
