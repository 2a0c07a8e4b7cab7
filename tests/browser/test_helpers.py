"""The helpers of the browser tests that need no browser."""

from answers import answers
from needed_cells import bound, needed

from sftlab.classroom import catalogue

CELLS = {
    1: "MODEL = 'almanac'",
    3: "from sftlab.models import load\nmodel, tokenizer = load(MODEL)",
    5: "for step in range(3):\n    loss = train(model)",
    7: "rows = []",
    9: "rows.append(tokenizer)",
    11: "explore(tokenizer, rows)",
}


def test_a_cell_needs_those_that_bind_or_change_what_it_uses():
    assert needed(CELLS, 11) == [1, 3, 7, 9, 11]
    assert needed(CELLS, 7) == [7]


def test_names_inside_a_function_or_comprehension_are_not_bound_by_the_cell():
    assert bound("def f(x):\n    y = x\nz = [i for i in range(3)]") == {"f", "z"}


def test_an_answer_is_typed_with_all_that_it_leans_on():
    id = "07.lora_parameter_count"
    known = {mistake.answer.__name__: mistake.answer for mistake in catalogue.exercise(id).mistakes}
    cells = {cell.rpartition(" = ")[2]: cell for cell, _ in answers("07", "WRONG", id)}
    typed = [(cell, known[name]) for name, cell in cells.items() if name in known]
    assert len(typed) >= 6
    for cell, answer in typed:
        namespace = {}
        exec(cell, namespace)
        assert namespace["lora_parameter_count"](48, 80, 3) == answer(48, 80, 3)
    assert len(answers("07", "RIGHT", id)) >= 4
