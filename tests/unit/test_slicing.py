"""What an answer needs of a notebook, and what is left out of it."""

from __future__ import annotations

import pytest

from tools.slicing import needed, statements


def sliced(*cells: str, name: str = "f", leave_out: str = "") -> str:
    import ast

    found, _ = statements(cells, leave_out)
    return "\n".join(ast.unparse(statement.node) for statement in needed(found, name))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["import math", "x = 1", "def f(a):\n    return math.sqrt(a)"], "import math\ndef f(a):\n    return math.sqrt(a)"),
        (["def f(a):\n    return g(a)", "def g(a):\n    return a"], "def f(a):\n    return g(a)\ndef g(a):\n    return a"),
        (["def f(a):\n    return 1", "def f(a):\n    return 2"], "def f(a):\n    return 2"),
        (["f = 1", "f = f + 1"], "f = 1\nf = f + 1"),
        (["x = train()", "def f(x):\n    return [x for x in x]"], "def f(x):\n    return [x for x in x]"),
        (["t = {}", "t['a'] = 1", "t.clear()", "def f():\n    return t"], "t = {}\nt['a'] = 1\nt.clear()\ndef f():\n    return t"),
        (["k = 1", "if k:\n    f = 1\nelse:\n    f = 2"], "k = 1\nif k:\n    f = 1\nelse:\n    f = 2"),
        (["from math import *", "def f():\n    return sqrt(2)"], "from math import *\ndef f():\n    return sqrt(2)"),
        (["n = 2", "class f:\n    n = n\n    def go(self):\n        return n"], "n = 2\nclass f:\n    n = n\n\n    def go(self):\n        return n"),
        (["%%time\nf = 1", "!rm -r data", "%matplotlib inline"], "f = 1"),
    ],
)  # fmt: skip
def test_what_is_needed(cells, expected):
    assert sliced(*cells) == expected


def test_an_endless_loop_a_patched_library_and_a_changed_check_are_left_out():
    assert sliced(
        "import sftlab.masking as m\nfrom sftlab.classroom import check",
        "m.mask_prompt = print",
        "def check(*_):\n    return 1",
        "while True:\n    pass",
        "def f():\n    return m.IGNORE_INDEX",
    ) == ("import sftlab.masking as m\ndef f():\n    return m.IGNORE_INDEX")


def test_an_attribute_of_that_name_is_not_the_name():
    assert sliced("import m", "def f():\n    return 1", "m.f = print") == "def f():\n    return 1"


def test_the_check_itself_is_left_out():
    text = "def f():\n    return 1\nf = check('07.f', f).or_reference()"
    assert sliced(text, leave_out="07.f") == "def f():\n    return 1"


def test_a_cell_that_python_cannot_read_is_told_and_the_others_count():
    found, broken = statements(["def f(:\n    return 1", "x = 1"])
    assert [statement.binds for statement in found] == [{"x"}]
    assert broken == ["Python cannot read a cell (SyntaxError): `def f(:`"]


def test_lines_keep_their_numbers_under_a_magic():
    found, _ = statements(["%%time\n\ndef f():\n    pass"])
    assert found[0].node.lineno == 3
