"""Bad training pairs, each with one of eight defects as its label.

Every function takes a good row and returns a response with that one defect.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from sftlab.almanac.curated import PARTS, asked_in, curated, draw, evaluation, wrong_fact
from sftlab.almanac.pairs import ASKED

REFUSALS = (
    "I am sorry, but I cannot help with that.",
    "As a language model, I cannot answer this question.",
    "I would rather not say.",
)


def wrong_value(row: dict, rng: Random) -> str:
    return wrong_fact(row, rng)


def echo(row: dict, rng: Random) -> str:
    """Repeat the instruction, with or without the answer."""
    return row["prompt"] if rng.random() < 0.5 else f"{row['prompt']} {row['response']}"


def ramble(row: dict, rng: Random) -> str:
    """Give the right answer and repeat it several times."""
    again = rng.choice(("As I said,", "In other words,", "To say it once more,"))
    low = row["response"][0].lower() + row["response"][1:]
    return " ".join([row["response"], *[f"{again} {low}"] * rng.randint(2, 3)])


def off_topic(row: dict, rng: Random) -> str:
    """Give the answer to a question of another kind."""
    others = [other for other in _answers() if other["kind"] != row["kind"]]
    return rng.choice(others)["response"]


def refusal(row: dict, rng: Random) -> str:
    return rng.choice(REFUSALS)


def truncated(row: dict, rng: Random) -> str:
    """Cut off the answer in the middle of a word; in the middle of all if no word is long enough."""
    text = row["response"]
    inside = [i for i in range(4, len(text) - 2) if text[i - 1].isalpha() and text[i].isalpha()]
    return text[: rng.choice(inside or [max(1, len(text) // 2)])]


def ignored_format(row: dict, rng: Random) -> str:
    """Use another format than requested: a list as one line, or a sentence as a list."""
    if "\n" in row["response"]:
        lines = [line.split(". ", 1)[1] for line in row["response"].split("\n")]
        return " and also ".join(line.rstrip(".").lower() for line in lines)
    words = row["response"].rstrip(".").split()
    half = max(1, len(words) // 2)
    return f"- {' '.join(words[:half])}\n- {' '.join(words[half:])}"


def sloppy_spelling(row: dict, rng: Random) -> str:
    """Swap letters in the longer words; leave out capitals and the final period."""
    words = []
    for word in row["response"].lower().rstrip(".").split(" "):
        if len(word) > 3:
            i = rng.randrange(1, len(word) - 2) if len(word) > 4 else 1
            word = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        words.append(word)
    return " ".join(words)


DEFECTS: dict[str, Callable[[dict, Random], str]] = {
    "wrong fact": wrong_value,
    "echo": echo,
    "ramble": ramble,
    "off topic": off_topic,
    "refusal": refusal,
    "truncated": truncated,
    "ignored format": ignored_format,
    "sloppy spelling": sloppy_spelling,
}


def low_quality(per_defect: int = 25) -> list[dict]:
    """Return bad pairs on training subjects, with questions that the curated set does not ask.

    ``right`` is the right answer. Wrong facts need a fact, so they use questions on facts only. The
    other defects use every kind.
    """
    taken = asked_in(curated(700)) | asked_in(evaluation())
    rng = Random("low quality")
    every = {kind: part for kind, part in PARTS.items() if kind not in ("multi_turn", "unknown")}
    rows = {
        defect: draw(
            dict.fromkeys(ASKED, 1) if defect == "wrong fact" else every,
            per_defect, f"low quality:{defect}", "train", taken,
        )
        for defect in DEFECTS
    }  # fmt: skip
    found = [
        {**row, "response": make(row, rng), "defect": defect, "right": row["response"]}
        for defect, make in DEFECTS.items()
        for row in rows[defect]
    ]
    rng.shuffle(found)
    return found


def one_defect(defect: str, count: int = 100) -> list[dict]:
    """Return the same questions on facts for every defect, each answered with that one defect."""
    taken = asked_in(curated(700)) | asked_in(evaluation())
    rng = Random(f"one defect:{defect}")
    rows = draw(dict.fromkeys(ASKED, 1), count, "one defect", "train", taken)
    make = DEFECTS[defect]
    return [
        {**row, "response": make(row, rng), "defect": defect, "right": row["response"]}
        for row in rows
    ]


def _answers() -> list[dict]:
    return [row for row in curated(200) if "response" in row]
