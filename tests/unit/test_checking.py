"""How checks compare, what they watch, what they say, and what a student's code cannot do to them."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction

import numpy
import pytest
import torch

from sftlab import classroom
from sftlab.classroom import sandbox
from sftlab.classroom.checking import _MISTAKES, Case, Exercise, drawn, examine, mistake
from sftlab.classroom.first_difference import Broken, cast, difference
from sftlab.classroom.watching import watch

# --- comparing by meaning ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.0000001, 1.0),
        (3, 3.0),
        (3.0, 3),
        (True, 1),
        (1, True),
        (numpy.float64(2.5), 2.5),
        (numpy.float32(0.1), 0.1),
        (numpy.int32(7), 7),
        (numpy.bool_(True), True),
        (numpy.str_("text"), "text"),
        (Fraction(5, 2), 2.5),
        (Decimal("2.5"), 2.5),
        (torch.tensor(2.5), 2.5),
        (torch.tensor(7, dtype=torch.int32), 7),
        (torch.tensor(True), True),
        (torch.tensor(2.5, requires_grad=True), 2.5),
        ((1, 2), [1, 2]),
        (range(1, 3), [1, 2]),
        (numpy.array([1, 2]), [1, 2]),
        (torch.tensor([1.0, 2.0]), (1, 2)),
        (torch.tensor([[1, 2], [3, 4]]), [(1, 2), (3, 4)]),
        ([torch.tensor(1), 2.0], [1, 2]),
        (["b", "a"], {"a", "b"}),
        (frozenset("ab"), {"a", "b"}),
        ({"a": [1, {"b": 2.0}]}, {"a": [1, {"b": 2.0}]}),
        (OrderedDict(a=numpy.int64(1)), {"a": 1}),
        (float("nan"), float("nan")),
        (float("inf"), float("inf")),
        ([1.0, 2.0], torch.tensor([1.0, 2.0])),
        (numpy.ones(2), torch.ones(2)),
        (torch.ones(2, dtype=torch.float64), torch.ones(2)),
        (torch.tensor([1, 2], dtype=torch.int32), torch.tensor([1, 2])),
        (torch.tensor([1.0, 2.0]), torch.tensor([1, 2])),
        (torch.ones(2), torch.ones(2, requires_grad=True)),
        ("text", "text"),
        (None, None),
    ],
)
def test_equal_values_do_not_differ_whatever_holds_them(got, expected):
    assert difference(got, expected, 1e-6) is None


def grown():
    return torch.ones(2, requires_grad=True).sum()


@pytest.mark.parametrize(
    ("got", "expected", "words"),
    [
        (2, 3, "Expected: `3`, got: `2`"),
        (2.5, 3, "a whole number is expected"),
        ("1", 1.0, "of type `str`"),
        (None, [1], "is a `return` missing?"),
        (None, torch.ones(2), "is a `return` missing?"),
        (len, 3, "is a function, but a whole number is expected"),
        (dict, [1], "is a class"),
        ([1, 2], [1], "has 2 entries, but 1 are expected"),
        ([[1], [2]], [[1], [3]], "Expected at [1][0]: `3`, got: `2`"),
        (["b", "a"], ["a", "b"], "the right entries in another order"),
        ({1, 2}, [1, 2], "a set, which has no order"),
        (["a", "a"], {"a"}, "more than once"),
        (["a"], {"a", "b"}, "lacks `'b'`"),
        (["a", "c"], {"a"}, "holds `'c'`"),
        ({"a": 1}, {"b": 1}, "has no entry `'b'`"),
        ({"a": 1, "b": 1}, {"b": 1}, "an entry `'a'` that is not expected"),
        (float("nan"), 1.0, "NaN"),
        (float("inf"), 1.0, "got: `inf`"),
        (1e300, float("inf"), "Expected: `inf`"),
        (torch.tensor([1.0]), 1.0, "of type `list`"),
        ("taxt", "text", "part at character 1"),
        ([[1.0], [1.0, 2.0]], torch.ones(2), "of type `list`"),
        (torch.ones(2), torch.ones(3), "has the shape (2,), but (3,) is expected"),
        (torch.tensor([1.0, float("nan")]), torch.ones(2), "at position 1 is NaN"),
        (torch.tensor([1.0, float("inf")]), torch.ones(2), "at position 1 is infinite"),
        (torch.tensor([1, 2, 4]), torch.tensor([1, 2, 3]), "Expected at position 2: `3`, got: `4`"),
        (torch.tensor([0.1], dtype=torch.bfloat16), torch.tensor([0.1]), "Expected at position 0"),
    ],
)
def test_each_kind_of_difference_has_its_own_words(got, expected, words):
    assert words in (difference(got, expected, 1e-6) or "")


@pytest.mark.parametrize(
    ("got", "expected", "rule", "words"),
    [
        ([1.0], torch.tensor([1.0]), "tensor", "of type `list`"),
        (torch.ones(2), torch.ones(2).long(), "dtype", "has the dtype torch.float32"),
        (torch.ones(2).double(), torch.ones(2), "dtype", "has the dtype torch.float64"),
        (2.0, grown(), "gradient", "its graph is lost"),
        (torch.tensor(2.0), grown(), "gradient", "the graph is lost"),
    ],
)
def test_what_a_rule_asks_for_beyond_the_values_is_compared_only_then(got, expected, rule, words):
    assert difference(got, expected, 1e-6) is None
    found = difference(got, expected, 1e-6, strict=(rule,))
    assert words in found and found.rule == rule


@pytest.mark.parametrize(
    ("value", "like"),
    [
        (torch.tensor(3), 1),
        (3.0, 1),
        (numpy.bool_(True), False),
        ((1, 2), [1]),
        (torch.tensor([1, 2]), [1]),
        ([1.5, torch.tensor(2)], (1.0, 1)),
        ([1, 2], torch.ones(1)),
        ({"a": numpy.int64(1)}, {"a": 1}),
        (None, (1, 2)),
    ],
)
def test_a_result_is_converted_to_the_type_that_the_next_cells_expect(value, like):
    made = cast(value, like)
    assert made is None or type(made) is type(like)
    assert difference(value, made) is None


# --- naming a mistake ----------------------------------------------------------------------


@pytest.fixture
def doubling(monkeypatch):
    """An exercise with three cases; one known mistake meets the right value on the first."""
    monkeypatch.setitem(_MISTAKES, "90.double", [])
    mistake("90.double", "It squares.")(lambda x: x * x)
    mistake("90.double", "It adds two.")(lambda x: x + 2)
    cases = [
        Case(f"`double({x})`", lambda x=x: (x,), lambda x: 2 * x, rule="all") for x in (2, 3, 5)
    ]
    rules = {"all": "Twice the number."}
    return Exercise("90.double", "", lambda x: 2 * x, cases, (), "", rules=rules)


def test_a_mistake_is_named_only_if_every_case_agrees(doubling):
    squares = examine(doubling, lambda x: x**2)
    assert (squares.message, squares.passed, squares.total) == ("It squares.", 1, 3)
    other = examine(doubling, lambda x: x * x if x < 5 else 10)
    assert other.message == "Expected: `6`, got: `9`."
    assert (other.case.describe, other.rule) == ("`double(3)`", "Twice the number.")
    assert (other.passed, other.total) == (2, 3)
    both = examine(doubling, lambda x: 5 if x == 3 else 2 * x)
    assert both.message == "Expected: `6`, got: `5`."


def test_a_loop_that_never_ends_is_tried_once(doubling):
    calls = []

    def loops(x):
        calls.append(x)
        while True:
            pass

    finding = examine(doubling, loops, limit=0.1)
    assert calls == [2] and (finding.passed, finding.total) == (0, 3)


def test_an_answer_that_is_slow_on_every_case_is_stopped(doubling, monkeypatch):
    from sftlab.classroom import checking

    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(checking.time, "thread_time", lambda: next(clock))
    finding = examine(doubling, lambda x: 2 * x, limit=2.0)
    assert (
        finding.status == "wrong"
        and "2 of 3 small cases took more than 6 seconds" in finding.message
    )


def test_an_answer_is_not_slow_because_the_machine_is_busy(doubling, monkeypatch):
    from sftlab.classroom import checking

    clock = iter(range(0, 10**6, 1000))
    monkeypatch.setattr(checking.time, "monotonic", lambda: next(clock))
    assert examine(doubling, lambda x: 2 * x, limit=2.0).status == "right"


def test_a_missing_return_is_guessed_unless_none_is_a_right_result(doubling):
    sometimes = lambda x: 2 * x if x < 3 else None  # noqa: E731
    assert "is a `return` missing?" in examine(doubling, sometimes).message
    cases = [
        Case(f"`find({x})`", lambda x=x: (x,), lambda x: x if x < 3 else None, rule="all")
        for x in (3, 2)
    ]
    finding = Exercise("90.find", "", lambda x: x if x < 3 else None, cases, (), "", rules=doubling.rules)  # fmt: skip
    wrong = examine(finding, lambda x: None)
    assert wrong.status == "wrong" and "missing" not in wrong.message


def test_an_answer_may_be_judged_by_what_it_does_to_its_arguments(monkeypatch):
    monkeypatch.setitem(_MISTAKES, "90.fill", [])
    mistake("90.fill", "It fills with twos.")(lambda x: x.fill_(2))
    case = Case("`fill(x)`", lambda: (torch.zeros(2),), lambda x: x.fill_(1), in_place=(0,),
                observe=lambda _, arguments: arguments[0])  # fmt: skip
    exercise = Exercise("90.fill", "", lambda x: x.fill_(1), [case], (), "")
    assert examine(exercise, lambda x: x.add_(1)).status == "right"
    assert examine(exercise, lambda x: x.add_(2)).message == "It fills with twos."
    assert "Expected at position 0: `1.0`, got: `0.0`" in examine(exercise, torch.clone).message


def test_a_message_may_be_about_another_rule_than_the_cases_own():
    case = Case("`f()`", tuple, verify=lambda *_: Broken("b", "No."), rule="a")
    exercise = Exercise("90.f", "", len, [case], (), "", rules={"a": "First.", "b": "Second."})
    assert examine(exercise, lambda: 1).rule == "Second."


def test_random_cases_are_part_of_the_check(doubling):
    import dataclasses

    exercise = dataclasses.replace(doubling, draw=lambda rng, *_: (rng.randint(6, 99),))
    by_heart = {2: 4, 3: 6, 5: 10}
    finding = examine(exercise, lambda x: by_heart.get(x, 0))
    assert finding.passed == 3 and "on random values" in finding.case.describe
    assert [c.describe for c in drawn(exercise, "a", 9)] == [
        c.describe for c in drawn(exercise, "a", 9)
    ]
    assert drawn(exercise, "a", 9)[0].arguments() != drawn(exercise, "b", 9)[0].arguments()


# --- gradients, seeds and what stays as it is ------------------------------------------------


def with_rule(rule, reference, arguments):
    case = Case("a case", arguments, reference, 1e-6, rule=rule)
    return Exercise("90.f", "", reference, [case], (), "", rules={rule: "The rule."})


def test_a_gradient_is_compared_where_a_rule_asks_for_it():
    exercise = with_rule(
        "gradient", lambda x: (x**2).sum(), lambda: (torch.tensor([2.0, 3.0], requires_grad=True),)
    )
    assert examine(exercise, lambda x: x @ x).status == "right"
    for wrong, words in (
        (lambda x: (x.detach() * x).sum(), "its gradient"),
        (lambda x: x.square().sum().detach(), "the graph is lost"),
        (lambda x: float(x @ x), "plain number"),
    ):
        finding = examine(exercise, wrong)
        assert words in finding.message and finding.rule == "The rule."


@pytest.mark.parametrize(
    ("seed", "name"),
    [
        (lambda: torch.manual_seed(0), "torch.manual_seed"),
        (lambda: random.seed(0), "random.seed"),
        (lambda: numpy.random.seed(0), "numpy.random.seed"),
    ],
)
def test_a_seed_is_noticed_and_drawing_numbers_is_not(seed, name):
    def draws():
        torch.rand(999), numpy.random.rand(999), [random.random() for _ in range(999)]

    before = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    assert sandbox.run(lambda: (draws(), seed(), draws())).reseeded == name
    assert sandbox.run(draws).reseeded == ""
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == before[1:]
    exercise = with_rule("seed", lambda: 3, tuple)
    assert name in examine(exercise, lambda: (seed() and 0) or 3).message
    assert examine(exercise, lambda: 3).status == "right"


def test_a_generator_with_a_seed_of_its_own_is_noticed():
    reference = lambda x: x.copy_(torch.rand(3))  # noqa: E731
    case = Case(
        "a case", lambda: (torch.zeros(3),), verify=lambda *_: None, in_place=True, rule="seed"
    )
    exercise = Exercise("90.f", "", reference, [case], (), "", rules={"seed": "The rule."})
    assert examine(exercise, reference).status == "right"
    own = lambda x: x.copy_(torch.rand(3, generator=torch.Generator().manual_seed(0)))  # noqa: E731
    assert "a seed of its own" in examine(exercise, own).message
    numpys = lambda x: x.copy_(torch.from_numpy(numpy.random.default_rng(0).random(3)))  # noqa: E731
    assert "a seed of its own" in examine(exercise, numpys).message


class Tokenizer:
    chat_template, vocab_size, pad_token, split_special_tokens = "a", 3, "<pad>", False

    def encode(self, text):
        return [1]

    def __len__(self):
        return 3


def model():
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).eval()


def spoil_weight(model):
    with torch.no_grad():
        model[0].weight.add_(1)


@pytest.mark.parametrize(
    ("make", "spoil", "words"),
    [
        (lambda: [1, {"a": 2}], lambda x: x[1].update(a=3), "became"),
        (lambda: {"a": torch.ones(2)}, lambda x: x["a"].add_(1), "became"),
        (lambda: torch.ones(2), lambda x: x.mul_(2), "became"),
        (Tokenizer, lambda x: setattr(x, "chat_template", "b"), "`chat_template`"),
        (Tokenizer, lambda x: setattr(x, "pad_token", "b"), "`pad_token`"),
        (Tokenizer, lambda x: setattr(x, "split_special_tokens", True), "`split_special_tokens`"),
        (Tokenizer, lambda x: setattr(x, "encode", len), "`encode`"),
        (lambda: [torch.ones(2)], lambda x: x[0].requires_grad_(), "`requires_grad`"),
        (model, spoil_weight, "`0.weight` has other values"),
        (model, lambda m: m.requires_grad_(False), "another `requires_grad`"),
        (model, lambda m: m.train(), "another mode"),
        (model, lambda m: m.append(torch.nn.ReLU()), "layers"),
        (model, lambda m: m[0].register_forward_hook(print), "hooks"),
        (model, lambda m: m[1].running_mean.add_(1), "running_mean"),
        (
            lambda: torch.optim.SGD([torch.ones(2)], lr=0.1),
            lambda o: o.param_groups[0].update(lr=1.0),
            "optimizer",
        ),
    ],
)
def test_a_changed_argument_is_named_and_restored(make, spoil, words):
    value = make()
    changed = watch((0, value), ["a", "b"])
    assert changed() is None
    spoil(value)
    found = changed()
    assert found.startswith("It changes its own input (argument 2, `b`)") and words in found
    assert watch((0, value), ["a", "b"], allowed=[1])() is None
    if isinstance(value, (Tokenizer, torch.nn.Module)) and "layers" not in found:
        assert changed() is None


# --- whatever a student writes ---------------------------------------------------------------


async def coroutine(x):
    return 2 * x


def yields(x):
    yield 2 * x


def prints(x):
    print(2 * x)


def forgets_to_return(x):
    x * 2


def returns_a_function(x):
    return lambda: 2 * x


def misspells(x):
    return 2 * y  # noqa: F821


def reads_too_early(x):
    if x > 9:
        found = x
    return found


def allocates(x):
    return torch.empty(10**15)


def fills_a_list(x):
    return [0] * 10**13


def asks(x):
    return int(input())


def leaves(x):
    os._exit(3)


def interrupts_everything(x):
    sys.exit()


def runs_a_loop(x):
    return asyncio.run(coroutine(x)) + 1


class Doubled:
    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (coroutine, "It is `async`"),
        (yields, "leave out `yield`"),
        (prints, "It prints, but it returns nothing"),
        (forgets_to_return, "is a `return` missing?"),
        (returns_a_function, "is a function"),
        (misspells, "Import it, or take it from the arguments."),
        (reads_too_early, "before the function gives it a value"),
        (allocates, "more memory than there is"),
        (fills_a_list, "more memory than there is"),
        (asks, "nobody types anything"),
        (leaves, "It tries to end the program"),
        (interrupts_everything, "It tries to end the program"),
        (runs_a_loop, "Expected"),
        (Doubled, "`Doubled` is a class"),
        (lambda: 3, "It takes (nothing)"),
        (lambda x, y: 3, "It takes (x, y), but it is called with (x)"),
        (3, "should be a function"),
    ],
)
def test_each_slip_has_its_own_sentence(doubling, answer, words):
    finding = examine(doubling, answer)
    assert finding.status == "wrong"
    assert words in finding.message


# --- the card --------------------------------------------------------------------------------


def in_a_notebook(source: str, **names):
    """Run cells that define and check an answer, as in a notebook; return the names afterwards."""
    space = {"__name__": "__main__", "check": classroom.check, **names}
    exec(source, space)
    return space


def test_the_answer_is_looked_up_by_its_name():
    space = in_a_notebook("""
def count_trained(labels):
    return sum(label != -100 for label in labels)
result = check("00.count_trained")
""")
    assert space["result"].status == "right"
    assert space["result"].or_reference() is space["count_trained"]


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        (
            "def count_traind(labels): return 3",
            "wrong",
            "defines `count_traind`, but the cells below use",
        ),
        ("", "not attempted", "There is no `count_trained` yet"),
        ("from sftlab.masking import count_trained", "not attempted", "the workbook's own"),
    ],
)
def test_a_missing_answer_is_named(source, status, words):
    result = in_a_notebook(f'{source}\nresult = check("00.count_trained")')["result"]
    assert result.status == status
    assert words.replace("`", "") in result.feedback


def test_what_comes_from_the_notebook_and_not_from_the_arguments_is_said():
    space = in_a_notebook("""
ids = [1, 2]
def count_trained(labels):
    return sum(label != -100 for label in ids)
result = check("00.count_trained")
""")
    assert "It reads ids from the notebook" in space["result"].feedback


def test_the_cases_that_pass_are_counted_and_the_rule_is_quoted():
    space = in_a_notebook("""
def mask_prompt(input_ids, prompt_length):
    labels = input_ids.clone()
    labels[:prompt_length] = -100
    return labels if prompt_length < len(labels) else labels * 0
result = check("12.mask_prompt")
""")
    result = space["result"]
    assert 0 < result.passed < result.total
    assert f"{result.passed} of {result.total} cases pass." in result.feedback
    assert "The rule: The prompt may be empty or be the whole sequence." in result.feedback
