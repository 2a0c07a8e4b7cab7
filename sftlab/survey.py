"""One pass over the data of a run: numbers for each example, duplicates, damage, personal data.

Only some numbers are kept for each example (about 0.5 kB), never its text or tokens, so that a file
of any size can be looked at.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

import numpy as np

from sftlab.chat import Message
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example

SHOWN = 10
SHINGLE = 3  # words; texts are compared by their sets of word triples
FEW = 10  # words; shorter texts are compared exactly
PERMUTATIONS, BANDS = 128, 32  # MinHash: 32 bands of 4 find pairs with a similarity of 0.5 and more
SIMILAR = 0.8  # Jaccard similarity of the triples from which two texts are near-duplicates
LONG = 200  # characters; an answer that is longer and ends without a sign may be cut


class Facts(NamedTuple):
    """What the checks need to know of one example."""

    place: str
    length: int
    trained: int  # number of tokens with loss
    labels: int  # number of labels that are not masked
    here: int  # of these, equal to the token at their position
    later: int  # equal to the token one position later
    compared_later: int
    turns: int  # number of end-of-turn tokens
    end: str  # the end-of-turn token of the last answer is "trained", "masked" or "missing"
    doubled: bool  # begins with two begin tokens
    digest: bytes


def facts(
    example: Example, place: str = "", ends: Collection[int] = (), begin: int | None = None
) -> Facts:
    """Return the facts of one example.

    Args:
        ends: ids that end a turn.
        begin: id of the begin-of-sequence token.
    """
    ids = np.asarray(example.input_ids, dtype=np.int64)
    labels = np.asarray(example.labels, dtype=np.int64)
    kept = labels != IGNORE_INDEX
    later = kept[:-1]
    is_end = np.isin(ids, list(ends))
    last = int(np.flatnonzero(kept)[-1]) if kept.any() else -1
    # If the newline that a template may write after the end-of-turn token is trained too, the
    # end-of-turn token is the last but one.
    trained = any(labels[at] in ends for at in range(max(last - 1, 0), last + 1)) if ends else False
    end = "trained" if trained else "masked" if is_end[last + 1 :].any() else "missing"
    return Facts(
        place=place,
        length=len(ids),
        trained=int(kept[1:].sum()),
        labels=int(kept.sum()),
        here=int((labels[kept] == ids[kept]).sum()),
        later=int((labels[:-1][later] == ids[1:][later]).sum()),
        compared_later=int(later.sum()),
        turns=int(is_end.sum()),
        end=end,
        doubled=begin is not None and list(ids[:2]) == [begin, begin],
        digest=hashlib.blake2b(ids.tobytes() + labels.tobytes(), digest_size=16).digest(),
    )


# --- Texts ---------------------------------------------------------------------------------------
PUNCTUATION = str.maketrans("", "", ".,;:!?'\"()[]“”‘’…")  # "C++" and "C" stay different


def words(text: str) -> list[str]:
    """Return the words of a text without case, punctuation and differences of Unicode form."""
    return unicodedata.normalize("NFKC", text).casefold().translate(PUNCTUATION).split()


def _digest(found: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(found).encode("utf-8", "replace"), digest_size=16).digest()


class Duplicates:
    """Exact and near-duplicates in a stream of texts.

    Texts are equal if their ``words`` are. Near-duplicates are found with MinHash (datasketch) over
    word triples: the number of equal hashes estimates the Jaccard similarity.
    """

    def __init__(self) -> None:
        self.exact = 0
        self.first: list[str] = []  # places of copies
        self._seen: set[bytes] = set()
        self._waiting: list[set[bytes]] = []
        self._signatures: list[np.ndarray] = []
        self._places: list[str] = []

    def add(self, text: str, place: str) -> None:
        found = words(text)
        if (digest := _digest(found)) in self._seen:
            self.exact += 1
            if len(self.first) < SHOWN:
                self.first.append(place)
            return
        self._seen.add(digest)
        if len(found) < FEW:  # of so few words, each decides
            return
        self._places.append(place)
        self._waiting.append(
            {" ".join(found[i : i + SHINGLE]).encode("utf-8", "replace") for i in range(len(found) - SHINGLE + 1)}
        )  # fmt: skip
        if len(self._waiting) == 512:
            self._sign()

    def _sign(self) -> None:
        if self._waiting:
            from datasketch import MinHash  # imports scipy

            hashes = MinHash.bulk(self._waiting, num_perm=PERMUTATIONS, seed=1, hashfunc=crc32)
            self._signatures.append(np.stack([each.hashvalues for each in hashes]))
            self._waiting = []

    def near(self) -> list[tuple[str, str, float]]:
        """Return (place, earlier place, similarity) of each text that is nearly an earlier one."""
        self._sign()
        if not self._signatures:
            return []
        table = np.concatenate(self._signatures)
        rows = PERMUTATIONS // BANDS
        best: dict[int, tuple[int, float]] = {}
        for band in range(BANDS):
            part = np.ascontiguousarray(table[:, band * rows : (band + 1) * rows])
            keys = part.view(np.dtype((np.void, part.dtype.itemsize * rows))).ravel()
            _, start, bucket = np.unique(keys, return_index=True, return_inverse=True)
            earlier = start[bucket]  # the first text with the same hashes in this band
            for late in np.flatnonzero(earlier != np.arange(len(table))):
                early = int(earlier[late])
                similarity = float((table[early] == table[late]).mean())
                if similarity >= SIMILAR and similarity > best.get(int(late), (0, 0.0))[1]:
                    best[int(late)] = (early, similarity)
        return [
            (self._places[late], self._places[early], similarity)
            for late, (early, similarity) in sorted(best.items())
        ]


# Kind -> a sign that such data contain (looked for first, which is fast), and its pattern.
PERSONAL = {
    "e-mail address": ("@", r"\b[\w.+-]+@(?!example\.)[\w-]+\.[\w.-]*[a-zA-Z]{2,}\b"),
    "telephone number": ("+", r"(?<!\w)\+\d[\d ()/-]{8,16}\d\b"),
    "telephone number (US)": ("(", r"\(\d{3}\) ?\d{3}-\d{4}\b"),
    "card number": ("", r"\b(?:\d[ -]?){15}\d\b"),
    "IBAN": ("", r"\b[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){3,7}(?: ?[A-Z\d]{1,3})?\b"),
    "secret key": ("", r"\b(?:sk-[\w-]{20,}|ghp_\w{30,}|hf_\w{30,}|AKIA[A-Z\d]{16})\b"),
    "private key": ("-----", r"-----BEGIN [A-Z ]*PRIVATE KEY"),
}  # fmt: skip


def personal(text: str) -> list[str]:
    """Return the kinds of personal data and secrets that a text seems to contain."""
    found = [
        kind
        for kind, (sign, pattern) in PERSONAL.items()
        if sign in text and re.search(pattern, text)
    ]
    numbers = re.findall(PERSONAL["card number"][1], text) if "card number" in found else []
    if numbers and not any(_luhn(number) for number in numbers):
        found.remove("card number")
    return found


def _luhn(number: str) -> bool:
    """Return whether the check digit of a card number is right."""
    digits = [int(sign) for sign in reversed(number) if sign.isdigit()]
    return sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0


def damaged(text: str) -> bool:
    """Return whether a text was decoded wrongly: "Ã©" for "é", replacement or control characters."""
    from ftfy.badness import is_bad

    if re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text):
        return True
    return not text.isascii() and ("\ufffd" in text or is_bad(text))


@dataclass
class Places:
    """How many rows something was seen in, and the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(place)


class TextSurvey:
    """What the texts of the conversations show, added up one conversation at a time."""

    def __init__(self, heldout: Sequence[tuple[str, str]] = ()):
        """``heldout``: the (place, prompt) of each question that must not be trained."""
        self.duplicates = Duplicates()
        self.damaged, self.unfinished = Places(), Places()
        self.personal: dict[str, Places] = {}
        self.heldout = {_digest(words(prompt)): prompt for _, prompt in heldout}
        self.leaked: dict[str, str] = {}  # held-out prompt -> place in the training data
        self._prompts = Duplicates()  # held-out first, then those of training
        for place, prompt in heldout:
            self._prompts.add(prompt, f"held-out {place}")
        self._last: str | None = None

    def add(self, messages: Sequence[Message], place: str) -> None:
        """Look at one conversation; the second of one place (one example per answer) is skipped."""
        if place == self._last:
            return
        self._last = place
        text = "\n".join(message["content"] for message in messages)
        self.duplicates.add(text, place)
        if damaged(text):
            self.damaged.add(place)
        for kind in personal(text):
            self.personal.setdefault(kind, Places()).add(place)
        answer = messages[-1]["content"].rstrip()
        if len(answer) > LONG and (answer[-1].isalnum() or answer[-1] == ","):
            self.unfinished.add(place)
        for message in messages:
            if message["role"] == "user" and self.heldout:
                prompt = self.heldout.get(_digest(words(message["content"])))
                if prompt is not None:
                    self.leaked.setdefault(prompt, place)
                else:
                    self._prompts.add(message["content"], place)

    def nearly_leaked(self) -> list[tuple[str, str, float]]:
        """Return (place, held-out place, similarity) of prompts that nearly are held-out ones."""
        return [
            each
            for each in self._prompts.near()
            if each[1].startswith("held-out") and not each[0].startswith("held-out")
        ]


def quantiles(numbers: Sequence[int]) -> dict[str, int]:
    """Return the smallest number, the median, the 95th percentile and the largest."""
    low, middle, high, most = np.quantile(numbers, (0, 0.5, 0.95, 1), method="higher")
    return {"least": int(low), "median": int(middle), "95%": int(high), "most": int(most)}
