"""The sample file of notebook 26: questions to the help desk of a museum that does not exist.

Half of the facts are the museum's own: which room an object is in. No model can know them. The
other half are facts that the embedded base has read. As in many files from real desks, a question
was often noted down more than once, with other capital letters, a greeting or a "please".

    python -m sftlab.exercises.ex26_served_model.sample      # write data/sample
"""

from __future__ import annotations

from random import Random

from sftlab._internal.paths import DATA
from sftlab.almanac.pairs import heldout
from sftlab.data import write_jsonl

FOLDER = DATA / "sample"
THINGS = [
    "owl",
    "fox",
    "bear",
    "horse",
    "lion",
    "swan",
    "whale",
    "wolf",
    "eagle",
    "turtle",
    "camel",
    "rabbit",
]
MADE_OF = ["wooden", "silver", "glass", "stone", "paper", "golden"]
FACTS, LATER = 24, 36  # of either kind: in the file, and asked afterwards
KINDS = ("capital", "continent", "symbol", "class", "plural", "opposite")


def copies(question: str) -> list[str]:
    """Return near-copies of a question: what a second person types who asks the same."""
    plain = question.rstrip("?.")
    return [
        plain.lower(),
        f"{plain}, please?" if question.endswith("?") else f"{plain}, please.",
        f"Hello, {question[0].lower()}{question[1:]}",
    ]


def facts() -> list[dict]:
    """Return all facts as pairs, own and known ones in turn; the same at every call."""
    rng = Random("museum")
    things = [f"{made} {thing}" for thing in THINGS for made in MADE_OF]
    rng.shuffle(things)
    own = [
        {"prompt": f"Which room is the {thing} in?", "response": f"The {thing} is in room {rng.randint(1, 9)}.", "kind": "own"}
        for thing in things
    ]  # fmt: skip
    pool = [q for q in heldout() if q["kind"] in KINDS]
    rng.shuffle(pool)
    seen: set[str] = set()
    known = []
    for q in pool:
        if q["subject"] not in seen:
            seen.add(q["subject"])
            known.append({"prompt": q["prompt"], "response": q["response"], "kind": "known"})
    return [row for pair in zip(own[: FACTS + LATER], known[: FACTS + LATER], strict=True) for row in pair]  # fmt: skip


def sample() -> tuple[list[dict], list[dict]]:
    """Return the rows of the file, copies included, and the questions that are asked afterwards."""
    rng = Random("desk")
    rows, later = [], facts()
    chosen, later = later[: 2 * FACTS], later[2 * FACTS :]
    for number, fact in enumerate(chosen):
        asked = [fact["prompt"]]
        if number // 2 % 3:  # two facts in three were asked more than once
            asked += rng.sample(copies(fact["prompt"]), 2)
        rows += [{"prompt": prompt, "response": fact["response"]} for prompt in asked]
    rng.shuffle(rows)
    return rows, [{"prompt": q["prompt"], "response": q["response"]} for q in later]


def main() -> None:
    rows, later = sample()
    FOLDER.mkdir(exist_ok=True)
    write_jsonl(FOLDER / "desk.jsonl", rows)
    write_jsonl(FOLDER / "asked_later.jsonl", later)


if __name__ == "__main__":
    main()
