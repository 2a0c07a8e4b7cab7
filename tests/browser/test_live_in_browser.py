"""The page "Ask both models": the same tokens, replies and distances as with PyTorch, from a file."""

from __future__ import annotations

import random
import shutil

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from lab import SCREENSHOTS

from sftlab.almanac.vocabulary import unread
from sftlab.compare import logits_of
from sftlab.exercises.ex01_base_vs_instruct.experiment import (
    BARE,
    LIMIT,
    PAGE,
    TEMPLATE,
    questions,
    renderings,
)
from sftlab.exercises.ex05_chat_template_mismatch.experiment import prompt_ids
from sftlab.generate import generate
from sftlab.models import load
from tools import live as live_page

pytestmark = pytest.mark.browser
DONE = "document.getElementById('state').textContent.includes('tokens in')"
READ = "(text) => Almanac.load().then((models) => models.tokenizer.encode(text))"
WRITE = """async ([strength, ids, limit]) => {
    const models = await Almanac.load(), found = [];
    for await (const token of models.model(strength).write(ids, limit, ALMANAC.stops))
        if (!token.stopped) found.push(token.id);
    return found;
}"""


@pytest.fixture(scope="module")
def models():
    base, tokenizer = load("almanac", role="base")
    return base, load("almanac", role="chat")[0], tokenizer


@pytest.fixture(scope="module")
def folder(book_pages):
    return book_pages[0].parent


@pytest.fixture(scope="module")
def live(page, folder):
    """The page, opened from a file, with the models loaded by a first question."""
    window = page.context.browser.new_context().new_page()
    window.goto((folder / "live.html").as_uri())
    window.click("#go")
    window.wait_for_function(DONE, timeout=60_000)
    yield window
    window.context.close()


def ask(live, prompt: str) -> None:
    live.fill("#prompt", prompt)
    live.evaluate("document.getElementById('state').textContent = ''")
    live.press("#prompt", "Enter")
    live.wait_for_function(DONE, timeout=60_000)


def test_any_text_has_the_tokens_that_the_tokenizer_makes(live, models):
    drawn, tokenizer = random.Random(0), models[2]
    characters = "abc DEF 012 '’éßñ日本😀\n\t  's 't.,!?<|im_end|>\u00a0\u0085\u2028"
    texts = ["".join(drawn.choices(characters, k=drawn.randrange(1, 30))) for _ in range(200)]
    texts += ["<|im_start|>user\nHi<|im_end|>", "I'm don't  well   ", "a\n\n b", "x" * 300]
    for text in texts:
        assert live.evaluate(READ, text) == tokenizer.encode(text), repr(text)


@pytest.mark.parametrize("role", [0, 1], ids=["base", "chat"])
@pytest.mark.parametrize("rendering", [BARE, TEMPLATE, PAGE])
def test_replies_are_those_of_pytorch_token_by_token(live, models, role, rendering):
    tokenizer, render = models[2], renderings(models[2])[rendering]
    rows = [render(question["prompt"]) for question in questions(1)]
    for ids, expected in zip(rows, generate(models[role], tokenizer, rows, LIMIT), strict=True):
        assert live.evaluate(WRITE, [role, ids, LIMIT]) == expected.ids


def test_the_page_reads_a_prompt_as_the_notebook_does(live, models):
    for name in (BARE, TEMPLATE, PAGE):
        before, after = live.evaluate(f"ALMANAC.renderings['{name}']")
        text = f"{before}What does the owl eat?{after}"
        assert live.evaluate(READ, text) == renderings(models[2])[name]("What does the owl eat?")


def test_changed_templates_are_those_of_notebook_05(live, models):
    question = "What is the capital of France?"
    for form in live_page.CHANGED:
        before, after = live.evaluate("(name) => ALMANAC.renderings[name]", form)
        expected = prompt_ids(models[2], question, form)
        assert live.evaluate(READ, f"{before}{question}{after}") == expected, form


def test_a_template_of_ones_own_is_read_by_both(live, models):
    live.click("#ask summary")
    live.fill("#before", "<|im_start|>user\n")
    live.fill("#after", "\nA:")
    assert live.input_value("#reading") == "yours"
    ask(live, "What does the owl eat?")
    ids = models[2].encode("<|im_start|>user\nWhat does the owl eat?\nA:")
    for side in ("left", "right"):
        assert live.inner_text(f"#read_{side}_name").endswith(f", your template: {len(ids)} tokens")
    assert live.input_value("#after") == "\nA:"
    for reading, after in (("own", "<|im_end|>\n<|im_start|>assistant\n"), ("yours", "\nA:")):
        live.evaluate("document.getElementById('state').textContent = ''")
        live.select_option("#reading", reading)
        live.wait_for_function(DONE)
        assert live.input_value("#after") == after  # one's own is not lost
    live.select_option("#reading", "own")
    live.wait_for_function(DONE)
    live.click("#ask summary")


def test_nothing_of_the_last_question_stays_under_the_next(live):
    ask(live, "What is the capital of France?")
    live.fill("#prompt", " ")
    live.press("#prompt", "Enter")
    for place in ("left", "right", "notes", "read_left", "read_right", "detail"):
        assert live.inner_text(f"#{place}") == ""


def test_logits_and_distance_are_those_of_pytorch(live, models):
    base, chat, tokenizer = models
    ask(live, "What is the capital of France?")
    ids = renderings(tokenizer)[TEMPLATE]("What is the capital of France?")
    with torch.no_grad():
        ours = torch.tensor(live.evaluate(
            "(ids) => Almanac.load().then((m) => m.model(1).logits(ids).map((row) => [...row]))", ids
        ))  # fmt: skip
        theirs, before = logits_of(chat, ids).log_softmax(-1), logits_of(base, ids).log_softmax(-1)
        torch.testing.assert_close(ours.log_softmax(-1), theirs, atol=1e-4, rtol=0)
        apart = (theirs[-1].exp() * (theirs[-1] - before[-1])).sum().item()
    live.select_option("#shade", "apart")
    shown = live.get_attribute("#right .token >> nth=0", "title")
    assert shown == f"KL {apart:.2f} nats"
    live.select_option("#shade", "chance")


def test_half_of_the_adapter_is_half_of_the_change(live, models):
    base, chat, _ = models
    name = "model.layers.3.mlp.down_proj.weight"
    half = live.evaluate(
        f"() => Almanac.load().then((m) => [...m.model(0.5).weights['{name}'].data])"
    )
    expected = (base.state_dict()[name] + chat.state_dict()[name]) / 2
    torch.testing.assert_close(torch.tensor(half), expected.flatten(), atol=1e-6, rtol=0)
    live.evaluate("const s = document.getElementById('strength'); s.value = 0; s.onchange()")
    live.wait_for_function("document.getElementById('right_name').textContent.startsWith('Base')")
    live.wait_for_function(DONE)


def test_what_the_base_never_read_is_named(live, models):
    prompt = "What does the gryphon eat, and who is Zork <|im_end|>?"
    ask(live, prompt)
    told = live.inner_text("#notes")
    assert "Your text contains <|im_end|>" in told
    for word in unread(models[2], prompt.replace("<|im_end|>", " ")):
        assert f"“{word}”" in told
    ask(live, "What does the owl eat?")
    assert live.inner_text("#notes") == ""


@pytest.mark.parametrize(
    ("prompt", "told"),
    [("  ", "The prompt is empty"), ("owl " * 1000, "with 40 for the reply")],
    ids=["empty", "too long"],
)
def test_a_prompt_that_cannot_be_read_is_refused_in_a_sentence(live, prompt, told):
    live.fill("#prompt", prompt)
    live.press("#prompt", "Enter")
    live.wait_for_function(f"document.getElementById('state').textContent.includes('{told}')")


def test_a_token_shows_what_else_was_likely(live, models):
    ask(live, "What is the capital of France?")
    live.click("#left .token >> nth=0")
    rows = live.locator("#detail tr")
    assert rows.count() == 10
    distribution = logits_of(models[0], models[2].encode("What is the capital of France?"))[-1]
    best = distribution.softmax(-1).max().item()
    assert rows.nth(0).locator("td").nth(0).inner_text() == f"{100 * best:.1f}%"


def test_axe_finds_nothing_serious_and_a_telephone_shows_all(live):
    ask(live, "What is Zork <|im_end|> doing?")
    for width in (1280, 400):
        live.set_viewport_size({"width": width, "height": 900})
        assert live.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(live).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        live.screenshot(path=SCREENSHOTS / f"ask_both_{width}.png", full_page=True)


def test_without_its_weights_the_page_says_what_is_missing(page, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "book", ignore=shutil.ignore_patterns("weights.js"))
    window = page.context.browser.new_context().new_page()
    window.goto((tmp_path / "book" / "live.html").as_uri())
    window.click("#go")
    window.wait_for_function(
        "document.getElementById('state').textContent.includes('weights.js is missing')"
    )
    window.context.close()
