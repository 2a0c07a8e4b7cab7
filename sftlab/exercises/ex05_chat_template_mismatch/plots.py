"""Figures and tables of notebook 05. Their words follow the numbers.

Intervals are t intervals over models, one per seed; for the published SmolLM2, which is one model, over
the kinds of questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sftlab.classroom.figures import dots, grid, stacked, tokens
from sftlab.classroom.views import visible
from sftlab.exercises import estimates
from sftlab.exercises.estimates import Estimate, in_100, percent, points  # noqa: F401  for the notebook
from sftlab.exercises.ex05_chat_template_mismatch.experiment import (
    FEW,
    MANY,
    SERVED,
    TRAINED,
    questions,
)
from sftlab.exercises.ex05_chat_template_mismatch.forms import (
    BARE,
    BOUNDARY,
    ELSEWHERE,
    FORMS,
    GROUPS,
    RIGHT,
    SWAPPED,
)
from sftlab.exercises.ex05_chat_template_mismatch.real import EACH, FORMS_ASKED, PUBLISHED
from sftlab.generate import top_tokens
from sftlab.statistics import chosen, clustered_difference

SMALL = 0.05
MARKS = {"right": "01", "stops": "02"}  # the digits of outcomes that have a property
SAME_TOKEN = (ELSEWHERE, "no line break after the turn")  # left out, as in BOUNDARY


def marks(served: Mapping, what: str) -> list[float]:
    """Return 1 or 0 for each question: "right" or "stops"; or its loss, "nll" or "rest"."""
    if what in MARKS:
        return [float(digit in MARKS[what]) for digit in served["outcomes"]]
    return served[what]


def values(
    runs: Sequence[dict], form: str, what: str = "right", trained: str = RIGHT, pairs: int = FEW
) -> list[float]:
    """Return a share or a mean loss of every model that was trained in a form, served in a form."""
    found = chosen(runs, trained=trained, pairs=pairs)
    return [float(np.mean(marks(run[form], what))) for run in found]


def share(runs: Sequence[dict], form: str, what: str = "right", **models) -> Estimate:
    """Return the mean over models of ``values``, a share: its interval ends at 0 and at 1."""
    mean, (low, high) = estimates.mean(values(runs, form, what, **models))
    return mean, (max(low, 0.0), min(high, 1.0))


def cost(runs: Sequence[dict], form: str, what: str = "right", **models) -> Estimate:
    """Return the change against the form of training, model by model."""
    own = models.get("trained", RIGHT)
    return estimates.change(*(values(runs, f, what, **models) for f in (own, form)))


def edits_table(edits: Mapping[str, tuple], length: int, tokenizer) -> pd.DataFrame:
    """Return what differs in each form: edits are (start, ids of the right prompt, ids of the form)."""

    def text(ids: Sequence[int]) -> str:
        shown = " ".join(visible(tokenizer.decode([token])) for token in ids)
        return shown if len(shown) <= 34 else shown[:20] + " … " + shown[-10:]

    group = {form: name for name, forms in GROUPS.items() for form in forms}
    lines = [
        {
            "form": form,
            "destroys": group[form],
            "the right prompt has": text(missing),
            "this form has": text(added),
            "tokens to the answer": length - start - len(missing),
        }
        for form, (start, missing, added) in edits.items()
    ]
    return pd.DataFrame(lines).set_index("form")


def outcomes(live: Mapping[str, Mapping[str, float]], title: str):
    """A bar per form, cut into the four outcomes."""
    words = "; ".join(
        f"{form}: " + ", ".join(f"{name} {part:.0%}" for name, part in parts.items() if part)
        for form, parts in live.items()
    )
    return stacked(live, title, f"{title}. {words}.", figsize=(8.6, 7), percent="x", xlabel="share of the replies")  # fmt: skip


def left_out(names: Sequence[str], scores: Sequence[float]):
    """The share of right replies without one token, for each of the tokens around the question."""
    told = list(zip(names, scores, strict=True))
    words = ", ".join(f"{visible(name)} {score:.0%}" for name, score in told)
    title = "Right replies with one token left out"
    return tokens(names, scores, title, f"{title}, in the order of the prompt: {words}.", marks=("", ""),
                  fmt=".0%", ylim=(0, 1.15), percent="y", ylabel="right replies")  # fmt: skip


def first_tokens(model, tokenizer, prompts: Mapping[str, list[int]], count: int = 3) -> pd.DataFrame:  # fmt: skip
    """Return the likeliest first tokens of the reply to each prompt, with their probabilities."""
    lines = {
        form: [f"{visible(word)} {p:.2f}" for word, p in top_tokens(model, tokenizer, ids, count)]
        for form, ids in prompts.items()
    }
    return pd.DataFrame(lines, index=range(1, count + 1)).T


def over_models(runs: Sequence[dict]):
    """Right answers and stops of the models trained in ChatML, by form."""
    found = {what: {form: share(runs, form, what) for form in FORMS} for what in ("right", "stops")}
    words = "; ".join(
        f"{form}: {found['right'][form][0]:.0%} right, {found['stops'][form][0]:.0%} stop"
        for form in FORMS
    )
    title = f"{len(values(runs, RIGHT))} models trained in ChatML, served in {len(FORMS)} forms"
    return dots(found, title, f"{title}. {words}.", panels=True, fmt=".0%", percent="x",
                xlim=(-0.05, 1.25), xticks=(0, 0.5, 1), figsize=(9.5, 6.6))  # fmt: skip


def agreement(runs: Sequence[dict], what: str = "right"):
    """The share of right replies, or of stops, for every form of training and of serving."""
    found = [[share(runs, form, what, trained=own)[0] for form in TRAINED] for own in TRAINED]
    words = "; ".join(
        f"trained {own}: "
        + ", ".join(f"{form} {x:.0%}" for form, x in zip(TRAINED, line, strict=True))
        for own, line in zip(TRAINED, found, strict=True)
    )
    columns = [form.replace(" after ", "\nafter ") for form in TRAINED]
    title = {"right": "Right replies", "stops": "Replies that stop"}[what]
    return grid(found, TRAINED, columns, f"{title}, mean of {len(values(runs, RIGHT))} models",
                f"{title} by form of training and, after it, of serving. {words}.",
                xlabel="served", ylabel="trained", figsize=(7.6, 3.6))  # fmt: skip


def against_chatml(runs: Sequence[dict], form: str) -> Estimate:
    """Return the change of right answers: trained and served in a form, against ChatML for both."""
    return estimates.change(values(runs, RIGHT), values(runs, form, trained=form))


def mismatch_words(runs: Sequence[dict]) -> str:
    """Say what a mismatch costs models trained in a wrong form, and what the form itself costs at most."""
    others = [form for form in TRAINED if form != RIGHT]
    gains = [0.0 - 100 * cost(runs, RIGHT, trained=form)[0] for form in others]
    itself = max(0.0, *(-100 * against_chatml(runs, form)[1][0] for form in others))
    return (
        f"Served in ChatML, these models lose {min(gains):.0f} to {max(gains):.0f} points. Trained and served in its own "
        f"form, each is at most {itself:.1f} points below models trained and served in ChatML (widest interval; one learning rate)."
    )


def more_pairs(runs: Sequence[dict], live: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return right answers of models of few and many pairs, and of the chat model, scored live."""
    return pd.DataFrame(
        {
            form: {
                f"{FEW} pairs": percent(share(runs, form)),
                f"{MANY} pairs": percent(share(runs, form, pairs=MANY)),
                "the chat model": f"{sum(s for o, s in live[form].items() if 'right' in o):.0%}",
            }
            for form in SERVED
        }
    ).T


def nats(found: Estimate) -> str:
    """Return a change of a loss with its interval."""
    value, (low, high) = found
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def loss_changes(runs: Sequence[dict], forms: Sequence[str]) -> pd.DataFrame:
    """Return what each form changes: the loss of the right answer, whole and in part, and the answers."""
    lines = {
        form: {
            "loss": nats(cost(runs, form, "nll")),
            "without its first token": nats(cost(runs, form, "rest")),
            "right": points(cost(runs, form)),
        }
        for form in forms
    }
    return pd.DataFrame(lines).T


# --- SmolLM2 ---------------------------------------------------------------------------------


def published(real: Sequence[dict], form: str, what: str = "right") -> Estimate:
    """Return the change of the published SmolLM2 against its own template, over kinds of questions."""
    before, after = (marks(chosen(real, trained=PUBLISHED, form=f)[0], what) for f in (RIGHT, form))
    return clustered_difference(before, after, [q["kind"] for q in questions(EACH)])


def published_share(real: Sequence[dict], form: str, what: str) -> Estimate:
    """Return a share of the published SmolLM2, over kinds of questions."""
    found = marks(chosen(real, trained=PUBLISHED, form=form)[0], what)
    kinds = [q["kind"] for q in questions(EACH)]
    return clustered_difference([0.0] * len(found), found, kinds)


def line_breaks(real: Sequence[dict]) -> float:
    """Return the share of the published SmolLM2's replies that begin with the missing line break."""
    return chosen(real, trained=PUBLISHED, form=BOUNDARY)[0]["breaks"]


def smollm2(real: Sequence[dict]) -> pd.DataFrame:
    """Return what each form changes in the published SmolLM2."""
    lines = {
        form: {
            "right": percent(published_share(real, form, "right")),
            "stops": percent(published_share(real, form, "stops")),
            "right, change": points(published(real, form)) if form != RIGHT else "–",
            "loss": nats(published(real, form, "nll")) if form != RIGHT else "–",
            "without its first token": nats(published(real, form, "rest")) if form != RIGHT else "–",
        }
        for form in FORMS_ASKED
    }  # fmt: skip
    return pd.DataFrame(lines).T


def smollm2_values(
    real: Sequence[dict], trained: str, form: str, what: str = "right"
) -> list[float]:
    """Return a share or a mean loss of every SmolLM2 trained in one form, served in one."""
    return [float(np.mean(marks(run[form], what))) for run in chosen(real, trained=trained)]


def smollm2_tuned(real: Sequence[dict]) -> pd.DataFrame:
    """Return right answers and stops of SmolLM2 after LoRA, by form of training and of serving."""
    lines = []
    for trained in dict.fromkeys(run["trained"] for run in real if run["trained"] != PUBLISHED):
        for form in (f for f in FORMS if f in chosen(real, trained=trained)[0]):
            found = {
                what: percent(estimates.mean(smollm2_values(real, trained, form, what)))
                for what in MARKS
            }
            lines.append({"trained": trained, "served": form, **found})
    return pd.DataFrame(lines).set_index("trained")


# --- explanations ----------------------------------------------------------------------------


def first_token_words(runs: Sequence[dict], form: str) -> str:
    """Say how much of the change of the answer's loss lies in its first token."""
    whole, rest = (cost(runs, form, what)[0] for what in ("nll", "rest"))
    return (
        f"The loss of the right answer changes by {whole:+.2f} nats per token, without its first token by "
        f"{rest:+.2f}. The model predicts the answer's first token at the very place that changed."
    )


def stop_and_right_words(runs: Sequence[dict], form: str) -> str:
    """Say that right answers and stops are two things, with the numbers of a form."""
    right, stops = (share(runs, form, what)[0] for what in ("right", "stops"))
    return (
        f"Of these replies {right:.0%} are right and {stops:.0%} stop. A likely reason: the base has read pages of "
        "questions and answers without special tokens, but never an end-of-turn token."
    )


def loss_and_right_words(real: Sequence[dict]) -> str:
    """Say how loss and answers of SmolLM2 change without the last line break."""
    whole, rest = (published(real, BOUNDARY, what)[0] for what in ("nll", "rest"))
    return (
        f"Of its replies {line_breaks(real):.0%} begin with a line break, the missing one. The loss of the right answer, "
        f"which has none, changes by {whole:+.2f} nats per token, without its first token by {rest:+.2f}."
    )


# --- the claims ------------------------------------------------------------------------------


def fewer(found: Estimate) -> str:
    """Return what a change of right answers means: small if its interval is within ±SMALL."""
    if max(map(abs, found[1])) < SMALL:
        return f"within {100 * SMALL:.0f} points"
    return estimates.verdict(found, "more right answers", "fewer right answers")


def loss_words(found: Estimate) -> str:
    """Return what a change of a loss means."""
    return estimates.verdict(found, "higher", "lower")


def quiet(runs: Sequence[dict]) -> tuple[list[str], list[str]]:
    """Return the forms that cost right answers, and those of them whose stop rate stays within ±SMALL."""
    costly = [form for form in FORMS if form != RIGHT and cost(runs, form)[1][1] < -SMALL]
    return costly, [f for f in costly if max(map(abs, cost(runs, f, "stops")[1])) < SMALL]


def quiet_words(runs: Sequence[dict]) -> str:
    """Return how many of the forms that cost right answers leave the stop rate as it is."""
    costly, unseen = quiet(runs)
    if not costly:
        return "No form costs right answers"
    return f"{len(unseen)} of {len(costly)} forms that cost right answers keep the stop rate within {100 * SMALL:.0f} points"


def stop_words(runs: Sequence[dict]) -> str:
    """Return the stop rates of the forms that cost right answers, and of the right form, over the models."""
    costly, _ = quiet(runs)
    rates = [rate for form in costly for rate in values(runs, form, "stops")]
    own = values(runs, RIGHT, "stops")
    told = f"they stop {min(rates):.0%} to {max(rates):.0%} of their replies, " if rates else ""
    return f"{told}the right form {min(own):.0%} to {max(own):.0%}"


def claims(runs: Sequence[dict], real: Sequence[dict]) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals."""

    def said(found: Estimate) -> str:
        return f"{points(found)}, {fewer(found)}"

    others = [form for form in TRAINED if form != RIGHT]
    gains = {form: cost(runs, RIGHT, trained=form) for form in others}
    gains = {form: (-value, (-high, -low)) for form, (value, (low, high)) in gains.items()}
    least = min(gains.values(), key=lambda found: found[1][0])
    same_form, other_form = (
        estimates.change(smollm2_values(real, before, form), smollm2_values(real, SWAPPED, SWAPPED))
        for before, form in ((RIGHT, SWAPPED), (SWAPPED, RIGHT))
    )
    rows = [
        (
            f"Line break before the answer missing: {fewer(cost(runs, BOUNDARY))}",
            points(cost(runs, BOUNDARY)),
            "the same token missing elsewhere: "
            + "; ".join(points(cost(runs, form)) for form in SAME_TOKEN),
            f"SmolLM2: {said(published(real, BOUNDARY))}",
        ),
        (
            f"Embedded model, trained in one of {len(gains)} wrong forms: {fewer(least)} in it than in ChatML",
            "; ".join(f"{form} {points(found)}" for form, found in gains.items()),
            "against ChatML for both: "
            + "; ".join(points(against_chatml(runs, form)) for form in others)
            + f". {mismatch_words(runs)}",
            f"ChatML served as “{BARE}”: {said(cost(runs, BARE))}; SmolLM2 after LoRA with the roles swapped, "
            f"in that form against ChatML: {said(other_form)}",
        ),
        (
            f"Observation: {quiet_words(runs)}",
            stop_words(runs),
            f"“{BARE}”: stops {points(cost(runs, BARE, 'stops'))}; right {points(cost(runs, BARE))}",
            f"SmolLM2: {published_share(real, RIGHT, 'stops')[0]:.0%} stop in its own template, "
            f"{published_share(real, BARE, 'stops')[0]:.0%} without, "
            f"{published_share(real, BARE, 'right')[0]:.0%} of these right",
        ),
        (
            f"SmolLM2, that line break missing: loss {loss_words(published(real, BOUNDARY, 'nll'))}, "
            f"{fewer(published(real, BOUNDARY))}",
            f"{nats(published(real, BOUNDARY, 'nll'))} nats; {points(published(real, BOUNDARY))}",
            f"without the first token {nats(published(real, BOUNDARY, 'rest'))} nats; "
            f"{line_breaks(real):.0%} of its replies begin with the line break",
            f"the embedded models: {nats(cost(runs, BOUNDARY, 'nll'))} nats; {points(cost(runs, BOUNDARY))}",
        ),
        (
            f"SmolLM2, roles swapped: {fewer(published(real, SWAPPED))}",
            points(published(real, SWAPPED)),
            f"in this form, LoRA in this form against LoRA in ChatML: {said(same_form)}",
            f"the embedded models: loss {nats(cost(runs, SWAPPED, 'nll'))} nats, {loss_words(cost(runs, SWAPPED, 'nll'))}",
        ),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["claim", "measured", "control", "where it stops holding"])
