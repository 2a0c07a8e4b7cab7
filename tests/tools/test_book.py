"""The book: pages without a network, links that lead somewhere, formulas, folded solutions, predictions."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from sftlab.classroom import catalogue
from sftlab.classroom.catalogue import NOTEBOOKS
from sftlab.errors import WorkbookError
from tools import book, website


class Seen(HTMLParser):
    """What a page refers to, its pictures and its anchors."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.pictures, self.ids, self.tags = [], [], set(), set()
        self.scripts, self.asked, self.told = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.add(tag)
        self.ids.add(found.get("id"))
        if tag in ("a", "link") and found.get("href"):
            self.links.append(found["href"])
        if tag == "script":
            self.scripts.append(found.get("src"))
        if found.get("class") in ("ask", "yours"):
            (self.asked if found["class"] == "ask" else self.told).append(found["data-poll"])
        if tag == "img":
            self.pictures.append(found)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return book.build(tmp_path_factory.mktemp("book") / "book")


@pytest.fixture(scope="module")
def pages(built):
    return {path.name: Seen(path.read_text(encoding="utf-8")) for path in built}


def test_there_is_a_page_for_every_notebook_and_an_index(pages):
    own = {"index.html", "live.html"}
    assert set(pages) == {f"{p.stem}.html" for p in NOTEBOOKS.glob("*.ipynb")} | own
    assert {link for link in pages["index.html"].links if link.endswith(".html")} == set(pages) - {
        "index.html"
    }


def test_nothing_comes_from_the_network_and_only_the_books_own_scripts_run(pages):
    for name, seen in pages.items():
        assert not {"iframe", "object"} & seen.tags, name
        own = {"index.html": [], "live.html": ["almanac.js", "live.js"]}
        assert seen.scripts == own.get(name, ["book.js"]), name
        kinds = "data:image/png;base64,"
        assert all(picture["src"].startswith(kinds) for picture in seen.pictures)
        assert {link for link in seen.links if link.endswith(".css")} == {"book.css"}


def test_every_link_leads_somewhere(pages):
    for name, seen in pages.items():
        for link in seen.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") or parts.path == "book.css":
                continue  # sources on the web are not looked up here
            target = unquote(parts.path) or name
            assert target in pages, f"{name}: {link}"
            anchors = {parts.fragment, unquote(parts.fragment)}  # browsers try both
            assert not parts.fragment or anchors & pages[target].ids, f"{name}: {link}"


def test_every_picture_has_words(pages):
    for name, seen in pages.items():
        words = [picture.get("alt", "") for picture in seen.pictures]
        assert all(len(alt) > 20 and "No description" not in alt for alt in words), name


def test_solutions_are_folded(pages):
    for name, seen in pages.items():
        if name[:2].isdigit() and name[:2] != "00":
            assert "details" in seen.tags, name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a $x^2$ b", r'a <math[^>]*display="inline".*</math> b'),
        ("$$\\frac{1}{N}$$", r'<math[^>]*display="block".*<mfrac>.*</math>'),
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


def test_every_prediction_can_be_made_and_its_outcome_repeats_it(pages):
    for name, seen in pages.items():
        if name[:2].isdigit():
            assert seen.asked == catalogue.prediction_ids(name[:2])
            assert sorted(seen.told) == sorted(seen.asked), name
            assert {f"outcome-{id}" for id in seen.asked} <= seen.ids


def test_the_first_page_is_light_and_the_weights_are_stored_once(built):
    sizes = {path.name: path.stat().st_size for path in built[0].parent.iterdir()}
    assert sizes["index.html"] + sizes["book.css"] < 100_000
    assert sizes["live.html"] + sizes["almanac.js"] + sizes["live.js"] < 100_000
    assert sizes["weights.js"] < 10_000_000
