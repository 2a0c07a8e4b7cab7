"""Notebook 16: words that follow the numbers, and a training thread that is paused and continued."""

from __future__ import annotations

import copy
import threading
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sftlab.almanac import pretrain
from sftlab.chat import user
from sftlab.data import tokenize_conversations
from sftlab.exercises.ex16_sft_training_loop import (
    explorer,
    killed,
    longer,
    plots,
    read_before,
    stopping,
)
from sftlab.exercises.ex16_sft_training_loop.explorer import Training, train_and_ask
from sftlab.exercises.ex16_sft_training_loop.plots import curve
from sftlab.generate import Generation
from sftlab.lora import inject_lora
from sftlab.models import load
from sftlab.train import TrainConfig, sft_train, train_loop

CONFIG = TrainConfig(learning_rate=1e-2, num_train_epochs=4, batch_size=2)


@pytest.fixture
def rows(tokenizer):
    talks = [
        [*user(f"What is {n} plus 1?"), {"role": "assistant", "content": f"It is {n + 1}."}]
        for n in range(1, 7)
    ]
    return tokenize_conversations(tokenizer, talks).examples


@pytest.fixture
def start(tiny_model):
    return lambda: inject_lora(copy.deepcopy(tiny_model), "all-linear", r=2, lora_alpha=4, seed=0)


def test_a_run_paused_twice_ends_with_the_weights_of_one_that_was_not(start, rows):
    straight = start()
    sft_train(straight, rows, CONFIG, progress=False)
    run = Training(start, rows, CONFIG, pad_id=0)
    assert run.steps == 12
    for stop in (3, 7, 99):
        reached, ended = threading.Event(), threading.Event()
        run.go(lambda done, s=stop, r=reached: r.set() if done >= s else None, ended.set)
        while not (reached.is_set() or ended.is_set()):
            ended.wait(0.01)
        if stop < run.steps:
            run.pause()
        assert ended.wait(60)
    assert len(run.losses) == run.steps
    pairs = zip(straight.parameters(), run.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_an_error_in_the_thread_is_kept_for_the_reader(start, rows):
    ended = threading.Event()
    run = Training(lambda: start().requires_grad_(False), rows, CONFIG, pad_id=0)
    run.go(lambda done: None, ended.set)
    assert ended.wait(60)
    assert "no parameter requires a gradient" in str(run.error)


def test_outside_a_notebook_the_explorer_tells_the_stored_answers(start, tokenizer, rows, capsys):
    train_and_ask(start, tokenizer, rows, CONFIG, "What is 1 plus 1?", {0: "What", 5: "It is 2."})
    assert "It is 2." in capsys.readouterr().out


def recorded(few_turns: bool, prompt_wins: bool, seeds: int = 4) -> list[dict]:
    """Runs as recorded: on few pairs the test loss rises or falls at the end; one side answers more."""
    count = len(stopping.questions()[1])
    marks = {
        True: "1" * (count - 8) + "0" * 8,
        False: "1" * (count // 2) + "0" * (count - count // 2),
    }
    found = []
    for setting in stopping.settings():
        if setting["seed"] >= seeds:
            continue
        if setting["arm"] != stopping.TRAINED:
            won = prompt_wins and setting["arm"] == stopping.LINES
            loss = 1.0 + (setting["pairs"] != 8)
            found.append({**setting, "exact": marks[won], "validation": loss})
            continue
        turns = few_turns and setting["pairs"] == stopping.FEW
        falling = [
            1.0 / (k + 2 + setting["pairs"] / 1000) for k in range(len(stopping.CHECKPOINTS))
        ]
        losses = [0.5 + abs(k - 4) / 10 + setting["seed"] / 100 for k in range(len(falling))]
        chosen = {"validation": 20 if turns else 96, "training": 96, "last": 96}
        found.append({
            **setting, "training": falling, "chosen": chosen,
            **dict.fromkeys(("validation", "test"), losses if turns else falling),
            "exact": dict.fromkeys(stopping.RULES, marks[not prompt_wins]),
        })  # fmt: skip
    return found


def recorded_longer(runs: list[dict], turns: bool) -> list[dict]:
    """The runs on many pairs, gone on: the validation loss turns at step 150, or falls to the end."""
    found = []
    for setting in longer.settings():
        own = {k: v for k, v in setting.items() if k != "steps"}
        same = next((run for run in runs if own.items() <= run.items()), None)
        if same is None:
            continue
        more = (
            [0.01 * abs(k - 1) + 0.01 for k in range(7)]
            if turns
            else [0.01 / k for k in range(1, 8)]
        )
        curve = {name: [*same[name], *more] for name in ("training", "validation", "test")}
        chosen = {"validation": 150 if turns else 300, "training": 300, "last": 300}
        found.append({**same, **setting, **curve, "chosen": chosen})
    return found


@pytest.mark.parametrize("few_turns", [True, False])
@pytest.mark.parametrize("prompt_wins", [True, False])
def test_the_words_follow_the_numbers(few_turns, prompt_wins):
    runs = recorded(few_turns, prompt_wins)
    more = recorded_longer(runs, few_turns)
    side = "lower" if few_turns else "higher"  # of many pairs, the later loss over the earlier one
    told = f"{side} from step {', '.join(map(str, plots.EARLIER))}"
    assert plots.over_seeds(runs).get_suptitle() == "Test loss by training step, 24 and 240 pairs"
    assert ("test questions, higher." in plots.ends(runs)) == few_turns
    assert "in 0 of 4 seeds" in plots.other_judge(runs)
    assert plots.other_judge(runs).endswith("not settled here.")
    assert ("so the layout alone brings out" in plots.layout(runs)) == prompt_wins
    equal = plots.claims(runs, more, READS, {"with": 0.0, "without": 0.1}, [1e-7, 1e-6], several)
    other = plots.claims(runs, more, READS, {"with": 0.2, "without": 0.1}, [1e-2], several)
    assert equal["claim"][0].endswith(f": {told}")
    assert "exact answers not settled here" in equal["claim"][1]
    word = "fewer" if prompt_wins else "more"
    assert equal["claim"][2].endswith(f"240 pairs {word}, 24 pairs {word}")
    assert "equals" in equal["claim"][3] and "differs from" in other["claim"][3]
    assert "the same losses" in equal["claim"][4] and "other losses" in other["claim"][4]
    assert equal["measured"][4].startswith("TRL, 2 steps: 1e-06 at most; another run,")
    gaps = plots.read_or_not(runs, READS)
    arm, read = plots.best(runs, stopping.MANY), plots.read_mask(READS)
    parts = [plots.against_prompt_on(runs, arm, of)[0] for of in (read, [not one for one in read])]
    assert (4 * parts[0] + 104 * parts[1]) / 108 == pytest.approx(
        plots.against_prompt(runs, arm)[0]
    )
    assert ("lowest steps average 20 (20 to 20)" in plots.when_to_stop(runs)) == few_turns
    assert gaps[1].endswith(f", {word}")
    assert gaps[0].startswith(
        "read with their answers in pretraining (4 of 108 questions, of equal weight)"
    )
    assert gaps[1].startswith(
        "not read with their answers in pretraining (104 of 108 questions, of equal weight)"
    )
    assert f", {word}; 240 pairs end" in equal["where it stops holding"][2]
    assert ("\nhigher: 24 pairs at 0.0001" in plots.overfitting(runs)) == few_turns
    assert "the chosen step is the last: 240 pairs" in plots.overfitting(runs) or not few_turns
    assert plots.when_to_stop(runs).count("the last") == (2 if few_turns else 3)
    assert plots.turn(runs)[0] == (20 if few_turns else 96)
    assert "validation loss in 4 of 4 seeds; 240 pairs at" in equal["where it stops holding"][2]
    side = "prompted as Q and A" if prompt_wins else "trained on 240 pairs"
    assert f"better {side}: none" not in plots.differing(runs)
    assert "larger (in no pair)" in plots.differing(runs)
    assert "yes_no (in" not in plots.differing(runs)
    verdicts = plots.units_table(runs, more).iloc[:, 0].str.split(", ").str[-1]
    assert set(verdicts) == {"lower" if prompt_wins else "higher"}
    assert "8 examples" in " ".join(plots.untrained(runs))  # by the lower loss, not by the score
    assert plots.flat(runs).endswith(f" at steps {20 if few_turns else 96}.")
    assert ("own steps: 20, 20, 20, 20;" in plots.flat(runs)) == few_turns
    assert plots.flat(runs, 1.0).endswith("the minimum is flat.")
    assert "24 pairs: 15–16, 240 pairs: 24" in plots.kinds_covered(runs)
    rules = plots.rules_table(runs, more).iloc[:, 1:]
    same = set(rules.index[(rules == "the same checkpoint").all(axis=1)])
    assert len(rules) == 6 and {name.split(" at")[0] for name in same} == (
        {"240 pairs"} if few_turns else {"24 pairs", "240 pairs"}
    )
    assert any("300 steps" in name for name in same) != few_turns
    assert len(plots.later_table(runs)) == 4
    plots.scores_figure(runs)
    plt.close("all")


READS = [
    {"times": {mark: [0, 0, 0, 0, *[0] * 104] for mark in read_before.MARKS}} for _ in range(2)
]
READS[1]["times"]["Q."][:4] = [1, 2, 3, 1]


def test_a_question_counts_as_read_with_any_of_the_marks_or_with_one():
    assert plots.read_mask(READS) == [True] * 4 + [False] * 104
    assert not any(plots.read_mask(READS, ("Q:", "Question:")))
    assert plots.subjects_shared() == "subjects that occur in more than one kind: 10 of 93"


def test_each_question_weighs_the_same_and_kinds_stay_the_unit():
    of = [n in (0, 1, 2, 4) for n in range(108)]  # three questions of a kind, and one of another
    kinds = [question["kind"] for question in stopping.questions()[1]]
    assert len({kinds[n] for n in (0, 1, 2)}) == 1 and kinds[4] != kinds[0]
    table = plots.by_question(np.array([[1, 1, 1, 0], [0, 0, 0, 0]]), of)
    assert table.shape == (2, 2) and table.mean(1).tolist() == [0.75, 0.0]


def test_the_documents_are_those_that_the_base_was_trained_on():
    _, tokenizer = load("almanac")
    end = tokenizer.bos_token
    rows = pretrain.rows(read_before.RECIPE, 7, tokenizer)
    texts = [tokenizer.decode(ids).replace(end, "\n\n") for ids in rows.tolist()]
    assert read_before.page(7, tokenizer) == "\n\n".join([*texts, ""])


@pytest.mark.base
def test_a_run_that_was_killed_goes_on_to_the_same_weights(tmp_path):
    file = tmp_path / "last.pt"
    killed.kill_after(2, file, "almanac", 0, 1e-3, 50)
    saved = torch.load(file)
    done = saved["step"]
    assert 2 <= done < 50
    _, tokenizer = load("almanac")
    plan = stopping.batches(tokenizer, stopping.drawn(0)[: stopping.FEW], 0, 50)[: done + 1]
    ends = []
    for first in (0, done):
        model = load("almanac")[0].requires_grad_(True)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
        if first:
            model.load_state_dict(saved["weights"])
            optimizer.load_state_dict(saved["optimizer"])
        train_loop(model, plan[first:], optimizer, [1e-3] * len(plan[first:]))
        ends.append(model)
    pairs = zip(*(model.parameters() for model in ends), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


several = [{"processes": 2, "largest_relative_difference": 2e-6}]


def test_the_live_figure_marks_the_lowest_validation_loss():
    training = {4: 2.0, 8: 0.5, 12: 0.1}
    for validation, where in (
        ({4: 2.0, 8: 0.6, 12: 0.7}, "at step 8 of 12"),
        ({4: 2.0, 8: 0.6, 12: 0.5}, "at the last step"),
    ):
        figure = plots.both_losses({"training": training, "validation": validation})
        assert figure._suptitle.get_text() == f"Lowest validation loss {where}"
    plt.close("all")
    assert curve([], 10).count("polyline") == 1
    assert curve([1.0, 0.5], 10).count(",") > 2


def test_every_rule_but_one_leaves_out_the_run_it_chooses_for():
    runs = [{"validation": [3.0] * 10}, {"validation": [2.0, 1.0, *[2.0] * 8]}]
    assert plots.others_step(runs, 0) == stopping.CHECKPOINTS[1]
    assert plots.others_step(runs, 1) == stopping.CHECKPOINTS[0]


@pytest.mark.parametrize("seed", range(stopping.SEEDS))
def test_sets_share_no_subject(seed):
    validation, test = ({q["subject"] for q in some} for some in stopping.questions())
    pairs = {(row["kind"], row["subject"]) for row in stopping.drawn(seed)}
    asked = {(q["kind"], q["subject"]) for some in stopping.questions() for q in some}
    assert not validation & test and not asked & pairs
    assert len({row["prompt"] for row in stopping.drawn(seed)}) == stopping.MANY


def test_kinds_weigh_alike():
    validation, test = stopping.questions()
    for some, each in zip((validation, test), stopping.EACH, strict=True):
        counts = Counter(q["kind"] for q in some)
        assert len(counts) == 27 and set(counts.values()) == {each}


def test_an_answer_after_examples_ends_where_the_next_question_begins(monkeypatch):
    said = " 1. Sit.\n2. Stand.\nQ: Who?\nA: I."
    monkeypatch.setattr(
        stopping,
        "generate",
        lambda *_: [Generation(said, [1], False), Generation(" So", [1], False)],
    )
    ended, endless = stopping.after_examples(None, None, [{"prompt": "A?"}, {"prompt": "B?"}])
    assert (ended.text, ended.stopped) == ("1. Sit.\n2. Stand.", True)
    assert (endless.text, endless.stopped) == ("So", False)


@pytest.mark.parametrize("arm", [stopping.TEMPLATE, stopping.LINES])
def test_only_the_answer_and_its_end_have_labels(tokenizer, arm):
    asked, shots = stopping.questions()[0][:2], stopping.drawn(0)[:2]
    for question, known in zip(asked, stopping.answers(arm, tokenizer, asked, shots), strict=True):
        text = tokenizer.decode([i for i in known.labels if i >= 0])
        end = "\nQ:" if arm == stopping.LINES else tokenizer.eos_token
        assert text.strip() == question["response"] + end
        assert shots[1]["response"] in tokenizer.decode(known.input_ids)


def test_the_button_trains_and_the_pause_answers(start, tokenizer, rows, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        explorer, "explorer", lambda controls, draw, alt: shown.update(controls, draw=draw)
    )
    train_and_ask(start, tokenizer, rows, CONFIG, "What is 1 plus 1?", {0: "What", 5: "It is 2."})
    go, done, draw = shown["go"], shown["done"], shown["draw"]
    running, stopped = threading.Event(), threading.Event()
    done.observe(lambda change: running.set() if change["new"] >= 2 else None, names="value")
    go.observe(lambda change: None if change["new"] else stopped.set(), names="value")
    go.value = True
    assert running.wait(60)
    assert "training …" in draw(True, done.value, "What is 1 plus 1?").text
    go.value = False
    assert stopped.wait(60)
    paused_at = done.value
    assert f"step {paused_at} of 12" in draw(False, paused_at, "What is 2 plus 1?").text
    assert (
        "asked in the pause: What is 2 plus 1?" in draw(False, paused_at, "What is 2 plus 1?").text
    )
    stopped.clear()
    go.value = True
    assert stopped.wait(60)  # the run's own end takes the button back
    assert done.value == 12


@pytest.mark.parametrize("where", ["start", "step"])
def test_any_error_in_the_thread_reaches_the_reader_and_the_button_works_again(
    start, tokenizer, rows, monkeypatch, where
):
    """A WorkbookError or not: shown in place of the picture, and pressed again it trains."""
    shown, broken = {}, [True]
    monkeypatch.setattr(
        explorer, "explorer", lambda controls, draw, alt: shown.update(controls, draw=draw)
    )

    def fragile():
        model = start()
        if broken[0] and where == "start":
            raise MemoryError("no room for the model")
        if broken[0]:
            passes = []

            def fail(*_):
                passes.append(1)
                if len(passes) > 15:  # the check before the first step makes some
                    raise RuntimeError("no room for the step")

            model.model.layers[0].register_forward_pre_hook(fail)
        return model

    prompt = "What is 1 plus 1?"
    train_and_ask(fragile, tokenizer, rows, CONFIG, prompt, {0: "What", 5: "It is 2."})
    go, done, draw = shown["go"], shown["done"], shown["draw"]
    stopped = threading.Event()
    go.observe(lambda change: None if change["new"] else stopped.set(), names="value")
    go.value = True
    assert stopped.wait(60)
    assert go.value is False
    with pytest.raises((MemoryError, RuntimeError), match="no room"):
        draw(False, done.value, prompt)

    broken[0] = False
    stopped.clear()
    go.value = True
    assert stopped.wait(60)
    assert done.value == 12
    assert "step 12 of 12" in draw(False, 12, prompt).text
    assert "asked in the pause" in draw(False, 12, prompt).text
