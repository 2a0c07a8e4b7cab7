"""Answers to the checks of notebook 22, as students write them."""

import re

from sftlab.exercises.ex22_data_quality_ablation.filtering import complaints
from sftlab.exercises.ex22_data_quality_ablation.filtering import filter_pairs as right_filter
from sftlab.scoring import format_compliance, repeats


def parts(text, split=r"[.!?\n]+", strip_numbers=True):
    text = text.lower()
    if strip_numbers:
        text = re.sub(r"(?m)^\d+[.)]", "", text)
    return [p.strip() for p in re.split(split, text) if len(p.strip()) > 8]


def twice(found):
    return len(found) != len(set(found))


def circles(text, times=3, most=12, least=1):
    words = re.findall(r"\w+", text.lower())
    for n in range(least, most + 1):
        for i in range(len(words)):
            chunks = [tuple(words[i + k * n : i + (k + 1) * n]) for k in range(times)]
            if len(chunks[-1]) == n and len(set(chunks)) == 1:
                return True
    return False


def any_word_twice(text):
    words = text.lower().split()
    words = [w.strip(".,!?") for w in words]
    return len(words) > len(set(words))


def short_parts_too(text):
    text = re.sub(r"(?m)^\d+[.)]", "", text.lower())
    found = [p.strip() for p in re.split(r"[.!?\n]+", text) if p.strip()]
    return twice(found) or circles(text)


def case_matters(text):
    text = re.sub(r"(?m)^\d+[.)]", "", text)
    found = [p.strip() for p in re.split(r"[.!?\n]+", text) if len(p.strip()) > 8]
    return twice(found) or circles(text)


def neighbours(text):
    found = parts(text)
    return any(found[i] == found[i + 1] for i in range(len(found) - 1)) or circles(text)


def with_counts(text):
    """Right, with dictionaries."""
    seen = {}
    for part in parts(text):
        seen[part] = seen.get(part, 0) + 1
    return any(n > 1 for n in seen.values()) or circles(text)


def with_a_pattern(text):
    """Right, with one regular expression for the phrases."""
    words = " ".join(re.findall(r"\w+", text.lower())) + " "
    return twice(parts(text)) or bool(re.search(r"\b((?:\w+ ){1,12})\1\1", words))


def keep(test):
    """A filter that keeps a row if the test says so; talks stay."""
    return lambda pairs: [r for r in pairs if "messages" in r or test(r["prompt"], r["response"])]


def sentence_like(prompt, response):
    lines = response.split("\n")
    return all(re.match(r"(\d+\. )?[A-Z0-9].*[.!]$", line) for line in lines)


def echoes(prompt, response):
    return response.lower().startswith(prompt.lower().rstrip("?.:"))


def by_own_rules(prompt, response):
    return (
        sentence_like(prompt, response)
        and not echoes(prompt, response)
        and "sorry" not in response
        and "language model" not in response
        and "rather not" not in response
        and not re.search("(As I said|In other words|once more)", response)
    )


def with_loop(pairs):
    """Right: a loop, rules of its own, the package's format."""
    found = []
    for row in pairs:
        if "messages" not in row:
            prompt, response = row["prompt"], row["response"]
            one_line = "\n" not in response and not format_compliance(response)
            if one_line or response.startswith("- ") or repeats(response):
                continue
            if echoes(prompt, response) or "cannot" in response or "rather not" in response:
                continue
        found.append(row)
    return found


def crashes_on_talks(pairs):
    return [r for r in pairs if not complaints(r["prompt"], r["response"])]


def talks_out(pairs):
    return [
        r for r in pairs if "response" in r and not complaints(r["prompt"], r["response"])
    ]  # fmt: skip


def rewrites(pairs):
    return [
        {**r, "response": r["response"].capitalize()} if "response" in r else r for r in pairs
    ]  # fmt: skip


def doubled(pairs):
    kept = right_filter(pairs)
    return kept + kept[:1]


def good_first(pairs):
    return sorted(right_filter(pairs), key=lambda r: str(r.get("prompt")))


WRONG = {
    "22.repeats": {
        "the wrong way round": (lambda t: not repeats(t), "wrong way round"),
        "always": (lambda t: True, "True for every text"),
        "never": (lambda t: False, "False for every text"),
        "any word twice": (any_word_twice, "A single word may well come twice"),
        "sentences alone": (lambda t: twice(parts(t)), "Phrases are left out"),
        "phrases alone": (circles, "Sentences are left out"),
        "neighbours": (neighbours, "Only neighbours are compared"),
        "short parts": (short_parts_too, "Short parts count here"),
        "case matters": (case_matters, "Upper and lower case"),
        "full stops alone": (
            lambda t: twice(parts(t, r"[.!?]+")) or circles(t),
            "Only full stops end a part",
        ),
        "lines alone": (lambda t: twice(parts(t, r"\n")) or circles(t), "Only lines are compared"),
        "numbers of the list": (
            lambda t: twice(parts(t, strip_numbers=False)) or circles(t),
            "numbers of a list are compared too",
        ),
        "twice is enough": (
            lambda t: twice(parts(t)) or circles(t, times=2),
            "twice in a row is enough",
        ),
        "single words": (lambda t: twice(parts(t)) or circles(t, most=1), "Only single words"),
        "no single words": (
            lambda t: twice(parts(t)) or circles(t, least=2),
            "Phrases of one word are left out",
        ),
    },
    "22.filter_pairs": {
        "keeps everything": (lambda pairs: list(pairs), "Nothing is thrown out"),
        "throws everything out": (lambda pairs: [], "Everything is thrown out"),
        "returns the bad ones": (
            lambda pairs: [r for r in pairs if r not in right_filter(pairs)],
            "the pairs that you object to",
        ),
        "verdicts": (lambda pairs: [bool(r) for r in pairs], "verdicts, True or False"),
        "places": (lambda pairs: list(range(len(pairs))), "places in the list"),
        "responses": (lambda pairs: [r["response"] for r in pairs], "with all their keys"),
        "a number": (lambda pairs: 0.9, "Return a list of pairs"),
        "rewrites": (rewrites, "does not rewrite"),
        "twice": (doubled, "Some pairs come twice"),
        "another order": (good_first, "another order"),
        "no lists": (keep(lambda p, r: "\n" not in r), "most of them lists"),
        "no short ones": (keep(lambda p, r: len(r.split()) > 3), "most of them very short"),
        "no long ones": (keep(lambda p, r: len(r.split()) <= 9 or "\n" in r), "most of them long"),
        "refusals and the honest": (
            keep(lambda p, r: not re.search(r"sorry|cannot|not ", r)),
            "most of them answers that say that they do not know",
        ),
        "refusals alone": (
            keep(lambda p, r: not re.search(r"sorry|cannot|rather not", r)),
            "Still in: echo, ramble, off topic, truncated",
        ),
        "form alone": (keep(sentence_like), "Still in: echo, ramble, off topic, refusal"),
        "reads the label": (
            lambda pairs: [r for r in pairs if not r["defect"]],
            "KeyError: 'defect'",
        ),
        "fails at a talk": (crashes_on_talks, "KeyError: 'prompt'"),
        "throws talks out": (talks_out, "talk of several turns is thrown out"),
    },
}
RIGHT = {
    "22.repeats": {"with counts": with_counts, "with a pattern": with_a_pattern},
    "22.filter_pairs": {"own rules": keep(by_own_rules), "a loop": with_loop},
}
