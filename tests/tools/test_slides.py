"""The slides: a deck for every notebook, offline, with answers hidden and notes for whoever presents."""

from __future__ import annotations

import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from sftlab.classroom import catalogue, views
from sftlab.classroom.catalogue import prediction_ids
from sftlab.errors import WorkbookError
from tools import polls, presenter, slide_height, slide_layout, slide_text, slides, website
from tools.notebook_metadata import CHECK

try:
    slides.reveal_files()
    carried = True
except WorkbookError:
    carried = False
needs_reveal = pytest.mark.skipif(not carried, reason="reveal.js is fetched by `make slides`")
NUMBERS = website.numbers()


@pytest.fixture(scope="module")
def decks():
    return {number: slide_layout.Deck(number) for number in NUMBERS}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The pages of the build: file name -> text."""
    pages = slides.build(tmp_path_factory.mktemp("slides") / "slides")
    return {path.name: path.read_text(encoding="utf-8") for path in pages}


@needs_reveal
@pytest.mark.slow
def test_every_notebook_makes_a_deck_that_needs_no_network(written):
    own = {"index.html", "live.html"}
    assert set(written) == {website.page_name(n) for n in NUMBERS} | own
    for name, text in written.items():
        loaded = re.findall(r'<(?:link|script|img|iframe)[^>]*?(?:src|href)="([^"]{0,60})', text)
        assert loaded, name
        for source in loaded:
            allowed = ("data:image/png", "reveal/", "slides.", "pages.css", "live.")
            allowed += ("almanac.js",)
            assert source.startswith(allowed), f"{name}: {source}"
        assert "url(http" not in text and "@import" not in text
        links = re.findall(r'href="(\d\d_\w+\.html)', text)
        assert set(links) <= set(written), name


@needs_reveal
@pytest.mark.slow
def test_solutions_are_folded_and_measured_answers_wait(written):
    for name, text in written.items():
        assert "<details open" not in text
        assert 'class="poll told' not in text
        assert "NotImplementedError" in text or name[:2] not in NUMBERS[1:]


def test_each_prediction_has_a_slide_before_and_one_after_with_its_answer_in_the_notes(decks):
    for number, made in decks.items():
        for id in prediction_ids(number):
            own = [s for s in made.slides if s.heading == f"Prediction {id}"]
            assert len(own) == 2, id
            for slide in own:
                assert len([p for p in slide.pieces if "data-poll" in _html(p)]) == 1
                assert f"Measured: <b>{_inline(made.polls[id].measured)}</b>" in slide.notes[-1]
            before, after = (_html(slide.pieces[0]) for slide in own)
            assert "fragment" not in before and "answer fragment" in after


def test_no_outcome_or_parameter_or_check_is_shown_elsewhere(decks):
    for number, made in decks.items():
        for slide in made.slides:
            for piece in slide.pieces:
                text = piece.cell.source + _html(piece)
                assert "You made no prediction here" not in text, number
                assert "MODEL =" not in piece.cell.source or "start(" not in piece.cell.source
                assert not CHECK.search(piece.cell.source), number


def test_each_task_tells_the_mistakes_to_expect(decks):
    for number in catalogue.numbers():
        notes = " ".join(note for slide in decks[number].slides for note in slide.notes)
        for id in catalogue.exercises(number):
            assert presenter.of_check(id) in notes, id


def test_a_slide_has_a_heading_and_something_on_it(decks):
    for number, made in decks.items():
        for slide in made.slides:
            assert slide.heading and slide.pieces, f"{number}: {slide.heading}"
        assert "whole notebook" in made.slides[0].notes[0]


def test_minutes_of_a_load():
    load = presenter.Load(words=300, predictions=1, explorers=1, lines=24, checks=1)
    assert load.to_show == 6 and load.to_work_through == 16
    assert (load + load).to_show == 12
    assert presenter.words("two <math><mi>a</mi> <mi>b</mi></math> three") == 3


def test_a_prediction_without_a_stored_outcome_is_refused():
    asked = new_code_cell('predict("12.a", "Which?", ["this", "that"])')
    with pytest.raises(WorkbookError, match=r"12\.a has no stored outcome.*make notebooks"):
        polls.polls([asked])
    said = {"kind": "outcome", "id": "12.a", "measured": "that", "because": "So."}
    told = new_code_cell(outputs=[new_output("display_data", {}, metadata={"sftlab": said})])
    found = polls.polls([asked, told])["12.a"]
    assert (found.measured, found.because, polls.told_by(told)) == ("that", "So.", ["12.a"])


def test_more_text_takes_more_room():
    short, long = (slide_height.slide_height(new_markdown_cell("word " * n)) for n in (5, 200))
    assert 0 < short < long


def test_a_table_takes_the_room_of_what_is_read_in_it():
    plain, short = (views.table([["a", n]] * 3, ["what", "how many"]).html for n in (1, 2))
    more = views.table([["a", 1]] * 4, ["what", "how many"]).html
    broken = views.table([["a", "word " * 60]] * 3, ["what", "how many"]).html
    height = [
        slide_height.slide_height(slide_layout._html(text)) for text in (plain, short, more, broken)
    ]
    assert height[0] == height[1] < height[2] < height[3]
    assert height[0] < 200


def test_a_table_that_is_too_high_is_spread_over_slides_with_its_headers():
    made = views.table([[n, "said"] for n in range(40)], ["number", "answer"], "forty").html
    spread = slide_height.parts(made)
    assert len(spread) > 1
    assert all("forty" in part and "number" in part for part in spread)
    heights = [slide_height.slide_height(slide_layout._html(part)) for part in spread]
    assert max(heights) < slide_height.ROOM and max(heights) - min(heights) <= 3 * slide_height.ROW
    told = [re.findall(r">(\d+)</td>", part) for part in spread]
    assert [int(n) for part in told for n in part] == list(range(40))
    assert slide_height.parts("<p>no table</p>") == ["<p>no table</p>"]


def test_only_what_moves_in_jupyterlab_is_called_a_still_picture(decks):
    still = [
        s.heading
        for s in decks["05"].slides
        for p in s.pieces
        if p.after in (slide_layout.LIVE, slide_layout.LIVE_HERE)
    ]
    assert still == ["Explore"]


def test_without_reveal_js_it_says_what_to_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(slides, "CARRIER", "a_package_that_is_not_there")
    assert website.command(slides.build, "the slides", [str(tmp_path / "out")]) == 1
    assert "make slides" in capsys.readouterr().err


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WorkbookError, match="empty folder"):
        website.write(tmp_path, {"index.html": ""}, {}, own="slides.js")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def _html(piece) -> str:
    return "".join(o.get("data", {}).get("text/html", "") for o in piece.cell.get("outputs", []))


def _inline(text: str) -> str:
    return polls.html_cards.inline(text)


def test_a_slide_shows_forty_words_of_running_text(decks):
    """Unless it is one sentence, or what only the eye reads: tables, code, pictures."""
    for number, deck in decks.items():
        for slide in deck.slides:
            shown = [
                p.cell.source
                for p in slide.pieces
                if p.words
                and (slide_text.PLAIN.match(p.cell.source) or slide_text.LIST.match(p.cell.source))
            ]
            total = sum(map(presenter.words, shown))
            alone = len(shown) == 1 and len(slide_text.sentences(shown[0])) == 1
            assert total <= slide_text.SHOWN or alone, (number, slide.heading, total)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two? Three.", ["One.", "Two?", "Three."]),
        ("It is *one. And two.* Three.", ["It is *one. And two.*", "Three."]),
        (
            "See e.g. this (A. B.) now. **So.** It ends.",
            ["See e.g. this (A. B.) now.", "**So.**", "It ends."],
        ),
        (
            "Ask `model.eval()` first. [A. B](x.html) next.",
            ["Ask `model.eval()` first.", "[A. B](x.html) next."],
        ),
    ],
)
def test_sentences_are_not_cut_in_marks_or_brackets(text, expected):
    assert slide_text.sentences(text) == expected


def test_what_is_not_shown_is_said_and_questions_are_shown():
    text = (
        "The first has five words. "
        + "Then nine words that are no question at all. " * 5
        + "Why is that?"
    )
    shown, said = slide_text.shorten(text)
    assert shown.startswith("The first has five words.") and shown.endswith("Why is that?")
    assert presenter.words(shown) <= slide_text.SHOWN
    assert sorted(slide_text.sentences(f"{shown} {said}")) == sorted(slide_text.sentences(text))


def test_items_keep_what_they_begin_with_and_tables_all():
    more = "More of it is said here. " * 9
    shown, said = slide_text.shorten(f"- **First.** What is it? {more}\n- Second. {more}".strip())
    first, second = shown.split("\n")
    assert first.startswith("- **First.** What is it?") and second.startswith("- Second.")
    assert presenter.words(shown) <= slide_text.SHOWN < presenter.words(said)
    assert [line[:2] for line in said.splitlines()] == ["- ", "- "]
    table = "| a | b |\n|---|---|\n" + "| many words | and more |\n" * 20
    assert slide_text.shorten(table) == (table, "")


@needs_reveal
@pytest.mark.browser
@pytest.mark.slow
def test_a_deck_is_printed_page_by_page(tmp_path, monkeypatch, decks):
    if not website.chromium():
        pytest.skip("no chromium on PATH")
    monkeypatch.setattr(website, "numbers", lambda: ["04"])
    slides.build_and_print(tmp_path / "slides")
    printed = (tmp_path / "slides" / website.page_name("04")).with_suffix(".pdf").read_bytes()
    assert printed.count(b"/Type /Page\n") == len(decks["04"].slides)


def test_without_a_browser_printing_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("SFTLAB_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkbookError, match="no chromium"):
        slides.print_pdfs([tmp_path / "04.html"])
