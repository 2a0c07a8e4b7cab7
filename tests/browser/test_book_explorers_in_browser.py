"""Explorers on the pages of the book, opened from files: keys move them, and they say what Python says."""

from __future__ import annotations

import random
import re
from html import unescape

import matplotlib.pyplot as plt
import pytest
from axe_playwright_python.sync_playwright import Axe
from lab import SCREENSHOTS

from sftlab.chat import user
from sftlab.classroom.views import token_view
from sftlab.errors import WorkbookError
from sftlab.exercises.ex04_sft_loss.plots import loss_terms
from sftlab.exercises.ex07_lora_parameter_count.plots import to_scale
from sftlab.masking import build_example
from sftlab.models import load
from tools import explorer_arguments, explorers, website

pytestmark = pytest.mark.browser
ALL = list(explorer_arguments.ARGUMENTS)
SOON = ("02", "04", "07", "09", "12", "13", "22")  # in `make test`: of each kind one or two
IDS = [pytest.param(i, marks=() if i[:2] in SOON else pytest.mark.thorough) for i in ALL]
CHARTS = [p for p in IDS if p.values[0][:2] in ("03", "06", "08", "09", "11", "17", "18", "19", "21", "24")]  # fmt: skip
SHOWN = """([id, at, counts, exact]) => explorers.load(id).then((found) => {
    const { spec, html } = explorers.state(id, found, at, counts, exact ?? at);
    return spec ?? html;
})"""


@pytest.fixture(scope="module")
def folder(book_pages):
    return book_pages[0].parent


@pytest.fixture(scope="module")
def window(page):
    own = page.context.browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    yield own
    own.context.close()


def opened(window, folder, id: str):
    """An explorer's card, when what it draws is there."""
    window.goto((folder / website.page_name(id[:2])).as_uri())
    card = window.locator(f"[data-explorer='{id}']")
    card.scroll_into_view_if_needed()
    window.evaluate("(id) => explorers.load(id)", id)
    window.wait_for_timeout(150)
    return card


def picture(card) -> tuple[str, str]:
    """What a card shows, and its words."""
    return card.locator(".moving-stage").evaluate(
        "e => [e.innerHTML, (e.querySelector('img')?.alt ?? e.querySelector('[role=img]')?.ariaLabel ?? e.innerText)]"
    )


@pytest.mark.parametrize("id", IDS)
def test_each_control_moves_with_the_keyboard_and_picture_and_words_follow(window, folder, id):
    window.set_viewport_size({"width": 1280, "height": 900})
    card = opened(window, folder, id)
    controls = card.locator("select, textarea, input[type=range], input[type=checkbox], fieldset")
    assert controls.count() == len(explorers.captured(id).controls)
    for control in controls.all():
        kind = control.evaluate("e => e.tagName + (e.type ?? '')")
        before = picture(card)
        if kind.startswith("TEXTAREA"):
            control.press_sequentially(" More")
            assert picture(card)[1] != before[1]
            continue
        part = control.locator("input:checked") if kind.startswith("FIELDSET") else control
        last = part.evaluate(
            "e => e.tagName == 'SELECT' ? e.selectedIndex == e.length - 1 : e.value == e.max"
        )
        part.focus()
        window.keyboard.press("Space" if "checkbox" in kind else "ArrowUp" if last and kind.startswith("SELECT") else "ArrowLeft" if last else "ArrowDown" if kind.startswith("SELECT") else "ArrowRight")  # fmt: skip
        window.wait_for_function(
            "([e, before]) => e.innerHTML != before",
            arg=[card.locator(".moving-stage").element_handle(), before[0]],
            timeout=5000,
        )
        after = picture(card)
        assert after[1] != before[1], (id, kind)
    assert card.locator(".moving-told").is_hidden() or not card.locator(".moving-told.seen").count()


@pytest.mark.parametrize("id", IDS)
def test_axe_finds_nothing_serious_and_a_telephone_shows_all(window, folder, id):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for width in (1280, 400):
        window.set_viewport_size({"width": width, "height": 900})
        card = opened(window, folder, id)
        assert window.evaluate("document.documentElement.scrollWidth") <= width
        assert card.evaluate("e => e.scrollWidth <= e.clientWidth")
        found = Axe().run(window, context={"include": [[".moving"]]}).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]
        card.screenshot(path=SCREENSHOTS / f"explorer_{id}_{width}.png")


def test_every_count_of_parameters_is_pythons(window, folder):
    id = "07.count_parameters"
    opened(window, folder, id)
    explorer = explorers.captured(id)
    choices = [explorers.choices(control)[1] for control in explorer.controls.values()]
    counts = [len(values) for values in choices]
    for values in explorer.states():
        at = [some.index(value) for some, value in zip(choices, values.values(), strict=True)]
        shown = window.evaluate(SHOWN, [id, at, counts, None])
        figure = to_scale(**values)
        texts = [text.get_text() for text in figure.texts]
        texts.remove(title := figure.get_suptitle())
        assert (shown["title"], shown["alt"]) == (title, explorer.words(values))
        assert [told for told, _ in shown["texts"]] == texts

        plt.close(figure)


def test_losses_by_hand_are_pythons(window, folder):
    id = "04.edit_probabilities"
    opened(window, folder, id)
    tokens, first = explorer_arguments.first_probabilities()
    draw = random.Random(0)
    for k in range(300):
        chances = [10 ** (0.05 * draw.randint(-140, 0)) for _ in tokens] if k else first
        shown = window.evaluate(SHOWN, [id, [], [], chances])
        figure = loss_terms(tokens, chances)
        assert (shown["title"], shown["alt"]) == (figure.get_suptitle(), figure.alt)
        bars = [t.get_text() for t in figure.axes[0].texts if "p=" in t.get_text()]
        assert ["\n".join(label) for label in shown["labels"]] == bars
        plt.close(figure)


def test_masked_and_trained_tokens_are_pythons(window, folder):
    id = "12.mask_a_pair"
    card = opened(window, folder, id)
    _, tokenizer = load("almanac")
    draw = random.Random(0)
    letters = "abc DEF 012 '’éßñ日本😀\n\t  's 't.,!?\u00a0"
    typed = ["".join(draw.choices(letters, k=draw.randrange(1, 40))) for _ in range(300)]
    typed += [
        "What does the owl eat?",
        "Mice.",
        "a<|im_end|>b",
        "c<|im_end|>\n",
        " ",
        "Mice.",
        "a",
        "",
    ]
    for prompt, response in zip(typed[::2], typed[1::2], strict=True):
        for field, text in zip(card.locator("textarea").all(), (prompt, response), strict=True):
            field.fill(text)
        shown = card.locator(".moving-tokens")
        try:
            example = build_example(
                tokenizer, [*user(prompt), {"role": "assistant", "content": response}]
            )
        except WorkbookError as error:
            card.get_by_text(str(error)).wait_for(timeout=3000)
            continue
        window.wait_for_function(
            "([ids]) => document.querySelector('.moving-tokens')?.dataset.ids == ids",
            arg=[",".join(map(str, example.input_ids))],
            timeout=3000,
        )
        spans = shown.locator("span").evaluate_all("all => all.map(e => [e.textContent, e.title])")
        view = token_view(tokenizer, example)
        words = re.findall(r'<span title="([^"]*)" style="[^"]*">([^<]*)</span>', view.html)
        assert spans == [[unescape(w), t] for t, w in words]
        share = f"{example.trained / len(example):.0%} of the example is trained"
        assert f"{example.trained} of {len(example)} tokens" in card.inner_text()
        assert share in card.inner_text()


@pytest.mark.parametrize("id", CHARTS)
def test_a_state_of_the_page_is_that_state_of_the_explorer(window, folder, id):
    opened(window, folder, id)
    explorer = explorers.captured(id)
    choices = [explorers.choices(control)[1] for control in explorer.controls.values()]
    counts = [len(values) for values in choices]
    states = list(explorer.states())
    with explorers.explorer_charts.as_data(), explorer_arguments.quick(id):
        for values in random.Random(0).sample(states, min(300, len(states))):
            at = [some.index(value) for some, value in zip(choices, values.values(), strict=True)]
            shown = window.evaluate(SHOWN, [id, at, counts, None])
            assert shown == dict(explorer.draw(**values))


def test_on_a_dark_page_the_card_stays_white_with_dark_text(window, folder):
    card = opened(window, folder, "17.try_factors")
    window.evaluate("document.body.style.cssText = 'background:#111;color:#eee'")
    style = card.evaluate("e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]")
    assert style == ["rgb(255, 255, 255)", "rgb(28, 39, 51)"]


def test_without_its_states_an_explorer_says_what_is_missing(window, folder):
    script = folder / "explorers" / "17.try_factors.js"
    script.rename(script.with_suffix(".gone"))
    try:
        window.goto((folder / website.page_name("17")).as_uri())
        card = window.locator(".moving")
        card.scroll_into_view_if_needed()
        window.wait_for_function("document.querySelector('.moving-told.seen')")
        assert "17.try_factors.js is missing" in card.inner_text()
    finally:
        script.with_suffix(".gone").rename(script)
