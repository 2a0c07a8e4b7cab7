"""Figures and tables of notebook 01. Their words follow the numbers.

``Outcomes`` and ``Marks`` hold one value per prompt for each (model, rendering). All intervals of the
live part resample whole kinds of prompt, because prompts of one kind tend to succeed or fail together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from sftlab.classroom.figures import bars, dots, tokens
from sftlab.classroom.views import View, table, visible
from sftlab.exercises.estimates import OPEN, Estimate, mean, percent, points, settled, verdict
from sftlab.exercises.ex01_base_vs_instruct.experiment import (
    BARE,
    DOCUMENTS,
    EVERY,
    OUTCOMES,
    PAGE,
    SHOTS,
    TEMPLATE,
    TRAINED,
    about,
    classify_reply,
)
from sftlab.exercises.real_models import questions as real_questions
from sftlab.statistics import chosen, clustered_difference

pd.set_option("display.max_colwidth", None)  # claims are sentences; pandas would cut them
pd.set_option("display.multi_sparse", False)  # each row of a table is read alone
SMOL, GEMMA = "SmolLM2-135M-Instruct", "Gemma 3 270M, base"
COLONS, COMMAS = "zork: … wump:", "zork, … wump,"  # labels that no document of the base contains
ENDS_IN_COLON = "chat template, colon at its end"
Outcomes = Mapping[tuple[str, str], Sequence[str]]
Marks = Mapping[tuple[str, str], Sequence[float]]


# --- estimates and their words ---------------------------------------------------------------


def over_kinds(values: Sequence[float], kinds: Sequence[str]) -> Estimate:
    """Return the mean over the kinds of prompt, each with equal weight, and its 95% interval."""
    return clustered_difference([0.0] * len(values), values, kinds)


def answered(outcomes: Outcomes) -> dict[tuple[str, str], list[float]]:
    """Return 1.0 for every reply that answers and 0.0 for every other."""
    return {cell: [float(o == "answered") for o in found] for cell, found in outcomes.items()}


def continuations(written: Mapping[str, Sequence[str]]) -> View:
    """A table of what a base writes after each prompt: greedy, then three samples."""
    rows = [[prompt, *texts] for prompt, texts in written.items()]
    return table(rows, ["prompt", "greedy", "sample 1", "sample 2", "sample 3"])


# --- model × rendering -----------------------------------------------------------------------


def outcome_table(outcomes: Outcomes, kinds: Sequence[str]) -> pd.DataFrame:
    """Return one row per model and rendering: the share of each outcome, "answered" with interval."""
    lines = []
    for (model, rendering), found in outcomes.items():
        line = {"model": model, "rendering": rendering}
        for outcome in OUTCOMES:
            estimate = over_kinds([float(o == outcome) for o in found], kinds)
            line[outcome] = percent(estimate) if outcome == "answered" else f"{estimate[0]:.0%}"
        lines.append(line)
    return pd.DataFrame(lines).set_index(["model", "rendering"])


def effects(marks: Marks, kinds: Sequence[str]) -> dict[str, Estimate]:
    """Return the effects of the 2×2: of the model, of the template, and their interaction."""
    cells = {key: np.asarray(values, dtype=float) for key, values in marks.items()}
    base, in_template = cells["base", BARE], cells["base", TEMPLATE]
    chat, both = cells["chat", BARE], cells["chat", TEMPLATE]
    found = {
        "chat − base, on bare text": chat - base,
        "chat − base, in the template": both - in_template,
        "template − bare text, base": in_template - base,
        "template − bare text, chat": both - chat,
        "interaction": both - chat - in_template + base,
    }
    return {name: over_kinds(values, kinds) for name, values in found.items()}


def draw_effects(panels: Mapping[str, Mapping[str, Estimate]]):
    """The five effects of the 2×2, one panel per measure."""
    title = "Effects of model and template on the share of replies"
    words = "; ".join(
        f"{panel}: " + ", ".join(f"{name} {points(e)}" for name, e in found.items())
        for panel, found in panels.items()
    )
    return dots(panels, title, f"{title}. {words}.", panels=True, zero=True, percent="x",
                xlabel="change of the share", figsize=(9.4, 3.0))  # fmt: skip


def by_kind(marks: Marks, kinds: Sequence[str], cell: tuple[str, str]) -> pd.Series:
    """Return the share of marks of one cell by kind of prompt, lowest first."""
    values = pd.Series(marks[cell], dtype=float, name=", ".join(cell))
    return values.groupby(list(kinds)).mean().sort_values(kind="stable").round(2)


def rarely(marks: Marks, kinds: Sequence[str], cell: tuple[str, str]) -> str:
    """Name the kinds in which fewer than half of the replies are marked."""
    found = by_kind(marks, kinds, cell)
    return ", ".join(f"“{kind}”" for kind in found[found < 0.5].index) or "none"


# --- tokens and distributions ----------------------------------------------------------------


def first_tokens(found: Mapping[str, Sequence[tuple[str, float]]]):
    """The likeliest first tokens, one panel per case. ``found``: label -> (token, probability) pairs."""
    panels = {label: {visible(token): p for token, p in pairs} for label, pairs in found.items()}
    lead = {label: next(iter(chances.items())) for label, chances in panels.items()}
    told = "; ".join(f"{label}, {token} with {p:.2f}" for label, (token, p) in lead.items())
    alt = f"Bar charts of first-token probabilities. The likeliest: {told}."
    return bars(panels, "The most probable first tokens", alt, panels=True, fmt=lambda p: "<0.01" if p < 0.005 else f"{p:.2f}",
                xlim=(0, 1.25), xticks=[0, 0.5, 1], xlabel="probability", figsize=(2.9 * len(panels), 2.6))  # fmt: skip


def divergence(answer: Sequence[tuple[str, float]]):
    """The KL divergence of two models at each token of an answer, the end-of-turn token last."""
    names, values = zip(*answer, strict=True)
    title = f"The end-of-turn token has {values[-1] / sum(values):.0%} of the divergence"
    told = ", ".join(f"{visible(name)} {value:.2f}" for name, value in answer)
    return tokens(names, values, title, f"Bar chart of KL divergence per answer token. {title}: {told} nats.",
                  fmt=".1f", ylabel="KL (nats)", ylim=(0, 1.12 * max(values)))  # fmt: skip


def kl_table(
    answers: Mapping[str, Sequence[tuple[str, float]]], positions: Mapping[str, float]
) -> pd.DataFrame:
    """Return the divergence of whole answers with and without their end, and of single positions.

    Args:
        answers: prompt -> (token, KL divergence) of each token of the answer, its end last.
        positions: text -> KL divergence of the token after it.
    """
    found = {prompt: [value for _, value in answer] for prompt, answer in answers.items()}
    lines = [
        {
            "text": prompt,
            "all tokens (nats)": f"{sum(values):.2f}",
            "without the end-of-turn token": f"{sum(values[:-1]):.2f}",
            "part of the end-of-turn token": f"{values[-1] / sum(values):.0%}",
        }
        for prompt, values in found.items()
    ]
    lines += [{"text": text, "all tokens (nats)": f"{v:.2f}"} for text, v in positions.items()]  # fmt: skip
    return pd.DataFrame(lines).fillna("–").set_index("text")


def kl(p: torch.Tensor, q: torch.Tensor) -> float:
    """Return KL(p ‖ q) of two distributions, in nats."""
    p, q = p.double(), q.double()
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum().item()


def chances(
    found: Sequence[tuple[str, torch.Tensor]], ids: Sequence[int]
) -> tuple[list[float], list[str]]:
    """Return the probability that the tokens ``ids`` have together, and the kind, of each place."""
    return [p[list(ids)].sum().item() for _, p in found], [kind for kind, _ in found]


def stop_chance(found: Sequence[tuple[str, torch.Tensor]], stops: Mapping[str, int]) -> Estimate:
    """Return the mean probability of any stop over places, with its interval over kinds."""
    return over_kinds(*chances(found, list(stops.values())))


def stops_table(
    at_end: Sequence[tuple[str, torch.Tensor]],
    wrong: Sequence[tuple[str, torch.Tensor]],
    inside: Sequence[tuple[str, torch.Tensor]],
    stops: Mapping[str, int],
) -> pd.DataFrame:
    """Return the probability of each stop after answers and inside them, and its rank after right ones.

    Args:
        at_end, wrong, inside: (kind of prompt, distribution of the next token) of each place.
        stops: name -> token id.
    """
    lines = []
    for name, ids in {**{n: [i] for n, i in stops.items()}, "any of them": list(stops.values())}.items():  # fmt: skip
        ranks = [1 + min((p > p[i]).sum().item() for i in ids) for _, p in at_end]
        lines.append(
            {
                "the next token is": name,
                "probability after the answer": f"{np.mean(chances(at_end, ids)[0]):.1%}",
                "after another question's answer": f"{np.mean(chances(wrong, ids)[0]):.1%}",
                "inside the answer": f"{np.mean(chances(inside, ids)[0]):.1%}",
                "median rank after the answer": f"{np.median(ranks):,.0f}",
                "ranks first there": f"{np.mean([rank == 1 for rank in ranks]):.0%}",
            }
        )
    return pd.DataFrame(lines).set_index("the next token is")


def stop_chances(
    places: Mapping[str, Sequence[tuple[str, torch.Tensor]]], stops: Mapping[str, int]
) -> dict[str, Estimate]:
    """Return the probability of any stop in each group of places, and "after" minus each other group.

    Args:
        places: name of the group -> places; "after" holds the ends of right answers.
    """
    found = {name: stop_chance(group, stops) for name, group in places.items()}
    means = {}
    for name, group in places.items():
        values, kinds = chances(group, list(stops.values()))
        means[name] = pd.Series(values).groupby(kinds).mean()
    for name in places.keys() - {"after"}:
        difference = means["after"] - means[name]
        found[f"after − {name}"] = over_kinds(list(difference), list(difference.index))
    return found


def nats(estimate: Estimate) -> str:
    """Return a divergence with its interval as text."""
    mean, (low, high) = estimate
    return f"{mean:.2f} nats ({low:.2f} to {high:.2f})"


# --- recorded runs ---------------------------------------------------------------------------


def measure(run: dict, name: str, tested: str) -> float:
    """Return a measurement of one recorded run: a share of replies, or a mean probability."""
    if name == "end at once":
        return run[f"end at once on {tested}"]
    if name == "exactly right":
        return run[f"exact on {tested}"].count("1") / len(run[f"exact on {tested}"])
    letters = run[f"outcomes on {tested}"]
    return letters.count(name[0]) / len(letters)


AT_ONCE = "end-of-turn token at once"
MEASURES = ("answered", "exactly right", "stopped", "end at once")


def trained_table(runs: Sequence[dict]) -> pd.DataFrame:
    """Return one row per arm and tested rendering: means over the seeds with 95% t intervals."""
    lines = []
    for trained in TRAINED:
        for tested in (BARE, TEMPLATE):
            line = {"trained on": trained, "tested on": tested}
            for name in MEASURES:
                found = [measure(run, name, tested) for run in chosen(runs, trained=trained)]
                line[AT_ONCE if name == "end at once" else name] = percent(mean(found))
            lines.append(line)
    return pd.DataFrame(lines).set_index(["trained on", "tested on"])


def change(
    runs: Sequence[dict], name: str, first: tuple[str, str], second: tuple[str, str]
) -> Estimate:
    """Return second − first over the seeds; each is (what was trained, what was tested)."""
    sides = [
        [measure(run, name, tested) for run in chosen(runs, trained=trained)]
        for trained, tested in (first, second)
    ]
    return mean(np.subtract(sides[1], sides[0]).tolist())


def real_outcomes(smol: Sequence[dict], gemma: dict) -> tuple[Outcomes, list[str]]:
    """Return the outcomes of the recorded replies of two real models, and the kinds of the prompts.

    Gemma's record has all its replies in the template, but none of those on bare text.
    """
    replies = {(SMOL, run["rendering"]): run["replies"] for run in smol}
    replies[GEMMA, TEMPLATE] = gemma["answers"]
    asked = real_questions()
    outcomes = {
        cell: [classify_reply(reply, about(q)) for reply, q in zip(texts, asked, strict=True)]
        for cell, texts in replies.items()
    }
    return outcomes, [question["kind"] for question in asked]


def real_table(smol: Sequence[dict], gemma: dict) -> pd.DataFrame:
    """Return one row per real model and rendering: the share of each outcome."""
    found = outcome_table(*real_outcomes(smol, gemma))
    for run in smol:
        found.loc[(SMOL, run["rendering"]), AT_ONCE] = f"{run['end at once']:.0%}"
    counts = gemma["bare"]
    for name, count in counts.items():
        found.loc[(GEMMA, BARE), name] = f"{count / sum(counts.values()):.0%}"
    return found.fillna("–")


# --- what was found --------------------------------------------------------------------------


def more(estimate: Estimate, yes: str, no: str, open: str) -> str:
    """Return the statement that an estimated change supports."""
    return verdict(estimate, yes, no, f"{open}: {OPEN}")


def found(
    outcomes: Outcomes,
    exact: Marks,
    kinds: Sequence[str],
    ends: Mapping[str, Estimate],
    recorded: Sequence[dict],
    smol: Sequence[dict],
    gemma: dict,
) -> pd.DataFrame:
    """Return the claims of the lesson with their numbers; the words follow the intervals.

    Args:
        exact: whether each reply is the right answer, nothing else, and ends.
        ends: what ``stop_chances`` returns for "after", "wrong", "inside" and "bare"; the chat model's
            probability of the end-of-turn token, "chat"; the KL divergence after an answer with
            "each stop apart" and with "all stops as one".
    """
    lines = [
        _weights_or_template(outcomes, kinds, recorded, smol, gemma),
        _rendering_of_training(exact, kinds, recorded),
        _cue(outcomes, kinds),
        _stop(ends),
        _loss_on_the_prompt(recorded),
    ]
    return pd.DataFrame(lines, columns=["claim", "measured", "control", "where it stops holding"])


def _weights_or_template(outcomes, kinds, recorded, smol, gemma) -> tuple[str, ...]:
    tried = answered(outcomes)
    found = effects(tried, kinds)
    colon = np.subtract(tried["base", ENDS_IN_COLON], tried["base", BARE]).tolist()
    real, real_kinds = real_outcomes(smol, gemma)
    marks = answered(real)
    without = np.subtract(marks[SMOL, BARE], marks[SMOL, TEMPLATE]).tolist()
    anew = {
        trained: mean([measure(r, "answered", BARE) for r in chosen(recorded, trained=trained)])
        for trained in (TEMPLATE, DOCUMENTS)
    }
    documents = change(recorded, "answered", (TEMPLATE, BARE), (DOCUMENTS, BARE))
    return (
        more(found["interaction"], "This model answers more than the effects of weights and chat template add up to",
             "This model answers less than the effects of weights and chat template add up to", "Interaction of weights and chat template"),
        f"interaction {points(found['interaction'])}; weights alone {points(found['chat − base, on bare text'])}, "
        f"template alone {points(found['template − bare text, base'])}",
        f"bare prompts answered by bases tuned anew, on pairs in the template {percent(anew[TEMPLATE])}, with documents as bare "
        f"text beside them, as this model was, {percent(anew[DOCUMENTS])}: {points(documents)}",
        f"a colon at the end of the template: base {points(over_kinds(colon, kinds))}. "
        f"SmolLM2-Instruct on bare text instead of its template: {points(over_kinds(without, real_kinds))}",
    )  # fmt: skip


def _rendering_of_training(exact, kinds, recorded) -> tuple[str, ...]:
    here = effects(exact, kinds)
    gain = {
        t: change(recorded, "exactly right", (t, BARE), (t, TEMPLATE)) for t in (TEMPLATE, BARE)
    }
    crossed = gain[TEMPLATE][0] > 0 > gain[BARE][0]
    if not all(settled(estimate) for estimate in gain.values()):
        claim = "Rendering of training and exact answers: not settled here"
    elif crossed:
        claim = "Answers are exact more often in the rendering of training"
    else:
        claim = (
            "The rendering of training does not decide in which one answers are exact more often"
        )
    return (
        claim,
        f"exactly right, template instead of bare text: {points(gain[TEMPLATE])} if trained in the template; "
        f"the chat model of this notebook {points(here['template − bare text, chat'])}",
        f"the same pairs, seeds and steps, trained on bare text: {points(gain[BARE])}",
        f"the base, trained on neither: {points(here['template − bare text, base'])}. Two renderings, one learning rate",
    )  # fmt: skip


def _cue(outcomes, kinds) -> tuple[str, ...]:
    marks = answered(outcomes)

    def against(rendering: str, than: str = BARE) -> Estimate:
        difference = np.subtract(marks["base", rendering], marks["base", than])
        return over_kinds(difference.tolist(), kinds)

    return (
        more(against(COLONS, COMMAS), "One pair of invented labels makes the base answer more often with colons than with commas",
             "Invented labels make the base answer more often with commas", "Colons against commas after invented labels"),
        f"{points(against(COLONS, COMMAS))}; instead of bare text: “Q: … A:” {points(against(PAGE))}, invented labels {points(against(COLONS))}",
        f"the same invented labels with commas instead of bare text: {points(against(COMMAS))}; a colon as the last character of the chat "
        f"template, against the template: {points(against(ENDS_IN_COLON, TEMPLATE))}",
        f"one pair of labels, others were not recorded; two examples before “Q:” change {points(against(SHOTS, PAGE))}; known labels instead of invented ones "
        f"{points(against(PAGE, COLONS))}. Answered in fewer than half of the "
        f"“Q: … A:” prompts: {rarely(marks, kinds, ('base', PAGE))}",
    )  # fmt: skip


def _stop(ends: Mapping[str, Estimate]) -> tuple[str, ...]:
    much = "stops already" if ends["after"][1][0] > 0.5 else "stops more often than inside it"
    claim = more(ends["after − inside"], f"After a one-line answer the base {much}",
                 "After a one-line answer the base stops less often than inside it", "Stopping after an answer")  # fmt: skip
    if settled(ends["after − inside"]) and ends["after − inside"][0] > 0:
        claim += verdict(ends["after − wrong"], "", ", more often after an answer to another question", ", right or wrong")  # fmt: skip
    if settled(ends["after − inside"]) and ends["chat"][1][0] > 0.5:
        claim += "; tuning gives the stop another token"
    return (
        claim,
        f"any stop: {percent(ends['after'])}; end-of-turn token of the chat model: {percent(ends['chat'])}; KL "
        f"{nats(ends['each stop apart'])}, {nats(ends['all stops as one'])} with the stops as one",
        f"inside the answer: {percent(ends['inside'])}. After an answer to another question: {percent(ends['wrong'])}, "
        f"right minus wrong {points(ends['after − wrong'])}",
        f"after an answer to bare text: {percent(ends['bare'])}",
    )


def _loss_on_the_prompt(recorded) -> tuple[str, ...]:
    exact = {t: change(recorded, "exactly right", (TEMPLATE, t), (EVERY, t)) for t in (BARE, TEMPLATE)}  # fmt: skip
    at_once = change(recorded, "end at once", (TEMPLATE, BARE), (EVERY, BARE))
    claim = more(exact[BARE], "Loss on the prompt makes replies to bare text exact more often",
                 "Loss on the prompt makes replies to bare text exact less often", "Loss on the prompt and bare text")  # fmt: skip
    claim += more(at_once, "; the turn ends at once more often", "; the turn ends at once less often", "; ending at once")  # fmt: skip
    return (
        claim,
        f"exactly right {points(exact[BARE])}; probability of ending at once {points(at_once)}",
        f"the same models in the template: exactly right {points(exact[TEMPLATE])}",
        f"{len(chosen(recorded, trained=EVERY))} seeds, one learning rate. Which token of the prompt causes it was not tested",
    )
