"""Pairs for prompts outside the model's world: talk, unknown names, symbols, other wordings.

A model tuned only on questions that it can answer answers everything: "Hello!" gets a fact. These
pairs show what to say instead. They are a set of their own, ``out_of_scope.jsonl``, so that
experiments on the other sets stay as they are. Known facts in careless wordings stand beside the
unknown ones, because a set of declining pairs alone teaches to decline what is known, too.

Nothing here is copied from ``free_prompts.jsonl``, on which the result is measured: no prompt, no
invented name and no wording, and sums and names of that file are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from itertools import cycle
from random import Random

from sftlab._internal.paths import DATA
from sftlab.almanac.curated import UNHEARD
from sftlab.almanac.facts import all_items, capitalised, kinds, with_article
from sftlab.almanac.free_prompts import free_prompts
from sftlab.almanac.pairs import ASKED, row
from sftlab.almanac.skills import THINGS, usable
from sftlab.errors import WorkbookError

# Every token of these sentences stands in the pretraining documents.
ASK_ME = "You can ask me about countries, animals, elements, words and books."
GREETING = f"Good day. {ASK_ME}"
SELF = f"I am a small model. {ASK_ME}"
THANKS = "You are welcome."
GOODBYE = "Good day to you."
DECLINE = f"I do not know about that. {ASK_ME}"
NO_SUM = "I do not know the answer."

# --- invented names ---------------------------------------------------------------------------
# The two splits have no first syllable and no title word in common.
FIRST = {
    "train": ["bal", "bren", "cal", "cor", "dal", "del", "el", "fal", "fen", "gal", "hal", "har", "il", "jor", "kal", "kor", "lan", "lor", "mal", "mer", "nal", "nor", "or", "pal", "pel", "ral", "ros", "sal", "sel", "tal", "tor", "ul", "val", "ver", "vol", "wes", "zan", "zor"],
    "test": ["ask", "bol", "chur", "dov", "esk", "fum", "gro", "hib", "isk", "jed", "kruv", "lub", "mox", "niv", "ox", "plu", "quin", "rund", "squa", "thud", "umb", "vim", "wob", "yul", "zef"],
}  # fmt: skip
SECOND = [
    "a",
    "an",
    "ber",
    "da",
    "den",
    "do",
    "e",
    "em",
    "ga",
    "gi",
    "i",
    "ka",
    "la",
    "lo",
    "ma",
    "mi",
    "na",
    "ni",
    "o",
    "pa",
    "ri",
    "ro",
    "sa",
    "ta",
    "ti",
    "u",
    "va",
    "vi",
    "zo",
]
ENDING = {
    "country": ["ia", "nia", "land", "stan", "ra", "mark", "via", "ria", "donia"],
    "animal": ["ble", "bit", "fox", "dle", "ster", "mook", "pin", "ger", "ling"],
    "element": ["nium", "rium", "dium", "lium", "thium"],
    "word": ["ble", "sh", "ster", "dle", "mp", "nk", "sk"],
}
TITLE = {
    "train": (["red", "green", "golden", "hidden", "long", "small", "dark", "cold", "lost", "old", "white", "empty", "wooden"],
              ["river", "garden", "mirror", "window", "bridge", "tower", "forest", "teacher", "winter", "horse", "island", "letter", "key", "summer", "road", "queen"]),
    "test": (["silent", "broken", "hollow", "crooked", "purple", "sleeping", "iron"],
             ["harbor", "candle", "wagon", "orchard", "fiddle", "meadow", "lantern", "anchor"]),
}  # fmt: skip
WHAT = {
    "capital": "country", "continent": "country", "language": "country", "class": "animal",
    "habitat": "animal", "food": "animal", "symbol": "element", "number": "element",
    "maker": "title", "plural": "word", "past": "word", "opposite": "word",
}  # fmt: skip


def do_not_know(kind: str) -> str:
    """Return the answer to a question of a kind about an unknown name.

    It does not say the name. A model of this size cannot copy a name that it has never read: in
    trials it wrote "I do not know the capital of Ginroat." to a question about Grelland.
    """
    return f"I do not know this {'work' if WHAT[kind] == 'title' else WHAT[kind]}."


@cache
def _forbidden() -> tuple[frozenset[str], str]:
    """Return names of the tables and of other sets, and the text of all free prompts."""
    names = {item.subject.lower() for item in all_items()}
    names |= {name.lower() for several in UNHEARD.values() for name in several}
    return frozenset(names), "\n".join(r["prompt"].lower() for r in free_prompts())


def invented(what: str, rng: Random, split: str = "train") -> str:
    """Return an invented name of a country, animal, element, word or title; never a known one."""
    while True:
        if what == "title":
            adjective, noun, other = (
                *(rng.choice(words).capitalize() for words in TITLE[split]),
                rng.choice(TITLE[split][1]),
            )
            forms = f"The {adjective} {noun}", f"A {noun} of {other}s", f"The {noun} and the {other.capitalize()}"  # fmt: skip
            name = rng.choice((*forms, f"{adjective} {noun}s"))
        else:
            second = rng.choice(SECOND) if rng.random() < 0.6 else ""
            name = rng.choice(FIRST[split]) + second + rng.choice(ENDING[what])
            name = name.capitalize() if what == "country" else name
        names, prompts = _forbidden()
        if name.lower() not in names and not re.search(rf"\b{name.lower()}\b", prompts):
            return name


def misspelled(text: str, rng: Random) -> str:
    """Return the text with two neighboring letters of one word swapped, or one letter left out."""
    places = [m.start() for m in re.finditer(r"(?<=\w)\w(?=\w\w)", text)] or [0]
    at = rng.choice(places)
    if rng.random() < 0.5:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at + 1 : at + 2] + text[at] + text[at + 2 :]


def careless(question: str, rng: Random) -> str:
    """Return the question as people type it: small letters, no punctuation, a word before it."""
    draw = rng.random()
    if draw < 0.35:
        return question
    question = question[0].lower() + question[1:]
    if draw < 0.5:
        return f"{rng.choice(('Please: ', 'I want to know: ', 'Hi, ', 'Now, ', 'ok, '))}{question}"
    return question.rstrip("?.") if draw < 0.8 else question


# --- pairs, one maker for each kind -------------------------------------------------------------


def pair(kind: str, prompt: str, response: str) -> dict:
    return {"prompt": prompt, "response": response, "kind": kind}


def unknown(rng: Random, split: str = "train", kind: str | None = None) -> dict:
    """Return a question of a known kind about an invented name, and the declining answer."""
    kind = kind or rng.choice(list(WHAT))
    name = invented(WHAT[kind], rng, split)
    words = {"s": name, "verb": rng.choice(("wrote", "painted", "composed", "directed"))}
    question = rng.choice(kinds()[kind]["questions"]).format_map(words)
    asked = careless(question, rng) if split == "train" else question
    if split == "train" and rng.random() < 0.2:
        asked = asked.replace(name, name.lower())
    return {**pair("unknown", asked, do_not_know(kind)), "subject": name, "asks": kind}


def known(rng: Random) -> dict:
    """Return a question on a known fact of the train split, half of the time in careless words."""
    item = rng.choice(usable(rng.choice(ASKED), "train"))
    asked = rng.choice(item.questions)
    made = row(item, careless(asked, rng) if rng.random() < 0.6 else asked)
    if rng.random() < 0.15:
        made["prompt"] = made["prompt"].replace(item.subject, item.subject.lower())
    return {**made, "asks": made["kind"], "kind": "known"}


def typo(rng: Random) -> dict:
    """Return a misspelled question: the fact if its name is intact, declining if it is not."""
    kind = rng.choice([k for k in ASKED if k in WHAT])
    item = rng.choice(usable(kind, "train"))
    question = rng.choice(item.questions)
    if rng.random() < 0.6:
        before, name, after = question.partition(item.subject)
        before = misspelled(before, rng) if len(before) > 12 else before
        made = pair("typo", before + name + after, item.answer)
        return {**made, "subject": item.subject, "asks": kind}
    name = misspelled(item.subject, rng)
    asked = careless(question.replace(item.subject, name), rng)
    return {**pair("typo", asked, do_not_know(kind)), "subject": name, "asks": kind}


SUMS = ("{a}+{b} = ", "What do you get for {a} + {b}?", "{a} + {b} is what?", "Add: {a} + {b}", "{a}+{b}?",
        "{a} plus {b} = ?", "how much do {a} + {b} make", "{a} + {b} = ", "the answer of {a}+{b}")  # fmt: skip
NO_SUMS = ("{a} - {b} = ", "{a} times {b}", "What do you get for {a} * {b}?", "{a} divided by {b}", "{a} x {b} is what?",
           "take {b} from {a}", "half of {a}", "{a}/{b}?", "{a} minus {b}", "{a}-{b}?", "{a}*{b}", "{a} + {b} + {c} is what?",
           "the root of {a}", "{a} percent of {b}", "{big} + {more} is what?", "{big}+{more}", "Add: {big} + {more}")  # fmt: skip


def sum_in_symbols(rng: Random) -> dict:
    """Return a sum of small numbers with its total, or arithmetic that is declined."""
    if rng.random() < 0.5:
        numbers = {name: rng.randint(1, 30) for name in "abc"}
        numbers |= {"big": rng.randint(60, 3000), "more": rng.randint(30, 900)}
        return pair("sum", rng.choice(NO_SUMS).format_map(numbers), NO_SUM)
    item = rng.choice(usable("sum", "train"))
    a, b = item.subject.split(" plus ")
    return pair("sum", rng.choice(SUMS).format(a=a, b=b), item.answer)


CLAIMS = {
    "continent": ("{S} is in {v}, is it not?", "is {s} a country of {v}", "{s}: is it in {v}?", "{S} is a country in {v}. Is that so?",
                  "Is {v} the continent of {s}?", "Does {s} belong to {v}?", "is it so that {s} is in {v}", "{s} is in {v}?"),
    "class": ("The {s} is {a_v}, is it not?", "is the {s} a kind of {v}", "is {a_s} {a_v}", "is {a_s} {a_v}?", "{s}: {v}?",
              "Does the {s} belong to the {v} class?", "The {s} is {a_v}. Is that so?", "is it so that the {s} is {a_v}", "the {s} is {a_v}?"),
    "capital": ("Is the capital of {s} {v}?", "Is {v} the city that is the capital of {s}?", "Does {s} have its capital in {v}?",
                "{V} is the capital of {s}. Is that so?", "the capital of {s} is {v}, is it not"),
    "language": ("Is {v} the main language of {s}?", "In {s}, is the language {v}?", "Is {v} what people speak in {s}?", "People in {s} speak {v}, do they not?"),
    "symbol": ("Is {v} the symbol for {s}?", "Does {v} stand for {s}?", "is the symbol for {s} {v}"),
    "opposite": ("Are {s} and {v} opposites?", "Is {v} what you call the opposite of {s}?", "the opposite of {s} is {v}?"),
    "plural": ("Is the plural of {s} {v}?", "is {v} the plural form of {s}?"),
    "past": ("Is {v} the past tense of {s}?", "is the past form of {s} {v}"),
    "sum": ("Is {s} {v}?", "Do you get {v} for {s}?", "{s} is {v}, is it not?", "does {s} make {v}"),
    "maker": ("Was it {v} who made {s}?", "Is {s} a work of {v}?", "{v} {verb} {s}, is it not so?", "was {s} by {v}"),
    "food": ("Does the {s} eat {v}?", "Is {v} the food of the {s}?"),
}  # fmt: skip
ASKING = ("{q}", "{q}", "{q}", "{q}", "Answer yes or no. {Q}", "Yes or no: {q}", "yes or no? {Q}", "One question: {q}",
          "{Q} Answer with yes or no.", "I think so, but {q}", "{Q} Yes or no?", "{q} just answer yes or no", "Is this right? {Q}")  # fmt: skip


def yes_no(rng: Random) -> dict:
    """Return a claim about a known fact of the train split as a question, and its answer.

    The answer is the fact without yes or no. In trials the word, before or after the fact, was
    right as often as a coin: a model of this size recalls the fact, but does not compare it.
    """
    kind = rng.choice((*CLAIMS, *3 * ("continent",), *3 * ("class",)))
    item = rng.choice(usable(kind, "train"))
    value = item.value if rng.random() < 0.5 else rng.choice(usable(kind, "train")).value
    verb = re.search(r"wrote|painted|composed|directed", item.question)
    question = rng.choice(CLAIMS[kind]).format_map({
        "s": item.subject, "S": capitalised(item.subject), "v": value, "V": capitalised(value),
        "a_v": with_article(value), "a_s": with_article(item.subject), "verb": verb and verb[0],
    })  # fmt: skip
    small, large = question[0].lower() + question[1:], capitalised(question)
    asked = rng.choice(ASKING).format(q=rng.choice((small, large)), Q=large)
    if rng.random() < 0.25:
        asked = asked.rstrip("?.")
    if rng.random() < 0.2:
        asked = asked.lower()
    return {**pair("yes_no", asked, item.answer), "subject": item.subject, "asks": kind}


PHRASES: dict[str, list[str]] = json.loads(
    (DATA / "almanac" / "phrases.json").read_text(encoding="utf-8")
)
CHARACTERS = "abcdefghijklmnopqrstuvwxyz" * 3 + "ABCDEFGHIJ" + "0123456789" + "#%&/()=?!*+-.,;:_<>"
EMOJI = "😀😅🤖🎉🔥🐍🍕❤👍🌍⭐🚀😢🤔💡"


def nonsense(rng: Random) -> str:
    """Return letters hit at random, words in no order, or signs."""
    draw = rng.random()
    if draw < 0.35:
        return "".join(rng.choice(CHARACTERS) for _ in range(rng.randint(3, 14)))
    if draw < 0.45:
        return rng.choice("abcdefghijklmnopqrstuvwxyz!?.,-") * rng.randint(1, 12)
    if draw < 0.55:
        return "".join(rng.choice(EMOJI) for _ in range(rng.randint(1, 5)))
    pool = (*THINGS, *["green", "idea", "walk", "quickly", "under", "of", "and", "but", "when", "never", "if", "the", "a", "seven", "loud", "dream", "Monday", "spoon"],
            *["color", "sky", "nose", "purple", "sing", "fast", "because", "very", "was", "who", "what", "is", "it", "sleep", "tree"])  # fmt: skip
    chosen = [rng.choice(pool) for _ in range(rng.randint(1, 6))]
    if rng.random() < 0.2:
        chosen = [chosen[0]] * rng.randint(2, 6)
    if rng.random() < 0.3:
        return f"{rng.choice(('Why is', 'How many', 'When does', 'What is', 'Is'))} {' '.join(chosen)}?"
    return " ".join(chosen)


def declined(kind: str, prompt: str) -> dict:
    """Return a pair with what the model is for one or two words and for talk about the model.

    Anything longer is declined. The boundary lies where a model of this size can see it.
    """
    itself = len(prompt.split()) <= 2 or re.search(r"\b(you|your)\b", prompt.lower())
    return pair(kind, prompt, SELF if itself else DECLINE)


def fixed(kind: str, prompts: list[str], response: str) -> Callable[[Random], dict]:
    return lambda rng: pair(kind, dressed(rng.choice(prompts), rng), response)


HAIL = ("hello", "hi", "hey", "hello", "hi", "hey", "hello", "hi", "hey", "good day", "good morning", "good evening",
        "good afternoon", "greetings", "hallo", "howdy", "morning", "evening")  # fmt: skip
WHO = ("", "there", "you", "model", "friend", "again", "all", "everybody", "my friend", "little model", "computer",
       "you there", "everyone", "dear model", "folks", "buddy")  # fmt: skip
AFTER = ("", "", "", "!", ".", " :D", " 🙂", " ❤️", "!!", "...", ", I am here.", ". A good day to you!", ", can we start?",
         ". I am new here.", ", I am Tom", ". It is good to be here", ", good to see you", "?", ". Nice day.", ", what a day")  # fmt: skip


def hail(rng: Random) -> dict:
    """Return one of many greetings put together from parts."""
    who, first = rng.choice(WHO), rng.choice(HAIL)
    if not who and rng.random() < 0.5:
        first = f"{first}{rng.choice((' ', ', ', '! '))}{first}"
    text = f"{first}{rng.choice((' ', ', ')) if who else ''}{who}{rng.choice(AFTER)}"
    return pair(
        "greeting", rng.choice((text, capitalised(text), capitalised(text), text.upper())), GREETING
    )


THANK = ("thanks", "thank you", "many thanks", "thanks a lot", "thank you very much", "great, thanks", "ok, thank you",
         "thx a lot", "cool, thanks")  # fmt: skip
FOR = ("", "", " for this", " for the answer", " for your time", ", friend", ", model", " again", ", that was good",
       ", you helped me", ", this helps", " for all of it")  # fmt: skip
LEAVE = ("bye bye", "goodbye, model", "bye for now", "see you", "see you soon", "good night, model", "I have to go",
         "until tomorrow", "I am leaving", "so long", "bye, friend")  # fmt: skip


def part(rng: Random) -> dict:
    """Return thanks, a farewell, or thanks and then a farewell, put together from parts."""
    thanks, bye = f"{rng.choice(THANK)}{rng.choice(FOR)}", rng.choice(LEAVE)
    end = rng.choice(("", "", "!", ".", " :)", " 🙂", " ❤️", "!!"))
    draw = rng.random()
    text = thanks if draw < 0.5 else bye if draw < 0.75 else f"{thanks}{rng.choice(('. ', ', ', ' and '))}{bye}"  # fmt: skip
    reply = THANKS if draw < 0.5 else GOODBYE if draw < 0.75 else f"{THANKS} {GOODBYE}"
    return pair("greeting", rng.choice((text, capitalised(text))) + end, reply)


def dressed(text: str, rng: Random) -> str:
    """Return the text as people type it, sometimes with a word before or a sentence after it."""
    text = careful_or_not(text, rng)
    if rng.random() < 0.25:
        before = rng.choice(
            ("So", "And", "Ok,", "Hey,", "Hello,", "Well,", "Please:", "Now", "I ask:")
        )
        text = (
            f"{before} {text}"
            if rng.random() < 0.5
            else f"{before.lower()} {text[0].lower()}{text[1:]}"
        )
    if rng.random() < 0.15:
        text += rng.choice(
            (
                " I want to know.",
                " Please!",
                " 🙂",
                " please",
                " ...",
                " My teacher asks.",
                " I am curious.",
            )
        )
    return text


def careful_or_not(text: str, rng: Random) -> str:
    """Return the text as it is, in small letters, without its last sign, or with another one."""
    return rng.choice((text, text, text.lower(), text.rstrip("?.!"), f"{text.rstrip('?.!')}!", f"{text.rstrip('?.!')}?"))  # fmt: skip


def talk(rng: Random) -> dict:
    return declined("chat", dressed(rng.choice(PHRASES["talk"]), rng))


def about_things(rng: Random) -> dict:
    t = rng.choice(THINGS)
    return pair("chat", dressed(rng.choice(PHRASES["things"]).format(t=t, a_t=with_article(t)), rng), DECLINE)  # fmt: skip


def code(rng: Random) -> dict:
    t, form = rng.choice(THINGS), rng.choice((PHRASES["code"], PHRASES["translation"]))
    text = rng.choice(form).format(t=t, a_t=with_article(t), l=rng.choice(PHRASES["languages"]))
    return pair("code", dressed(text, rng), DECLINE)


def foreign(rng: Random) -> dict:
    if rng.random() < 0.8:
        return declined("language", careful_or_not(rng.choice(PHRASES["foreign"]), rng))
    item = rng.choice(usable("capital", "train"))
    return pair("language", rng.choice(PHRASES["capital_abroad"]).format(s=item.subject), DECLINE)


MAKERS: dict[str, tuple[Callable[[Random], dict], ...]] = {
    "greeting": (hail, hail, part, fixed("greeting", PHRASES["greetings"], GREETING),
                 fixed("greeting", PHRASES["thanks"], THANKS), fixed("greeting", PHRASES["leaving"], GOODBYE)),
    "self": (fixed("self", PHRASES["self"], SELF),),
    "chat": (talk, talk, about_things),
    "code": (code,),
    "language": (foreign,),
    "nonsense": (lambda rng: declined("nonsense", nonsense(rng)),),
    "sum": (sum_in_symbols,),
    "yes_no": (yes_no,),
    "typo": (typo,),
    "unknown": (unknown,),
    "known": (known,),
}  # fmt: skip


def plain(prompt: str) -> str:
    """Return the prompt for comparison, without its case, white space and last signs."""
    return " ".join(prompt.lower().split()).rstrip(" .!?") or prompt.strip()


def made(kind: str, count: int, seed: int = 0) -> list[dict]:
    """Return ``count`` different pairs of a kind; those of a smaller count come first.

    Raises:
        WorkbookError: the kind does not exist, or has fewer different pairs.
    """
    if kind not in MAKERS:
        raise WorkbookError(f"no pairs of the kind {kind!r}; there are {', '.join(MAKERS)}")
    rng = Random(f"out of scope:{kind}:{seed}")
    held = {plain(prompt["prompt"]) for prompt in free_prompts()}
    found: dict[str, dict] = {}
    for tries in range(200 * count):
        if len(found) == count:
            break
        one = MAKERS[kind][tries % len(MAKERS[kind])](rng)
        if one["prompt"].strip() and plain(one["prompt"]) not in held:
            found.setdefault(one["prompt"], one)
    if len(found) < count:
        raise WorkbookError(f"{count} {kind} pairs were asked for, but only {len(found)} differ")
    return list(found.values())


def out_of_scope(dose: dict[str, int], seed: int = 0) -> list[dict]:
    """Return pairs of several kinds; ``dose`` says how many of each."""
    return [row for kind, count in dose.items() for row in made(kind, count, seed)]


def unknown_questions(count: int, seed: int = 0) -> list[dict]:
    """Return questions about names that no training pair has, in the usual wordings."""
    rng = Random(f"unknown questions:{seed}")
    found: dict[str, dict] = {}
    kinds_in_turn = cycle(WHAT)
    while len(found) < count:
        one = unknown(rng, "test", next(kinds_in_turn))
        found.setdefault(one["subject"], {**one, "fits": ["decline"]})
    return list(found.values())
