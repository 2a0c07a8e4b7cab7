"""Cases drawn for the marks: a course's own seed decides them, so nobody can have them by heart.

They are of the kind that a task's text promises, no harder than the cases of its check: a right
answer passes them all. Tasks that are not in ``ARGUMENTS`` have none, most of them about models,
layers or recorded runs: the cases of their check decide.
"""

from __future__ import annotations

import dataclasses
import math
import os
import random
import sys
from collections.abc import Callable
from contextlib import redirect_stderr

from sftlab.classroom import catalogue, check_results
from sftlab.classroom.checking import Case, Exercise
from sftlab.classroom.first_difference import is_tensor, shorten

NUMBER = 5  # of cases for each exercise
WORDS = [
    "the",
    "frog",
    "heron",
    "river",
    "lives",
    "near",
    "small",
    "warm",
    "stones",
    "and",
    "eats",
    "many",
    "green",
    "leaves",
    "today",
]


def marking(names: dict, id: str, seed: str) -> Callable[[str, object], check_results.CheckResult]:
    """The ``check`` of a cell that nbgrader grades; its hidden tests put it there.

    It tries the drawn cases too. An answer that is not right costs the cell's points by a line on
    stderr, which nbgrader takes for a failure, and not by an error: the notebook goes on with the
    workbook's version as it does in class, for the answers that build on this one.

    Args:
        names: those of the notebook. An answer that is not among them is not attempted.
    """
    exercises = catalogue.exercises(id.partition(".")[0])
    exercise = exercises[id]
    cases = [*exercise.cases, *sampled(exercise, seed)]
    exercises[id] = dataclasses.replace(exercise, cases=cases)
    names.setdefault(exercise.name, None)
    os.environ.pop("NBGRADER_EXECUTION", None)  # by which a check would raise

    def check(id: str, answer: object) -> check_results.CheckResult:
        with redirect_stderr(sys.stdout):  # a library's warning costs nothing
            result = check_results.check(id, answer)
        if result.status != "right":
            print(f"{id}: {result.status}, no points", file=sys.stderr)
        return result

    return check


def sampled(exercise: Exercise, seed: str) -> list[Case]:
    """Further cases of an exercise, the same for the same seed; none where none can be drawn."""
    make = ARGUMENTS.get(exercise.id)
    return [
        _case(exercise, make, f"{seed}/{exercise.id}/{k}") for k in range(NUMBER if make else 0)
    ]


def _case(exercise: Exercise, make: Callable[..., tuple], seed: str) -> Case:
    model = next(case for case in exercise.cases if case.expected)

    def arguments() -> tuple:
        return make(random.Random(seed), *exercise.cases[0].arguments())

    plain = (a for a in arguments() if is_tensor(a) or isinstance(a, int | str | list | dict))
    shown = ", ".join(shorten(argument, 60) for argument in plain)
    return Case(
        f"`{exercise.name}`, a case drawn for the marks: {shown}",
        arguments,
        model.expected,
        # Of large numbers two right ways differ in the last digits.
        max(1e-5, model.tolerance) if any(c.tolerance for c in exercise.cases) else 0.0,
    )


def _tensor(rng: random.Random, *shape: int, scale: float = 1.0):
    import torch

    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    return torch.randn(*shape, generator=generator) * scale


def _labels(rng: random.Random, length: int, largest: int, trained: int = 1) -> list[int]:
    """A prompt of −100 and a response of ids, 0 among them now and then."""
    prompt = rng.randint(1, length - trained)
    return [-100] * prompt + [rng.randrange(largest) for _ in range(length - prompt)]


def _sentence(rng: random.Random, words: int = 5) -> str:
    return " ".join(rng.sample(WORDS, words)).capitalize() + "."


def _talk(rng: random.Random, turns: int, system: bool | None = None) -> list[dict[str, str]]:
    talk = [
        {"role": ("user", "assistant")[k % 2], "content": _sentence(rng, rng.randint(1, 6))}
        for k in range(turns)
    ]
    system = rng.random() < 0.5 if system is None else system
    return [{"role": "system", "content": _sentence(rng, 3)}, *talk] if system else talk


def _batch(rng: random.Random, vocabulary: int) -> tuple:
    import torch

    rows, length = rng.randint(1, 4), rng.randint(4, 9)
    labels = [_labels(rng, length, vocabulary, trained=2) for _ in range(rows)]
    return _tensor(rng, rows, length, vocabulary, scale=2.0), torch.tensor(labels)


def _micro_batches(rng: random.Random, *_) -> tuple:
    vocabulary = rng.randint(3, 11)
    return ([_batch(rng, vocabulary) for _ in range(rng.randint(2, 4))],)


def _share(rng: random.Random, *_) -> tuple:
    import torch

    rows, length = rng.randint(1, 3), rng.randint(4, 8)
    labels = torch.tensor([_labels(rng, length, 50, trained=2) for _ in range(rows)])
    return _tensor(rng, rows, length - 1).abs() + 0.1, labels


def _ranks(rng: random.Random, *_) -> tuple:
    import torch

    length, vocabulary = rng.randint(1, 7), rng.randint(5, 12)
    tokens = torch.tensor([rng.randrange(vocabulary) for _ in range(length)])
    return _tensor(rng, length, vocabulary, scale=3.0), tokens


def _form(rng: random.Random, *_) -> tuple:
    count = rng.randint(2, 5)
    lines = "\n".join(f"{k}. {_sentence(rng)}" for k in range(1, count + 1))
    sentence = _sentence(rng)
    return rng.choice(
        [
            (lines, count),
            (lines, count + 1),
            (sentence, None),
            (sentence[:-1], None),
            (sentence.lower(), None),
            (f"{sentence[:-1]}?", None),
            (sentence, count),
        ]
    )


def _circles(rng: random.Random, *_) -> tuple:
    a, b, c = (_sentence(rng, 6) for _ in range(3))
    phrase = " ".join(rng.sample(WORDS, rng.randint(2, 5)))
    kind = [f"{a} {b} {c}", f"{a} {b} {a}", f"{a}\n{a}", f"It {phrase} {phrase} {phrase}.", a]
    return (rng.choice(kind),)


def _two_sequences(rng: random.Random, *_) -> tuple:
    ids = rng.sample(range(1, 200), 12)
    start, end = sorted(rng.sample(range(1, 7), 2))
    return ids[:7], ids[:start] + ids[7 : 7 + rng.randint(0, 4)] + ids[end:7]


def _sweep(rng: random.Random, centre: float) -> dict[float, float]:
    """Losses on a parabola around 10**centre, over rates in no order."""
    width, floor = rng.uniform(0.3, 0.9), rng.uniform(0.05, 0.5)
    powers = [-6 + 0.75 * k + rng.uniform(-0.1, 0.1) for k in range(8)]
    rng.shuffle(powers)
    return {10**p: floor * math.exp(width * (p - centre) ** 2) for p in powers}


def _sweeps(rng: random.Random, *_) -> tuple:
    full = [_sweep(rng, rng.uniform(-4.3, -3.9)) for _ in range(4)]
    return full, [_sweep(rng, rng.uniform(-3.2, -2.6)) for _ in range(4)]


def _adapter(rng: random.Random, weight: bool) -> tuple:
    r, d_in, d_out = rng.randint(2, 6), rng.randint(7, 12), rng.randint(3, 6)
    factors = (_tensor(rng, r, d_in), _tensor(rng, d_out, r), float(r + rng.randint(1, 9)), r)
    return (_tensor(rng, d_out, d_in), *factors) if weight else factors


def _weighted(rng: random.Random, *_) -> tuple:
    return _adapter(rng, weight=True)


def _mask(rng: random.Random, *_) -> tuple:
    import torch

    ids = [rng.randrange(6) for _ in range(rng.randint(3, 9))]
    return torch.tensor(ids), rng.randint(0, len(ids))


def _row(rng: random.Random, *_) -> tuple:
    begin, end, *ids = rng.sample(range(100), 12)
    prompt = [begin] * rng.randint(1, 3) + ids[: rng.randint(1, 5)]
    answer = ids[5 : 5 + rng.randint(1, 5)]
    return prompt, answer, begin, end, rng.randint(4, 14)


def _names(rng: random.Random, *_) -> tuple:
    wanted = [f"layers.{k}.{m}.A" for k in rng.sample(range(30), 3) for m in ("q", "v")]
    saved = [f"base_model.{name}" for name in wanted[: rng.randint(2, 6)]]
    saved += [f"base_model.layers.{k}.norm" for k in range(rng.randint(0, 2))]
    rng.shuffle(saved)
    return saved, wanted


def _blocks(rng: random.Random, *_) -> tuple:
    rows = rng.randint(2, 5)
    return (_tensor(rng, rows, 16 * rng.randint(1, 3)) * (_tensor(rng, rows, 1).exp() * 3),)


def _gradients(rng: random.Random, *_) -> tuple:
    pairs = [(0.0, rng.random() + 0.1), (0.0, 0.0), (rng.random() + 0.1, 0.0), (1e-10, 0.0)]
    return ({f"layer {k}": rng.choice(pairs) for k in range(rng.randint(2, 7))},)


ARGUMENTS: dict[str, Callable[..., tuple]] = {
    "00.count_trained": lambda rng, *_: (_labels(rng, rng.randint(4, 12), 9),),
    "01.next_token_distribution": lambda rng, *_: (_tensor(rng, rng.randint(1, 5), 7, scale=9.0),),
    "02.token_rank_shift": _ranks,
    "02.format_compliance": _form,
    "03.response_loss_share": _share,
    "04.sft_loss": lambda rng, *_: _batch(rng, rng.randint(3, 11)),
    "04.accumulated_loss": _micro_batches,
    "05.spot_the_difference": _two_sequences,
    "05.render": lambda rng, *_: (_talk(rng, rng.choice([1, 3, 5])),),
    "07.lora_parameter_count": lambda rng, *_: tuple(rng.randint(2, 2000) for _ in range(3)),
    "07.break_even_rank": lambda rng, *_: (rng.randint(1, 9000), rng.randint(1, 9000)),
    "08.which_is_stuck": _gradients,
    "09.lora_scale": lambda rng, *_: (
        rng.randint(1, 64),
        rng.randint(1, 256),
        rng.choice(["lora", "rslora", "plain"]),
    ),
    "09.effective_update": lambda rng, *_: _adapter(rng, weight=False),
    "10.best_rate": lambda rng, *_: (_sweep(rng, rng.uniform(-4.5, -2.5)),),
    "10.rate_ratio": _sweeps,
    "11.quantize_block": _blocks,
    "11.bits_per_parameter": lambda rng, *_: (2 ** rng.randint(4, 10), rng.random() < 0.5),
    "12.mask_prompt": _mask,
    "12.build_example": lambda rng, tokenizer, *_: (tokenizer, _talk(rng, rng.choice([2, 4, 6]))),
    "14.chatml": lambda rng, *_: (_talk(rng, rng.randint(1, 5)), rng.random() < 0.5),
    "14.count_turns": lambda rng, tokenizer, *_: (
        tokenizer,
        list(tokenizer.apply_chat_template(_talk(rng, rng.randint(1, 6)))["input_ids"]),
    ),
    "19.peak_training_bytes": lambda rng, *_: tuple(rng.randrange(10**9) for _ in range(7)),
    "20.merge": _weighted,
    "20.unmerge": _weighted,
    "22.repeats": _circles,
    "23.repair_row": _row,
    "23.micro_batch_weights": lambda rng, *_: ([rng.randint(1, 99) for _ in range(4)],),
    "23.repair_merge": _weighted,
    "23.fit_names": _names,
    "23.serving_prompt": lambda rng, tokenizer, *_: (tokenizer, _sentence(rng)[:-1] + "?"),
}
