"""The checks of notebook 26: groups of alike questions, the template's gate, and the decision."""

from __future__ import annotations

from sftlab.classroom.checking import UNCHANGED, Case, Exercise, mistake
from sftlab.exercises.ex26_served_model.gates import groups, ready, template_mismatch
from sftlab.loss import IGNORE_INDEX
from sftlab.statistics import paired_difference

GROUPS, MISMATCH, READY = "26.groups", "26.template_mismatch", "26.ready"


# --- 26a: groups of alike questions --------------------------------------------------------------
def near(one: str, other: str) -> bool:
    """Numbers in words that differ by at most 2: enough for small cases."""
    return abs(int(one) - int(other)) <= 2


def same_letter(one: str, other: str) -> bool:
    return one[0] == other[0]


def never(one: str, other: str) -> bool:
    return False


@mistake(
    GROUPS,
    "Only the first question of a group is compared with the new one. A question can also be alike a later one of the group, and then belongs to it.",
)
def _with_the_first(questions, alike):
    found = []
    for number, question in enumerate(questions):
        first = [k for k in range(number) if found[k] == k and alike(questions[k], question)]
        found.append(first[0] if first else number)
    return found


@mistake(
    GROUPS,
    "Two groups stay apart although a later question is alike one of each. It joins them: all three are one group.",
)
def _never_joined(questions, alike):
    found = []
    for number, question in enumerate(questions):
        first = [found[k] for k in range(number) if alike(questions[k], question)]
        found.append(min(first, default=number))
    return found


@mistake(
    GROUPS,
    "Each question is compared with the one before it only. Alike questions can be far apart in a file.",
)
def _with_the_one_before(questions, alike):
    found = []
    for number, question in enumerate(questions):
        joined = number and alike(questions[number - 1], question)
        found.append(found[number - 1] if joined else number)
    return found


@mistake(
    GROUPS,
    "The groups are numbered 0, 1, 2, … in turn. The number of a group is the index of its first question.",
)
def _in_turn(questions, alike):
    found = groups(questions, alike)
    order = sorted(set(found))
    return [order.index(group) for group in found]


@mistake(GROUPS, "A group has the index of its last question. It should be that of its first one.")
def _last(questions, alike):
    found = groups(questions, alike)
    return [max(k for k, other in enumerate(found) if other == group) for group in found]


@mistake(
    GROUPS,
    "The groups are right, and their numbers are not: of two groups that are joined, the smaller number stays, that of the first question.",
)
def _later_number(questions, alike):
    found = list(range(len(questions)))
    for i, one in enumerate(questions):
        for j, other in enumerate(questions[:i]):
            if alike(one, other):
                old, new = found[i], found[j]
                found = [new if group == old else group for group in found]
    return found


def _draw_groups(rng, *_):
    return [str(rng.randint(0, 30)) for _ in range(rng.randint(3, 12))], near


# --- 26b: the template's gate --------------------------------------------------------------------
M = IGNORE_INDEX


@mistake(
    MISMATCH,
    "The prompt is taken to end where the first answer begins. The model is asked for the last one, after all that came before it.",
)
def _first_answer(input_ids, labels, served):
    end = next(n for n, label in enumerate(labels) if label != M)
    return template_mismatch(input_ids[: end + 1], labels[: end + 1], served)


@mistake(
    MISMATCH,
    "Only as many tokens are compared as both have. A prompt that ends too early or goes on too long is another prompt.",
)
def _shorter(input_ids, labels, served):
    end = _last_start(labels)
    pairs = zip(input_ids[:end], served, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), None)


@mistake(
    MISMATCH,
    "None is returned although one list ends before the other. That is another prompt: return the length of the shorter one.",
)
def _none_for_shorter(input_ids, labels, served):
    return next((n for n, (a, b) in enumerate(zip(input_ids, served, strict=False)) if a != b), None)  # fmt: skip


@mistake(
    MISMATCH,
    "All untrained tokens are taken for the prompt. An earlier answer belongs to the prompt of the last one, and a token behind the answer does not.",
)
def _all_untrained(input_ids, labels, served):
    prompt = [token for token, label in zip(input_ids, labels, strict=True) if label == M]
    return template_mismatch([*prompt, 0], [M] * len(prompt) + [0], served)


@mistake(
    MISMATCH,
    "The served prompt is compared with the whole example. Its answer is not part of the prompt: the prompt ends where the last answer begins.",
)
def _whole(input_ids, labels, served):
    return template_mismatch([*input_ids, 0], [M] * len(labels) + [0], served)


@mistake(
    MISMATCH,
    "Masked tokens at the end of an example, after the last answer, are counted as its prompt. Look for the last *trained* token first.",
)
def _after_the_answer(input_ids, labels, served):
    end = len(labels)
    while labels[end - 1] != M:
        end -= 1
    return template_mismatch([*input_ids[:end], 0], [M] * end + [0], served)


@mistake(
    MISMATCH,
    "It returns True or False, or 0 for equal prompts. Equal ones give None, because 0 is a position: the first.",
)
def _zero(input_ids, labels, served):
    return template_mismatch(input_ids, labels, served) or 0


@mistake(
    MISMATCH, "The position is counted from 1. Token ids are a list, and its first place is 0."
)
def _from_one(input_ids, labels, served):
    found = template_mismatch(input_ids, labels, served)
    return None if found is None else found + 1


def _last_start(labels):
    end = len(labels)
    while labels[end - 1] == M:
        end -= 1
    while labels[end - 1] != M:
        end -= 1
    return end


def _draw_mismatch(rng, *_):
    ids = [rng.randint(1, 9) for _ in range(rng.randint(6, 14))]
    begin = rng.randint(2, len(ids) - 2)
    end = rng.randint(begin + 1, len(ids))
    labels = [t if begin <= n < end else M for n, t in enumerate(ids)]
    served = ids[:begin]
    kind = rng.randrange(4)
    if kind == 0:
        served[rng.randrange(begin)] = 11
    elif kind == 1:
        served = served[: rng.randrange(1, begin)]
    elif kind == 2:
        served = [*served, 12]
    return ids, labels, served


# --- 26c: the decision ---------------------------------------------------------------------------
def report(**changes):
    """A report of which every gate is open, with some changes."""
    found = {
        "broken": 0,
        "leaked": 0,
        "base": [0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
        "tuned": [1, 1, 1, 0, 1, 1, 1, 1, 0, 1],
        "mismatches": [None, None],
        "trained": [[5, 6], [7]],
        "served": [[5, 6], [7]],
    }
    return found | changes


@mistake(
    READY,
    "A mismatch at position 0 does not stop the model: 0 counts as false. A prompt matches if the entry is None.",
)
def _zero_is_no_place(report):
    found = ready(report | {"mismatches": [p or None for p in report["mismatches"]]})
    return found


@mistake(
    READY,
    "A better score on average opens the gate. Its interval may hold zero; the gate asks for its lower end to be above zero.",
)
def _mean_alone(report):
    better = sum(report["tuned"]) > sum(report["base"])
    found = ready(report | {"base": [0, 0], "tuned": [1, 1]})
    return sorted([*found, *([] if better else ["score"])], key=ORDER.index)


@mistake(
    READY,
    "The difference is taken the wrong way round. `paired_difference(before, after)` is after − before: what training gained.",
)
def _wrong_way(report):
    return ready(report | {"base": report["tuned"], "tuned": report["base"]})


@mistake(
    READY,
    "It names the first gate that stops the model. All that do are named, so that they can be repaired together.",
)
def _first_alone(report):
    return ready(report)[:1]


@mistake(READY, "It names the gates that are open. Wanted are those that stop the model.")
def _open_ones(report):
    stops = ready(report)
    return [gate for gate in ORDER if gate not in stops]


@mistake(
    READY,
    "One answer that is the same opens the gate of the answers. It stops the model if *any* answer differs.",
)
def _one_is_enough(report):
    same = any(list(a) == list(b) for a, b in zip(report["trained"], report["served"], strict=True))
    return ready(report | {"served": report["trained"] if same else report["served"]})


@mistake(
    READY,
    "The answers are compared as a whole, whatever their places. Each answer belongs to a question: compare pair by pair.",
)
def _wherever_they_stand(report):
    same = sorted(map(list, report["trained"])) == sorted(map(list, report["served"]))
    return ready(report | {"served": report["trained"] if same else report["served"]})


@mistake(
    READY,
    "A served answer that was cut off counts as the same. Compare all ids of both.",
)
def _cut_off(report):
    pairs = zip(report["trained"], report["served"], strict=True)
    same = all(list(a)[: len(b)] == list(b) for a, b in pairs)
    return ready(report | {"served": report["trained"] if same else report["served"]})


ORDER = ["data", "leak", "score", "template", "answers"]
HALF = {"base": [0, 1, 0, 1, 0, 1], "tuned": [1, 1, 0, 1, 0, 1]}  # better, not settled


def _draw_ready(rng, *_):
    many = [rng.randint(0, 1) for _ in range(12)]
    tuned = [max(b, rng.randint(0, 1)) for b in many] if rng.random() < 0.6 else many[::-1]
    places = [rng.choice([None, None, None, 0, 4]) for _ in range(2)]
    served = [[5, 6], [7]] if rng.random() < 0.5 else [[5, 6], [8]]
    return (
        report(broken=rng.choice([0, 0, 2]), leaked=rng.choice([0, 0, 1]), base=many, tuned=tuned,
               mismatches=places, served=served),
    )  # fmt: skip


EXERCISES = {
    GROUPS: Exercise(
        id=GROUPS,
        title="Groups of questions that are alike",
        reference=groups,
        cases=[
            Case('groups(["ant", "bee", "asp"], same first letter)', lambda: (["ant", "bee", "asp"], same_letter), groups, rule="first"),
            Case('groups(["1", "9", "3"], at most 2 apart)', lambda: (["1", "9", "3"], near), groups, rule="first"),
            Case('groups(["1", "3", "5"], at most 2 apart): 5 is alike 3, not 1', lambda: (["1", "3", "5"], near), groups, rule="through"),
            Case('groups(["1", "5", "3"], at most 2 apart): 3 is alike both', lambda: (["1", "5", "3"], near), groups, rule="through"),
            Case('groups(["20", "5", "1", "9", "3", "7"], at most 2 apart)', lambda: (["20", "5", "1", "9", "3", "7"], near), groups, rule="through"),
            Case("groups of questions of which no two are alike", lambda: (["4", "4", "7"], never), groups, rule="first"),
            Case("groups([], …)", lambda: ([], near), groups, rule="empty"),
        ],
        asks="Return for each question the number of its group, a list of whole numbers.\nquestions: list of texts. alike: function; alike(a, b) is alike(b, a), True or False.",
        rules={
            "first": "A group's number is the index of its first question, counted from 0.",
            "through": "Questions that are alike are in one group, and so are those that others connect: if a is alike b, and b alike c, all three are, in any order of the list.",
            "empty": "For no questions the list is empty.",
            UNCHANGED: "questions stays as it is.",
        },
        draw=_draw_groups,
        hints=(
            "Begin with each question in a group of its own. Look at all pairs, and join the groups of alike ones.",
            ("through", "What has to happen if a new question is alike one of each of two groups?"),
            "Joining two groups changes the number of *every* question in the one with the larger number.",
        ),
        path="Notice first that “alike” does not carry over by itself: a and c can differ too much although both are alike b. So comparing with one member of a group is not enough. "
        "Start with n groups of one, go through all pairs, and join. The usual wrong turn is to give a new question to the first group that fits, and to leave two groups apart that it connects.",
        why="Relabeling all members keeps the rule simple to see. It takes time in the square of the number of rows, which is fine for some hundreds; preflight finds near-copies among millions with MinHash.",
    ),
    MISMATCH: Exercise(
        id=MISMATCH,
        title="Where a served prompt leaves the trained one",
        reference=template_mismatch,
        cases=[
            Case("served as trained", lambda: ([1, 7, 8, 2, 5, 9], [M, M, M, M, 5, 9], [1, 7, 8, 2]), template_mismatch, rule="none"),
            Case("another token at position 2", lambda: ([1, 7, 8, 2, 5, 9], [M, M, M, M, 5, 9], [1, 7, 4, 2]), template_mismatch, rule="first"),
            Case("another first token", lambda: ([1, 7, 8, 2, 5, 9], [M, M, M, M, 5, 9], [3, 7, 8, 2]), template_mismatch, rule="first"),
            Case("the last token of the prompt is missing", lambda: ([1, 7, 8, 2, 5, 9], [M, M, M, M, 5, 9], [1, 7, 8]), template_mismatch, rule="short"),
            Case("the prompt goes on", lambda: ([1, 7, 8, 2, 5, 9], [M, M, M, M, 5, 9], [1, 7, 8, 2, 5]), template_mismatch, rule="short"),
            Case("two answers, asked for the last", lambda: ([1, 4, 2, 6, 1, 8, 2, 5], [M, M, M, 6, M, M, M, 5], [1, 4, 2, 6, 1, 8, 2]), template_mismatch, rule="last"),
            Case("two answers, asked for the first", lambda: ([1, 4, 2, 6, 1, 8, 2, 5], [M, M, M, 6, M, M, M, 5], [1, 4, 2]), template_mismatch, rule="last"),
            Case("an answer of one token, and a token after it", lambda: ([1, 4, 2, 6, 7, 1, 8, 2, 5, 3], [M, M, M, 6, 7, M, M, M, 5, M], [1, 4, 2, 6, 7, 1, 8, 2]), template_mismatch, rule="last"),
            Case("a token after the answer that is not trained", lambda: ([1, 7, 2, 5, 9, 3], [M, M, M, 5, 9, M], [1, 7, 2]), template_mismatch, rule="last"),
        ],
        asks="Return where a server's prompt leaves what was trained, or None if it does not.\ninput_ids, labels: lists, of a training example; a label of -100 is not trained.\nserved: list of the token ids that the server gives to the model.",
        rules={
            "last": "Trained is all before the last answer, the last trained run; tokens may follow it.",
            "none": "If served is exactly that, return None.",
            "first": "Otherwise return the first position, from 0, at which the two differ.",
            "short": "If one of them begins the other, it is the length of the shorter one.",
            UNCHANGED: "The three lists stay as they are.",
        },
        draw=_draw_mismatch,
        hints=(
            "Walk from the end: first over what is not trained, then over what is.",
            ("short", "`zip` stops at the shorter list, and does not say that one goes on."),
            "None and 0 are different results.",
        ),
        path="Find the end of the prompt first, walking backwards through the labels. Then compare two lists of ids. The usual wrong turn is to compare only the positions that both have: a missing line break at the end then goes unseen.",
        why="Ids are compared, not texts: two texts that look alike can be tokenized apart. A position says more than True or False: token 0 is a begin token, the last one the header of the answer.",
    ),
    READY: Exercise(
        id=READY,
        title="May this model be served?",
        reference=ready,
        cases=[
            Case("everything in order", lambda: (report(),), ready, rule="all"),
            Case("a broken row and a leaked question", lambda: (report(broken=2, leaked=1),), ready, rule="all"),
            Case("better on average, by one of six questions", lambda: (report(**HALF),), ready, rule="score"),
            Case("worse than the base", lambda: (report(base=report()["tuned"], tuned=report()["base"]),), ready, rule="score"),
            Case("one prompt differs at position 0", lambda: (report(mismatches=[None, 0]),), ready, rule="template"),
            Case("prompts differ at positions 3 and 9", lambda: (report(mismatches=[3, 9]),), ready, rule="template"),
            Case("one answer of two differs", lambda: (report(served=[[5, 6], [8]]),), ready, rule="answers"),
            Case("a served answer is cut off", lambda: (report(served=[[5], [7]]),), ready, rule="answers"),
            Case("the same answers at other places", lambda: (report(served=[[7], [5, 6]]),), ready, rule="answers"),
            Case("the same tokens in another order", lambda: (report(served=[[6, 5], [7]]),), ready, rule="answers"),
            Case("everything at once", lambda: (report(broken=1, leaked=4, mismatches=[0], served=[[5], []], **HALF),), ready, rule="all"),
        ],
        asks='Return the names of the gates that stop a model, a list, in the order of the rules.\nreport: a dictionary with these keys.\n"broken", "leaked": numbers of broken checks and of leaked questions.\n"base", "tuned": 0 or 1 for each question.\n"mismatches": results of template_mismatch.\n"trained", "served": answers, each a list of ids.',
        rules={
            "all": '"data" stops it if any check is broken, "leak" if any question leaked. All gates that stop are named.',
            "score": '"score": the 95% interval of tuned − base, has its lower end at or below 0; `sftlab.statistics.paired_difference(base, tuned)` returns (mean, (low, high)).',
            "template": '"template": any mismatch is not None.',
            "answers": '"answers": any answer of "served" is not that of "trained" at its place.',
            UNCHANGED: "report stays as it is.",
        },
        draw=_draw_ready,
        hints=(
            "`paired_difference` returns the mean and then the pair (low, high).",
            ("template", "Is 0 a mismatch?"),
            "A dictionary from gate to True or False, and one list of the names whose value is True.",
        ),
        path="Write down for each gate when it *stops*, as one True or False. Then collect the names. The usual wrong turn is `any(mismatches)`: it treats position 0, where a begin token goes missing, like None.",
        why="The score has an interval because a handful of questions moves the mean by luck. The other gates have no tolerance: one broken row, leaked question, other token or other answer is a reason to look.",
        shows=(paired_difference,),
    ),
}  # fmt: skip
