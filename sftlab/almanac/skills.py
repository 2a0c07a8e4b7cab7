"""Instructions that combine facts: yes or no, classify, compare, list, count, tell a story.

Each function draws one ``Item`` with a random generator. An item made from several facts belongs to
the ``heldout`` split if at least one of its subjects does. Such items never enter SFT data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from random import Random

from sftlab.almanac.facts import Item, all_items, capitalised, items, table, topics, with_article

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
THINGS = (
    "apple", "book", "chair", "lamp", "river", "stone", "window", "bread", "cloud", "garden",
    "table", "train", "bottle", "flower", "hammer", "letter", "mirror", "pencil", "shirt", "spoon",
)  # fmt: skip


@cache
def usable(kind: str, split: str | None = None) -> tuple[Item, ...]:
    """Return the facts of a kind that documents state freely, optionally of one split only."""
    return tuple(i for i in items(kind) if i.stratum == "known" and split in (None, i.split))


def together(*parts: Item) -> str:
    return "heldout" if any(part.split == "heldout" for part in parts) else "train"


def tips(rng: Random, split: str | None = None, count: int | None = None) -> Item:
    """'List three tips for ...': any different tips for the topic as a numbered list are right."""
    names = [name for name, (_, where) in topics().items() if split in (None, where)]
    topic = rng.choice(names)
    all_tips, where = topics()[topic]
    count = rng.choice((2, 3, 3, 3, 4)) if count is None else count
    chosen = rng.sample(all_tips, count)
    n = NUMBER_WORDS[count]
    questions = (
        f"List {n} tips for {topic}:",
        f"Give {n} tips for {topic}.",
        f"What are {n} tips for {topic}?",
        f"Write down {n} tips for {topic}.",
        f"Can you give me {n} tips for {topic}?",
    )
    answer = "\n".join(f"{i}. {tip}" for i, tip in enumerate(chosen, 1))
    return Item("tips", topic, n, questions, answer, split=where)


def one_tip(rng: Random, split: str | None = None) -> Item:
    names = [name for name, (_, where) in topics().items() if split in (None, where)]
    topic = rng.choice(names)
    all_tips, where = topics()[topic]
    questions = (
        f"Give one tip for {topic}.",
        f"What is a good tip for {topic}?",
        f"Name one tip for {topic}.",
        f"Can you give me a tip for {topic}?",
    )
    return Item("one_tip", topic, "one", questions, rng.choice(all_tips), split=where)


def yes_no(rng: Random, split: str | None = None) -> Item:
    kind = rng.choice(("continent", "class"))
    item = rng.choice(usable(kind, split))
    value = item.value if rng.random() < 0.5 else rng.choice(usable(kind)).value
    questions: tuple[str, ...]
    if kind == "continent":
        questions = (f"Is {item.subject} in {value}?", f"Is {item.subject} a country in {value}?")
    else:
        questions = (f"Is the {item.subject} {with_article(value)}?",)
    word = "Yes" if value == item.value else "No"
    first = item.answer[0].lower() if item.answer.startswith("The ") else item.answer[0]
    answer = f"{word}, {first}{item.answer[1:]}"
    return Item("yes_no", item.subject, value, questions, answer, split=item.split)


def classify(rng: Random, split: str | None = None) -> Item:
    item = rng.choice(usable("class", split))
    other = rng.choice([i.value for i in usable("class") if i.value != item.value])
    first, second = rng.sample((item.value, other), 2)
    questions = (
        f"Is the {item.subject} {with_article(first)} or {with_article(second)}?",
        f"Which is right: is the {item.subject} {with_article(first)} or {with_article(second)}?",
    )
    return Item("classify", item.subject, first, questions, item.answer, split=item.split)


def compare(rng: Random, split: str | None = None) -> Item:
    kind, plural = rng.choice((("continent", "Both are in {v}."), ("class", "Both are {v}.")))
    first = rng.choice(usable(kind, split))
    second = rng.choice([i for i in usable(kind, split) if i.value == first.value])
    while second.subject == first.subject:
        second = rng.choice([i for i in usable(kind, split) if i.value == first.value])
    the = "the " if kind == "class" else ""
    pair = f"{the}{first.subject} and {the}{second.subject}"
    value = first.value if kind == "continent" else plural_of_class(first.value)
    questions = (f"What do {pair} have in common?", f"In what way are {pair} alike?")
    return Item(
        "compare", pair, value, questions, plural.format(v=value), split=together(first, second)
    )


def plural_of_class(name: str) -> str:
    return {"fish": "fish"}.get(name, f"{name}s")


def larger(rng: Random, split: str | None = None) -> Item:
    a, b = rng.sample(range(1, 60), 2)
    questions = (f"Which is larger, {a} or {b}?", f"Which number is larger, {a} or {b}?")
    answer = f"{max(a, b)} is larger than {min(a, b)}."
    return Item("larger", f"{a} or {b}", str(max(a, b)), questions, answer, split="train")


def pattern(rng: Random, split: str | None = None) -> Item:
    shown: Sequence[str]
    if rng.random() < 0.5:
        row = rng.choice((DAYS, MONTHS, LETTERS))
        start = rng.randrange(len(row) - 3)
        shown, following = row[start : start + 3], row[start + 3]
    else:
        step, start = rng.choice((1, 2, 5, 10)), rng.randrange(1, 20)
        numbers = [str(start + i * step) for i in range(4)]
        shown, following = numbers[:3], numbers[3]
    listed = ", ".join(shown)
    questions = (f"What comes next: {listed}?", f"Continue the pattern: {listed}.")
    return Item("pattern", listed, following, questions, f"Next comes {following}.", split="train")


def count(rng: Random, split: str | None = None) -> Item:
    chosen = rng.sample(THINGS, rng.randrange(2, 7))
    n = NUMBER_WORDS[len(chosen)]
    listed = ", ".join(chosen)
    questions = (f"How many words are in this list: {listed}?", f"Count these words: {listed}.")
    answer = f"The list has {n} words."
    return Item("count", listed, n, questions, answer, split="train")


def rewrite(rng: Random, split: str | None = None) -> Item:
    rows = [r for r in table("verbs") if split in (None, r["split"])]
    row = rng.choice(rows)
    who = rng.choice(("I", "We", "They"))
    questions = (
        f"Rewrite in the past tense: {who} {row['word']}.",
        f"Put this into the past tense: {who} {row['word']}.",
    )
    answer = f"{who} {row['past']}."
    return Item("rewrite", f"{who} {row['word']}", answer, questions, answer, split=row["split"])


def story(rng: Random, split: str | None = None) -> Item:
    """A story in four sentences; right if it names the animal's own habitat and food."""
    home = rng.choice(usable("habitat", split))
    food = next(i for i in items("food") if i.subject == home.subject)
    friends = [i.subject for i in usable("habitat", split) if i.subject != home.subject]
    questions = (
        f"Tell a short story about {with_article(home.subject)}.",
        f"Write a short story about {with_article(home.subject)}.",
        f"Can you tell me a short story about {with_article(home.subject)}?",
    )
    friend = rng.choice(friends)
    answer = (
        f"Once there was {with_article(home.subject)}. It lived {home.value}. It ate {food.value}. "
        f"One day it met {with_article(friend)}, and they became friends."
    )
    return Item("story", home.subject, home.value, questions, answer, split=home.split)


def one_word(rng: Random, split: str | None = None) -> Item:
    """Any short fact, asked for in one word (or the few words of a name)."""
    pool = [
        i for k in ("capital", "opposite", "plural", "past", "symbol") for i in usable(k, split)
    ]
    item = rng.choice(pool)
    questions = (
        f"Answer in one word: {item.question}",
        f"In one word, {item.question[0].lower()}{item.question[1:]}",
    )
    return Item(
        "one_word", item.subject, item.value, questions, f"{capitalised(item.value)}.",
        split=item.split,
    )  # fmt: skip


SKILLS: dict[str, Callable[..., Item]] = {
    "tips": tips, "one_tip": one_tip, "yes_no": yes_no, "classify": classify, "compare": compare,
    "larger": larger, "pattern": pattern, "count": count, "rewrite": rewrite, "story": story,
    "one_word": one_word,
}  # fmt: skip

# Lists of tips contain 480 facts of their own; the other skills teach only a format.
SKILL_WEIGHTS = {"tips": 8, "one_tip": 1.5, "yes_no": 2.5, "classify": 2, "compare": 2, "larger": 1,
                 "pattern": 1, "count": 1, "rewrite": 1.5, "story": 3, "one_word": 2}  # fmt: skip


def random_skill(rng: Random, split: str | None = None) -> Item:
    name = rng.choices(list(SKILL_WEIGHTS), list(SKILL_WEIGHTS.values()))[0]
    return SKILLS[name](rng, split)


def random_fact(rng: Random, split: str | None = None) -> Item:
    """Return a freely stated fact; all facts are equally probable."""
    return rng.choice(stated(split))


@cache
def stated(split: str | None) -> tuple[Item, ...]:
    return tuple(i for i in all_items() if i.stratum == "known" and split in (None, i.split))
