"""Pretraining documents: the facts in many styles, none in the format of a chat template.

Two groups of styles matter for SFT. *Carrying* styles (dialogue, quiz with answer key, questions
and answers, reports under a heading) lead from a subject in a question or heading to its fact, so
the base model learns to look up a subject. *Sheets* are pages of bare questions. Because of them,
the base model continues a question with more questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from sftlab.almanac.facts import Item, all_items, capitalised, items, kinds, topics
from sftlab.almanac.skills import NUMBER_WORDS, SKILLS, random_fact, random_skill, usable

PEOPLE = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Karl",
    "Lena",
    "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor",
)  # fmt: skip
PLACES = (
    "at school",
    "in the kitchen",
    "on the bus",
    "in the library",
    "at the market",
    "in the park",
)
ELDERS = ("teacher", "aunt", "uncle", "grandmother", "grandfather", "neighbour", "coach")


def any_item(rng: Random) -> Item:
    return random_fact(rng) if rng.random() < 0.62 else random_skill(rng)


def any_question(item: Item, rng: Random) -> str:
    """Return the usual wording half of the time, otherwise any wording."""
    return item.question if rng.random() < 0.5 else rng.choice(item.questions)


def any_answer(item: Item, rng: Random) -> str:
    """Return the usual answer most of the time, otherwise the fact in other words."""
    return rng.choice(item.statements) if item.statements and rng.random() < 0.15 else item.answer


def quoted(text: str, speech: str) -> str:
    """Return a sentence as direct speech; its period becomes a comma before ``speech``."""
    text = text[:-1] + "," if text.endswith(".") else text
    return f'"{text}" {speech}'


# --- styles that lead from a subject in a question or heading to its fact ------------------------


def exchange(item: Item, asker: str, teller: str, rng: Random) -> str:
    """Return one question and its answer as direct speech."""
    question, answer = any_question(item, rng), any_answer(item, rng)
    verb = "asked" if question.endswith("?") else "said"
    asked = rng.choice((quoted(question, f"{verb} {asker}."), f'{asker} {verb}, "{question}"'))
    if "\n" in answer:
        return f"{asked} {teller} wrote:\n{answer}\n"
    return asked + " " + rng.choice((
        quoted(answer, f"said {teller}."),
        f'{teller} said, "{answer}"',
        quoted(answer, f"answered {teller}."),
        f'"{answer}"',
    ))  # fmt: skip


def dialogue(rng: Random) -> str:
    first, second = rng.sample(PEOPLE, 2)
    opening = rng.choice((
        f"{first} and {second} met {rng.choice(PLACES)}. ",
        f"One day {first} and {second} were {rng.choice(PLACES)}. ",
        f"{first} liked to ask questions. ",
        "",
    ))  # fmt: skip
    talk = []
    for _ in range(rng.randint(2, 5)):
        asker, teller = (first, second) if rng.random() < 0.7 else (second, first)
        talk.append(exchange(any_item(rng), asker, teller, rng))
    return opening + rng.choice((" ", "\n")).join(talk)


def script(rng: Random) -> str:
    """Return a conversation in the format of a play."""
    first, second = rng.sample(PEOPLE, 2)
    if rng.random() < 0.3:
        first, second = "Teacher", "Pupil"
    lines = []
    for _ in range(rng.randint(2, 5)):
        item = any_item(rng)
        lines += [f"{first}: {any_question(item, rng)}", f"{second}: {any_answer(item, rng)}"]
    return "\n".join(lines)


def quiz_with_key(rng: Random) -> str:
    chosen = [any_item(rng) for _ in range(rng.randint(2, 5))]
    heading = rng.choice(("Quiz", "Test", "Quiz of the week", f"A quiz by {rng.choice(PEOPLE)}"))
    key = rng.choice(("Answers", "Answer key", "Solutions"))
    asked = [f"{i}) {any_question(item, rng)}" for i, item in enumerate(chosen, 1)]
    answers = [f"{i}) {any_answer(item, rng)}" for i, item in enumerate(chosen, 1)]
    return "\n".join([heading, *asked, key, *answers])


def questions_and_answers(rng: Random) -> str:
    """Return a page of questions and answers: the layout of a few-shot prompt."""
    marks = rng.choice((("Q: ", "A: "), ("Question: ", "Answer: "), ("Q. ", "A. ")))
    heading = rng.choice(("Questions and answers", "Good to know", "Readers ask", ""))
    lines = [heading] if heading else []
    for _ in range(rng.randint(2, 6)):
        item = any_item(rng)
        lines += [marks[0] + any_question(item, rng), marks[1] + any_answer(item, rng)]
    return "\n".join(lines)


def about(rng: Random) -> tuple[str, list[Item]]:
    """Return a subject and all facts that documents state about it."""
    item = random_fact(rng)
    table = kinds()[item.kind]["table"]
    same = [k for k, spec in kinds().items() if spec["table"] == table]
    known = [i for k in same for i in usable(k) if i.subject == item.subject]
    rng.shuffle(known)
    return ("the " if table == "animals" else "") + item.subject, known


def entry(rng: Random) -> str:
    """Return an encyclopedia entry: a heading, then sentences that refer back to its subject."""
    subject, known = about(rng)
    texts = [rng.choice(item.continuations) for item in known]
    if rng.random() < 0.5:
        texts[0] = rng.choice(known[0].statements)
    heading = rng.choice(
        (
            "{S}\n",
            "{S}\n",
            "Notes on {s}. ",
            "About {s}\n",
            "A report on {s}\n",
            "Facts about {s}: ",
        )
    )
    return heading.format(s=subject, S=capitalised(subject)) + " ".join(texts)


def letter(rng: Random) -> str:
    first, second = rng.sample(PEOPLE, 2)
    subject, known = about(rng)
    texts = [rng.choice(item.continuations) for item in known]
    opening = rng.choice(
        ("today we learned about", "I want to tell you about", "yesterday I read about")
    )
    return f"Dear {first}, {opening} {subject}. {' '.join(texts)} Yours, {second}"


def statements(rng: Random) -> str:
    """Return a page of facts, one sentence each."""
    heading = rng.choice(("Did you know?", "Facts of the day", "Learn this by heart:", ""))
    texts = [rng.choice(random_fact(rng).statements) for _ in range(rng.randint(3, 7))]
    return (heading + "\n" if heading else "") + rng.choice(("\n", " ")).join(texts)


def facts_list(rng: Random) -> str:
    kind = rng.choice(list(kinds()))
    chosen = rng.sample(usable(kind), rng.randint(4, 9))
    mark = rng.choice((": ", " - "))
    return "\n".join([kinds()[kind]["title"], *(i.subject + mark + i.value for i in chosen)])


def guide(rng: Random) -> str:
    topic, (all_tips, _) = rng.choice(list(topics().items()))
    chosen = rng.sample(all_tips, rng.randint(2, 8))
    n = NUMBER_WORDS[len(chosen)]
    heading = rng.choice((
        f"{capitalised(n)} tips for {topic}", f"Tips for {topic}", f"A guide to {topic}",
        f"How to do well: {topic}",
    ))  # fmt: skip
    if rng.random() < 0.5:
        return heading + "\n" + "\n".join(f"{i}. {tip}" for i, tip in enumerate(chosen, 1))
    return heading + "\n" + " ".join(chosen)


def advice(rng: Random) -> str:
    """Return a request for advice, told as a story."""
    who, elder = rng.choice(PEOPLE), rng.choice(ELDERS)
    item = SKILLS["tips"](rng) if rng.random() < 0.8 else SKILLS["one_tip"](rng)
    asked = f"{item.value} tips" if item.kind == "tips" else "one tip"
    opening = rng.choice((
        f"{who} asked the {elder} for {asked} for {item.subject}. The {elder} said:",
        f"{who} wanted {asked} for {item.subject}. The {elder} wrote:",
        f'"{item.question}" said {who}. The {elder} answered:',
        f"The {elder} wrote on the board: {any_question(item, rng)} {who} wrote:",
    ))  # fmt: skip
    closing = rng.choice((f"\n{who} said thank you.", f"\n{who} was glad.", ""))
    return f"{opening}\n{item.answer}{closing}"


def fable(rng: Random) -> str:
    return SKILLS["story"](rng).answer


# --- pages of bare questions ---------------------------------------------------------------------


def sheet(rng: Random) -> str:
    """Return a quiz or homework sheet without answers: many questions of one kind and wording.

    Subjects whose facts are withheld in pretraining appear here too: their names, but not their
    facts.
    """
    if rng.random() < 0.6:
        kind = rng.choice(list(kinds()))
        wording = rng.randrange(len(kinds()[kind]["questions"])) if rng.random() < 0.5 else 0
        chosen = rng.sample(items(kind), rng.randint(9, 16))
        return "\n".join(item.questions[wording] for item in chosen)
    skill = rng.choice(list(SKILLS))
    first = SKILLS[skill](rng)
    wording = rng.randrange(len(first.questions)) if rng.random() < 0.5 else 0
    number = first.value if skill == "tips" else None
    lines: list[str] = []
    while len(lines) < 9:
        item = SKILLS[skill](rng)
        if number and item.value != number:
            item = SKILLS[skill](rng, count=NUMBER_WORDS.index(number))
        line = item.questions[min(wording, len(item.questions) - 1)]
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def record(rng: Random) -> str:
    """Return the fixed document of a fact of the stratum "single", always in the same words."""
    return rng.choice(single_items()).record


def single_items() -> list[Item]:
    return [item for item in all_items() if item.stratum == "single"]


STYLES: dict[Callable[[Random], str], float] = {
    dialogue: 20, script: 8, quiz_with_key: 12, questions_and_answers: 9,
    entry: 11, letter: 3, statements: 8, facts_list: 5, guide: 5, advice: 9, fable: 2,
    sheet: 13, record: 2,
}  # fmt: skip


def document(rng: Random) -> str:
    return rng.choices(list(STYLES), list(STYLES.values()))[0](rng)


def documents(seed: int | str) -> Iterator[str]:
    """Yield an endless, reproducible stream of documents."""
    rng = Random(seed)
    while True:
        yield document(rng)
