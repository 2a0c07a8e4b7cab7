"""The book: pages without a network, links that lead somewhere, formulas, folded solutions, predictions."""

from __future__ import annotations

import re
from functools import partial
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from sftlab.classroom import catalogue
from sftlab.classroom.catalogue import NOTEBOOKS
from sftlab.errors import WorkbookError
from tools import book, explorers, website

LESSONS = {f"{path.stem}.html" for path in NOTEBOOKS.glob("*.ipynb")}


class Seen(HTMLParser):
    """What a page refers to, its pictures and its anchors."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loaded, self.pictures, self.ids, self.tags = [], [], [], set(), set()
        self.asked, self.told = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.add(tag)
        self.ids.add(found.get("id"))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(found["href"])
        if found.get("src"):
            self.loaded.append(found["src"])
        if found.get("class") in ("ask", "yours"):
            (self.asked if found["class"] == "ask" else self.told).append(found["data-poll"])
        if tag == "img":
            self.pictures.append(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # all of them take a minute
        patch.setattr(explorers, "build", partial(explorers.build, ids=["08.pick_a_start"]))
        return book.build(tmp_path_factory.mktemp("book") / "book")[0].parent


@pytest.fixture(scope="module")
def pages(folder):
    return {path.name: Seen(path.read_text(encoding="utf-8")) for path in folder.glob("*.html")}


def test_there_is_a_page_for_every_notebook_and_the_side_bar_names_all(pages):
    own = {"index.html", "live.html", "search.html", *(f"{name}.html" for name in book.DOCUMENTS)}
    assert set(pages) == LESSONS | own
    for name, seen in pages.items():
        assert set(pages) - {name, "search.html"} <= {urlsplit(link).path for link in seen.links}


def test_the_parts_name_every_notebook_once():
    named = " ".join(book.PARTS.values()).split()
    assert sorted(named) == catalogue.numbers()


def test_nothing_comes_from_the_network(pages, folder):
    for name, seen in pages.items():
        assert not {"iframe", "object"} & seen.tags, name
        for source in seen.loaded:
            assert (folder / urlsplit(source).path).is_file(), f"{name}: {source}"
    for sheet in folder.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", sheet.read_text("utf-8")), sheet


def test_every_link_leads_somewhere(pages):
    for name, seen in pages.items():
        for link in seen.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https"):
                continue  # sources on the web are not looked up here
            target = unquote(parts.path) or name
            assert target in pages, f"{name}: {link}"
            anchors = {parts.fragment, unquote(parts.fragment)}  # browsers try both
            assert not parts.fragment or anchors & pages[target].ids, f"{name}: {link}"


def test_every_picture_has_words_and_its_size(pages):
    for name, seen in pages.items():
        for picture in seen.pictures:
            alt = picture.get("alt", "")
            assert len(alt) > 20 and "No description" not in alt, name
            assert int(picture["width"]) > 0 and int(picture["height"]) > 0, name


def test_solutions_are_folded(pages):
    for name in LESSONS:
        assert name[:2] == "00" or "details" in pages[name].tags, name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a $x^2$ b", r'a <math[^>]*display="inline".*</math> b'),
        ("$$\\frac{1}{N}$$", r'<math[^>]*display="block".*<mfrac>.*</math>'),
        ("$a * b * c$", r"<math[^*]*</math>"),
        ("`$HOME` costs $5 and $6", r"`\$HOME` costs \$5 and \$6"),
        ("```\n$a$\n```", "```\n\\$a\\$\n```"),
    ],
)
def test_formulas_become_mathml_and_code_and_prices_stay(text, expected):
    assert re.fullmatch(expected, website.with_mathml(text), re.S)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WorkbookError, match="empty folder"):
        book.build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_workbook_on_github_points_to_where_it_runs(monkeypatch):
    monkeypatch.setattr(book.colab, "origin", lambda: "somewhere else")
    assert book._elsewhere("04_sft_loss.ipynb") == ""
    monkeypatch.setattr(book.colab, "origin", lambda: "git@github.com:someone/workbook.git")
    told = book._elsewhere("04_sft_loss.ipynb")
    assert "mybinder.org/v2/gh/someone/workbook/main?urlpath=lab/tree/notebooks/04_sft" in told
    assert "Colab" not in told  # its copies are not there


def test_what_sphinx_complains_about_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(book, "_write_sources", _one_page_with_a_lost_link)
    with pytest.raises(WorkbookError, match="lost"):
        book.build(tmp_path / "book")


def _one_page_with_a_lost_link(source):
    for name in ("static", "extra"):
        (source / name).mkdir()
    (source / "index.md").write_text("# A page\n\n[lost](lost.md)\n")
    for name in ("book.css", "live.css", "book.js"):
        (source / "static" / name).touch()


def test_every_prediction_can_be_made_and_its_outcome_repeats_it(pages):
    for name in LESSONS:
        seen = pages[name]
        assert seen.asked == catalogue.prediction_ids(name[:2])
        assert sorted(seen.told) == sorted(seen.asked), name
        assert {f"outcome-{id}" for id in seen.asked} <= seen.ids


def test_the_first_page_is_light_and_the_weights_are_stored_once(pages, folder):
    def weight(name):
        loaded = {urlsplit(source).path for source in pages[name].loaded}
        return sum((folder / path).stat().st_size for path in (name, *loaded))

    assert weight("index.html") < 1_000_000
    assert weight("live.html") < 1_000_000  # the weights come when they are asked
    assert (folder / "weights.js").stat().st_size < 10_000_000
    assert len(list(folder.rglob("weights*"))) == 1
