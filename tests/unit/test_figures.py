"""The six types of figure: they carry their words, show every value, and nothing runs into anything."""

from itertools import pairwise

import matplotlib.pyplot as plt
import pytest

from sftlab.classroom import figures, plots

ESTIMATE = 0.5, (0.3, 0.8)
ROWS = {"first": 0.2, "second": ESTIMATE, "third": [0.1, 0.4, 0.7]}
LINE = {1: 0.2, 10: [0.1, 0.3], 100: 0.9}
DRAWN = {
    "bars": lambda: figures.bars(ROWS, "t", "words", fmt=".0%", percent="x"),
    "bars, series": lambda: figures.bars({"a": ROWS, "b": {"first": 1.0}}, "t", "words"),
    "bars, panels": lambda: figures.bars({"a": ROWS, "b": ROWS}, "t", "words", panels=True),
    "dots": lambda: figures.dots(ROWS, "t", "words", zero=True, fmt="+.1f"),
    "dots, ticks": lambda: figures.dots({"a": [-1, 0, 1]}, "t", "words", marker="|", mean=False),
    "curves": lambda: figures.curves({"a": LINE, "b": LINE}, "t", "words", xscale="log"),
    "curves, panels": lambda: figures.curves({"a": LINE}, "t", "words", panels=True, spread="dots"),
    "curves, estimates": lambda: figures.curves({1: ESTIMATE, 2: ESTIMATE}, "t", "words", axhline={0.5: "half"}),
    "scatter": lambda: figures.curves({"a": {1: 2.0, 3: 1.0}, "b": {2: 2.0}}, "t", "words", lines=False),
    "stacked": lambda: figures.stacked({"x": {"p": 1.0, "q": 2.0}}, "t", "words", total=".1f", peaks={"x": 2.5}),
    "stacked, upright": lambda: figures.stacked({1: {"p": 0.4, "q": 0.6}}, "t", "words", vertical=True, percent="y"),
    "tokens": lambda: figures.tokens(["The", " frog"], [1.0, 2.0], "t", "words", marked=[True, False], fmt=".1f"),
    "grid": lambda: figures.grid([[0.1, 0.9]], ["row"], ["one", "two words"], "t", "words", label="share"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


@pytest.mark.parametrize("kind", DRAWN)
def test_a_figure_carries_its_words_and_draws_without_a_complaint(kind, recwarn):
    figure = DRAWN[kind]()
    assert (figure.alt, figure.get_suptitle()) == ("words", "t")
    assert plots.png(figure) == plots.png(DRAWN[kind]())
    assert not [
        w for w in recwarn if "layout" in str(w.message) or "glyph" in str(w.message).lower()
    ]


def test_show_reads_the_words_of_a_figure(capsys):
    plots.show(DRAWN["bars"]())
    assert capsys.readouterr().out == "words\n"


def test_every_row_and_every_repetition_is_drawn():
    (axis,) = DRAWN["bars"]().axes
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.2, 0.5, 0.4])
    assert [text.get_text() for text in axis.texts] == ["20%", "50%", "40%"]
    (axis,) = DRAWN["dots"]().axes
    assert sum(len(line.get_xdata()) == 3 for line in axis.lines) == 1
    (axis,) = DRAWN["stacked"]().axes
    assert [bar.get_width() for bar in axis.patches] == [1.0, 2.0]


def test_names_at_the_ends_of_lines_stand_clear_of_each_other():
    found = {
        name: {0: 1.0, 1: end} for name, end in zip("abcd", (0.0, 0.01, 0.02, 1.0), strict=True)
    }
    figure = figures.curves(found, "t", "words")
    figure.draw_without_rendering()
    boxes = sorted((t.get_window_extent() for t in figure.axes[0].texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))


def test_a_long_title_is_broken_and_stays_in_the_picture():
    figure = figures.bars(
        ROWS,
        "A title that tells much more than one line of the figure has room for, " * 2,
        "words",
    )
    plots.wrap_titles(figure)
    figure.draw_without_rendering()
    (title,) = figure.texts
    assert "\n" in title.get_text() and title.get_window_extent().x1 <= figure.bbox.x1


def test_a_share_s_axis_is_in_percent():
    figure = DRAWN["bars"]()
    figure.draw_without_rendering()
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert labels[0] == "0%" and all(label.endswith("%") for label in labels)
