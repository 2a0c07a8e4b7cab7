"""Predictions, checks, progress and explorers: what a student may rely on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading

import pytest

import sftlab.classroom as classroom
from sftlab.classroom import (
    catalogue,
    check_results,
    html_cards,
    outcome,
    predict,
    predictions,
    progress,
    reveal,
    sandbox,
    show_progress,
    start,
)
from sftlab.classroom.checking import Case, Exercise, examine
from sftlab.classroom.views import table
from sftlab.errors import WorkbookError
from sftlab.masking import mask_prompt

OPTIONS = ["rises", "falls", "is the same"]


@pytest.fixture(autouse=True)
def nothing_asked():
    predictions._asked.clear()


@pytest.fixture
def shown(monkeypatch):
    """What would be displayed: (html, text) pairs."""
    kept = []
    monkeypatch.setattr(
        html_cards, "show", lambda html, text, widget=None, **data: kept.append((html, text))
    )
    return kept


def stored() -> dict:
    return json.loads(progress.progress_path().read_text())


# --- progress ------------------------------------------------------------------------------


def test_progress_is_sorted_json_with_a_version():
    progress.update(lambda p: p["checks"].update({"b": {"solved": True}}))
    progress.update(lambda p: p["checks"].update({"a": {"solved": False}}))
    text = progress.progress_path().read_text()
    assert json.loads(text)["version"] == progress.VERSION
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"version": 99}', '{"version": 1, "checks": 3, "predictions": {}}']
)
def test_a_damaged_file_is_set_aside_and_nothing_is_lost(damage):
    path = progress.progress_path()
    path.write_text(damage)
    assert progress.load()["checks"] == {}
    notice = progress.update(lambda p: p["checks"].update({"a": {}}))
    assert "kept as progress.damaged.json" in notice
    assert path.with_name("progress.damaged.json").read_text() == damage
    assert stored()["checks"] == {"a": {}}


def test_a_second_damaged_file_does_not_replace_the_first():
    path = progress.progress_path()
    for text in ("one", "two"):
        path.write_text(text)
        progress.update(lambda p: None)
    aside = sorted(p.read_text() for p in path.parent.glob("progress.damaged*.json"))
    assert aside == ["one", "two"]


def test_notebooks_that_write_at_once_keep_each_others_entries():
    def write(number: int) -> None:
        for k in range(10):
            name = f"{number}.{k}"
            progress.update(lambda p, name=name: p["checks"].update({name: {}}))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stored()["checks"]) == 60


def test_an_exercise_can_be_forgotten_to_begin_afresh():
    predict("12.a", "?", OPTIONS, answer="rises")
    predict("13.a", "?", OPTIONS, answer="rises")
    progress.forget("12")
    assert list(stored()["predictions"]) == ["13.a"]


# --- predictions ---------------------------------------------------------------------------


def test_a_prediction_is_stored_at_once_with_a_time():
    predict("12.a", "The loss …", OPTIONS, answer="falls")
    entry = stored()["predictions"]["12.a"]
    assert entry["choice"] == "falls"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", entry["time"])


def test_a_prediction_can_be_changed_until_its_outcome_was_shown(shown):
    predict("12.a", "The loss …", OPTIONS, answer="falls")
    predict("12.a", "The loss …", OPTIONS, answer="rises")
    outcome("12.a", "is the same")
    predict("12.a", "The loss …", OPTIONS, answer="is the same")
    entry = stored()["predictions"]["12.a"]
    assert (entry["choice"], entry["right"]) == ("rises", False)
    assert "stays as it was" in shown[-1][1]


@pytest.mark.parametrize(
    ("answer", "right", "said"),
    [
        ("falls", True, "You predicted falls, and so it is. Measured: falls."),
        ("rises", False, "You predicted rises. It turned out otherwise. Measured: falls."),
        (None, None, "You made no prediction here. Measured: falls."),
    ],
)
def test_the_outcome_says_what_was_predicted_and_measured(answer, right, said, shown):
    predict("12.a", "The loss …", OPTIONS, answer=answer)
    outcome("12.a", "falls", because="So it goes.")
    assert said in shown[-1][1]
    assert "So it goes." in shown[-1][1]
    assert stored()["predictions"]["12.a"]["right"] is right


def test_no_prediction_can_be_made_after_the_result():
    predict("12.a", "The loss …", OPTIONS)
    outcome("12.a", "falls")
    predict("12.a", "The loss …", OPTIONS, answer="falls")
    entry = stored()["predictions"]["12.a"]
    assert entry["right"] is None
    assert "choice" not in entry


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: predict("12.a", "?", ["one"]), "at least two"),
        (lambda: predict("12.a", "?", ["one", "one"]), "same option twice"),
        (lambda: predict("12.a", "?", OPTIONS, answer="no"), "'no' is none of the options"),
        (lambda: outcome("12.z", "falls"), "comes before predict"),
        (lambda: (predict("12.a", "?", OPTIONS), outcome("12.a", "up")), "'up' is none of"),
        (lambda: start("99"), "there is no notebook '99'"),
        (lambda: classroom.check("12.mask_promt", None), "nearest are 12.mask_prompt"),
    ],
)
def test_a_slip_of_the_author_is_one_clear_sentence(call, said):
    with pytest.raises(WorkbookError, match=re.escape(said)):
        call()


# --- what is shown -------------------------------------------------------------------------


def test_plain_text_holds_no_html_and_the_html_is_escaped(shown):
    predict("12.a", "Is `a < b` & **so on**?", ["a < b", "not"], answer="a < b")
    outcome("12.a", "not", because="`a > b`")
    classroom.check("12.mask_prompt", lambda ids, n: ids)
    classroom.check("12.mask_prompt", None)
    reveal("12.mask_prompt")
    show_progress()
    assert len(shown) == 6
    for html, text in shown:
        assert not re.search(r"</?[a-z]+[^>]*>", text), text
        assert "**" not in text
        assert not re.search(r"&(?!lt;|gt;|amp;|quot;|#)", html), html
    assert "a &lt; b" in shown[0][0]


def test_reveal_shows_the_packages_own_source_closed_and_not_in_plain_text(shown):
    reveal("12.mask_prompt")
    html, text = shown[0]
    words = re.sub(r"<[^>]+>", "", html)
    assert "labels = input_ids.clone()" in words
    assert "<details" in html
    assert " open" not in re.findall(r"<details[^>]*>", html)[0]
    assert "unfold" in text
    assert "clone" not in text


def test_hints_unfold_one_inside_the_other_and_only_when_wrong(shown):
    classroom.check("12.mask_prompt", lambda ids, n: ids.clone())
    classroom.check("12.mask_prompt", lambda ids, n: mask_prompt(ids, n))
    hints = catalogue.exercise("12.mask_prompt").hint_texts
    wrong, right = shown[0][0], shown[1][0]
    assert wrong.count("<details") == len(hints)
    assert wrong.rindex("<details") < wrong.index("</details>")
    assert "<details" not in right


def test_start_seeds_everything_and_counts_what_is_done(shown):
    import numpy
    import torch

    classroom.check("12.mask_prompt", lambda ids, n: mask_prompt(ids, n))
    start("12", seed=7)
    first = torch.rand(1).item(), numpy.random.rand()
    start("12", seed=7)
    assert first == (torch.rand(1).item(), numpy.random.rand())
    assert f"12 · {catalogue.title('12')}" in shown[-1][1]
    assert f"Checks: 1 of {len(catalogue.exercises('12'))} solved" in shown[-1][1]


def test_the_board_counts_checks_and_predictions(shown):
    for name, answer in (("12.a", "falls"), ("12.b", "rises")):
        predict(name, "?", OPTIONS, answer=answer)
        outcome(name, "falls")
    show_progress()
    row = next(line for line in shown[-1][1].splitlines() if line.startswith("12"))
    assert re.search(rf"0 of {len(catalogue.exercises('12'))} +2 of \d+ +1 of 2", row), row


# --- verdicts ------------------------------------------------------------------------------


def test_a_solved_check_stays_solved():
    classroom.check("12.mask_prompt", lambda ids, n: mask_prompt(ids, n))
    classroom.check("12.mask_prompt", lambda ids, n: ids)
    entry = stored()["checks"]["12.mask_prompt"]
    assert (entry["solved"], entry["last"], entry["tries"]) == (True, "wrong", 1)


def test_the_workbooks_own_version_earns_nothing():
    """Running a check cell twice hands in what `or_reference` gave the first time."""
    verdict = classroom.check(
        "12.mask_prompt", classroom.check("12.mask_prompt", None).or_reference()
    )
    assert verdict.status == "not attempted"
    assert "workbook's own" in verdict.feedback
    assert not progress.progress_path().exists()


@pytest.mark.parametrize("mode", ["autograde", "validate"])
def test_under_nbgrader_a_check_that_is_not_right_raises_its_feedback(mode, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", mode)
    classroom.check("12.mask_prompt", lambda ids, n: mask_prompt(ids, n))
    with pytest.raises(check_results.CheckFailed, match="Nothing is masked"):
        classroom.check("12.mask_prompt", lambda ids, n: ids.clone())
    with pytest.raises(check_results.CheckFailed, match="Until you write yours"):
        classroom.check("12.mask_prompt", None)


def test_a_check_leaves_the_random_state_as_it_was():
    import torch

    def seeds(ids, n):
        torch.manual_seed(123)
        return mask_prompt(ids, n)

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    classroom.check("12.mask_prompt", seeds)
    assert torch.equal(torch.rand(3), expected)


def test_the_feedback_shows_the_line_of_the_students_code():
    def answer(ids, n):
        return ids / "three"

    assert '`return ids / "three"`' in examine(catalogue.exercise("12.mask_prompt"), answer).message


def test_a_library_that_lacks_something_is_an_error_and_no_stub():
    import torch

    def answer(ids, n):
        return torch.nn.Module()(ids)

    finding = examine(catalogue.exercise("12.mask_prompt"), answer)
    assert finding.status == "wrong"
    assert "NotImplementedError" in finding.message


def test_off_the_main_thread_the_time_limit_holds_too():
    found = []

    def endless():
        while True:
            pass

    worker = threading.Thread(target=lambda: found.append(sandbox.run(endless, limit=0.2)))
    worker.start()
    worker.join(10)
    assert found[0].timed_out


def test_a_class_may_be_the_answer_and_a_judge_may_try_it():
    class Doubler:
        def __init__(self, factor):
            self.factor = factor

        def __call__(self, x):
            return self.factor * x

    class Loops(Doubler):
        def __call__(self, x):
            while True:
                pass

    def judge(made, arguments):
        return None if made(3) == 6 else "It does not double."

    case = Case("`Doubler(2)`", lambda: (2,), verify=judge)
    exercise = Exercise("12.Doubler", "Doubling", Doubler, (case,), (), "")
    assert examine(exercise, Doubler).status == "right"
    assert examine(exercise, lambda factor: abs).message == "It does not double."
    assert "never ends" in examine(exercise, Loops, limit=0.2).message


def test_a_title_is_the_notebooks_own_heading_where_there_is_one(tmp_path, monkeypatch):
    cell = {"cell_type": "markdown", "source": ["# 12 · Its heading\n", "Text."]}
    (tmp_path / "12_x.ipynb").write_text(json.dumps({"cells": [cell]}))
    (tmp_path / "13_x.ipynb").write_text("damaged")
    monkeypatch.setattr(catalogue, "NOTEBOOKS", tmp_path)
    assert catalogue.title("12") == "Its heading"
    assert catalogue.title("13") == catalogue.question("13")


# --- figures and the rest ------------------------------------------------------------------


def test_equal_figures_are_equal_bytes_and_carry_their_text():
    import matplotlib.pyplot as plt

    from sftlab.classroom import plots

    def draw():
        plots.use_style()
        figure, axis = plt.subplots()
        axis.plot([1, 2, 3])
        return figure

    first, second = plots.png(draw()), plots.png(draw())
    plt.close("all")
    assert first == second
    bundle, metadata = plots.picture_bundle(first, "It rises.")
    assert metadata["image/png"]["alt"] == bundle["text/plain"] == "It rises."


def test_a_figure_is_closed_once_shown_and_needs_a_text(capsys):
    import matplotlib.pyplot as plt

    from sftlab.classroom.plots import show

    figure, _ = plt.subplots()
    with pytest.raises(ValueError, match="needs alt"):
        show(figure, " ")
    show(figure, "Nothing yet.")
    assert not plt.get_fignums()
    assert capsys.readouterr().out == "Nothing yet.\n"


def test_importing_the_classroom_loads_nothing_heavy():
    code = (
        "import sys, sftlab.classroom\n"
        "print([m for m in ('torch', 'ipywidgets', 'matplotlib', 'IPython') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_title_that_would_run_out_of_the_picture_is_broken_into_lines():
    import matplotlib.pyplot as plt

    from sftlab.classroom.plots import wrap_titles

    long = "From 1.8% to 0.15%: the larger the model, the smaller the share that is trained of it"
    for title in (long, "Short"):
        figure, axis = plt.subplots(figsize=(5, 2))
        axis.set_title(title, loc="left")
        wrap_titles(figure)
        figure.draw_without_rendering()
        drawn = axis.get_title(loc="left")
        assert " ".join(drawn.split()) == title
        assert ("\n" in drawn) == (title == long)
        text = next(t for t in axis.get_children() if getattr(t, "get_text", str)() == drawn)
        assert text.get_window_extent().x1 <= figure.bbox.x1
        plt.close(figure)


def test_words_between_stars_are_stressed_and_products_are_not():
    shown = html_cards.inline("it lies *between* the rates: 2*d*r, r * a * b, `x * y`, (*so*)")
    assert "<em>between</em> the" in shown and "(<em>so</em>)" in shown
    assert "2*d*r, r * a * b" in shown and "x * y</code>" in shown


def test_a_table_may_break_text_whose_spaces_are_made_visible():
    shown = table([["The·owl⏎eats", "1 · 2"]], ["written", "asked"])
    assert "The·<wbr>owl⏎<wbr>eats" in shown.html and "1 · 2" in shown.html
    assert "wbr" not in shown.text


# --- predictions of a number --------------------------------------------------------------
SHARES = {"less than half": (0, 0.5), "half to nine tenths": (0.5, 0.9), "more": (0.9, 1.01)}


@pytest.mark.parametrize(
    ("value", "interval", "answer", "right", "said"),
    [
        (0.5, None, "half to nine tenths", True, "and so it is. Measured: 0.5, half to nine"),
        (0.62, (0.55, 0.7), "more", False, "Measured: 0.62 (0.55 to 0.7), half to nine tenths."),
        (0.48, (0.4, 0.56), "less than half", None, "and that may be. Measured: 0.48 (0.4 to 0.56). "
         "This is not settled: the interval holds less than half or half to nine tenths."),
        (0.48, (0.4, 0.56), "more", False, "It turned out otherwise. Measured: 0.48"),
        (0.48, (0.4, 0.56), None, None, "You made no prediction here. Measured: 0.48"),
    ],
)  # fmt: skip
def test_a_number_is_sorted_into_the_ranges_with_its_interval(
    value, interval, answer, right, said, shown
):
    predict("12.a", "The share …", SHARES, answer=answer)
    outcome("12.a", value, interval)
    assert said in shown[-1][1]
    assert stored()["predictions"]["12.a"]["right"] is right


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (lambda: predict("12.a", "?", {"a": (0, 2), "b": (1, 3)}), "not overlap"),
        (lambda: predict("12.a", "?", {"a": (2, 0), "b": (3, 4)}), "each go up"),
        (lambda: (predict("12.a", "?", SHARES), outcome("12.a", 3.0)), "in none of the options"),
        (lambda: (predict("12.a", "?", SHARES), outcome("12.a", 0.4, (0.5, 1))), "is not between"),
        (lambda: (predict("12.a", "?", OPTIONS), outcome("12.a", 0.4)), "have no ranges"),
        (lambda: (predict("12.a", "?", OPTIONS), outcome("12.a", "falls", (0, 1))), "needs a number"),
    ],
)  # fmt: skip
def test_ranges_and_intervals_that_cannot_be_are_refused(action, told):
    with pytest.raises(WorkbookError, match=told):
        action()


def test_progress_of_the_first_edition_is_taken_over_once_and_kept():
    old = {
        "version": 1,
        "predictions": {"12.a": {"question": "?", "choice": "rises"}},
        "checks": {"12.mask_prompt": {"solved": True, "tries": 2}},
    }
    path = progress.progress_path()
    path.write_text(json.dumps(old))
    assert progress.load()["checks"] == old["checks"]
    notice = progress.update(lambda stored: None)
    assert "first edition was taken over" in notice
    kept = path.with_name("progress.first-edition.json")
    assert json.loads(kept.read_text()) == old
    assert stored() == old | {"version": progress.VERSION}
    assert progress.update(lambda stored: None) == ""
