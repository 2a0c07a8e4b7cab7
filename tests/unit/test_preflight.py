"""Each guard trips on the run that it is for, and on no other; and looking changes nothing."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO

import pytest
import torch

from sftlab._internal.paths import INSTRUCTIONS, ROOT
from sftlab.data import conversation, read_jsonl, tokenize_conversations
from sftlab.lora import inject_lora, lora_layers, lora_parameters
from sftlab.loss import IGNORE_INDEX
from sftlab.masking import Example
from sftlab.preflight import BROKEN, LOOK, OK, format_findings, main, preflight
from sftlab.train import TrainConfig, sft_train

ROWS = read_jsonl(INSTRUCTIONS / "pairs.jsonl")[:20]
TALKS = [conversation(row) for row in ROWS]
HELDOUT = [row["prompt"] for row in read_jsonl(INSTRUCTIONS / "heldout.jsonl")]


@pytest.fixture
def examples(tokenizer):
    return tokenize_conversations(tokenizer, TALKS).examples


@pytest.fixture
def model(tiny_model):
    return inject_lora(tiny_model, "all-linear", r=4, lora_alpha=12, seed=0)


def states(findings):
    return {finding.guard: finding.state for finding in findings if finding.state != OK}


def look(model, tokenizer, examples):
    return states(preflight(model, tokenizer, examples, TALKS, HELDOUT))


def test_a_sound_run_trips_nothing_and_every_guard_speaks(model, tokenizer, examples):
    findings = preflight(model, tokenizer, examples, TALKS, HELDOUT)
    assert states(findings) == {}
    assert len({finding.guard for finding in findings}) == 12
    assert all(finding.evidence and not finding.remedy for finding in findings)


def test_without_a_tokenizer_the_ids_are_looked_at(model, examples):
    assert states(preflight(model, examples=examples)) == {}


def test_without_a_tokenizer_a_masked_end_marker_is_seen_and_an_unknown_one_is_no_alarm(
    model, tokenizer, examples
):
    end = tokenizer.eos_token_id
    hidden = [masked(row, lambda i, x: x != end) for row in examples]
    assert states(preflight(model, examples=hidden)) == {END: BROKEN}
    model.config.eos_token_id = 4000  # of another template than the rows': nothing is known
    assert states(preflight(model, examples=hidden)) == {}


def masked(row, keep):
    return Example(
        row.input_ids, [x if keep(i, x) else IGNORE_INDEX for i, x in enumerate(row.labels)]
    )


def cut(row, length):
    return Example(row.input_ids[:length], row.labels[:length])


def shifted(row):
    return Example(row.input_ids, [*row.labels[1:], IGNORE_INDEX])


def trained_everywhere(row):
    return Example(row.input_ids, list(row.input_ids))


END = "answers end with their marker"
DAMAGES = {
    "nothing trained": (lambda rows, end: [masked(rows[0], lambda i, x: False), *rows[1:]],
                        {"every row is trained": BROKEN, END: LOOK}),
    "the prompt trained": (lambda rows, end: [trained_everywhere(r) for r in rows],
                           {"prompts are masked": BROKEN}),
    "labels shifted": (lambda rows, end: [shifted(r) for r in rows],
                       {"labels stand at their tokens": BROKEN}),
    "copies": (lambda rows, end: rows + rows[:4], {"rows differ": LOOK}),
    "the end marker masked": (lambda rows, end: [masked(r, lambda i, x: x != end) for r in rows],
                              {END: BROKEN}),
    "the end marker masked in a few": (
        lambda rows, end: [masked(r, lambda i, x: x != end) for r in rows[:3]] + rows[3:], {END: LOOK}),
    "answers cut": (lambda rows, end: [cut(r, r.labels.index(end) - 1) for r in rows], {END: BROKEN}),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_rows_trip_their_guard_and_no_other(name, model, tokenizer, examples):
    damage, expected = DAMAGES[name]
    assert look(model, tokenizer, damage(examples, tokenizer.eos_token_id)) == expected


def test_plain_documents_trained_from_end_to_end_are_no_fault(model, tokenizer):
    ids = tokenizer.encode("The frog lives in ponds. It eats insects.")
    ids = [token for token in ids if token != tokenizer.bos_token_id]
    documents = [Example([*ids[k:], *ids], [*ids[k:], *ids]) for k in range(6)]
    assert states(preflight(model, examples=documents)) == {"prompts are masked": LOOK}


def test_a_marker_that_is_masked_is_told_from_one_that_is_missing(model, tokenizer, examples):
    end = tokenizer.eos_token_id
    hidden = [masked(row, lambda i, x: x != end) for row in examples]
    missing = [cut(row, row.labels.index(end)) for row in examples]
    for rows, advice in ((hidden, "train the end marker"), (missing, "keep whole answers")):
        (found,) = [f for f in preflight(model, tokenizer, rows) if f.guard == END]
        assert found.remedy.startswith(advice)
        assert found.where[0].startswith("first: row 1, row 2") and "row 1" not in found.evidence


def test_a_begin_token_that_comes_twice(model, tokenizer, examples):
    begin = tokenizer.bos_token_id
    once = [Example([begin, *r.input_ids], [IGNORE_INDEX, *r.labels]) for r in examples]
    twice = [
        Example([begin, begin, *r.input_ids], [IGNORE_INDEX, IGNORE_INDEX, *r.labels])
        for r in examples
    ]
    assert look(model, tokenizer, once) == {}
    assert look(model, tokenizer, twice) == {"one begin token": BROKEN}


def test_a_template_that_renders_prompts_differently(model, tokenizer, examples):
    header = "{{ '<|im_start|>assistant\\n' }}"
    odd = tokenizer.chat_template.replace(header, "{{ 'Answer:' }}")
    assert odd != tokenizer.chat_template
    before, tokenizer.chat_template = tokenizer.chat_template, odd
    try:
        found = states(preflight(model, tokenizer, examples, TALKS))
    finally:
        tokenizer.chat_template = before
    assert found == {"inference reads what was trained": BROKEN}


def test_a_held_out_prompt_in_the_training_data(model, tokenizer, examples):
    leaked = [*HELDOUT, f" {TALKS[3][0]['content']}\n"]
    found = preflight(model, tokenizer, examples, TALKS, leaked)
    assert states(found) == {"held-out prompts are held out": BROKEN}
    assert TALKS[3][0]["content"] in found[0].evidence


class TestAdapters:
    def test_nothing_to_train(self, tiny_model, tokenizer, examples):
        found = look(tiny_model.requires_grad_(False), tokenizer, examples)
        assert found == {"something is trained": BROKEN}

    def test_full_fine_tuning_is_in_order(self, tiny_model, tokenizer, examples):
        assert look(tiny_model.requires_grad_(True), tokenizer, examples) == {}

    def test_the_base_trained_beside_the_adapters(self, model, tokenizer, examples):
        model.requires_grad_(True)
        assert look(model, tokenizer, examples) == {"something is trained": LOOK}

    def test_adapters_in_float16(self, model, tokenizer, examples):
        for layer in lora_layers(model).values():
            layer.A.data = layer.A.data.half()
        found = states(preflight(model, tokenizer, [], TALKS))
        assert found == {"something is trained": BROKEN}

    def test_alpha_that_was_not_divided_by_r(self, model, tokenizer, examples):
        for layer in lora_layers(model).values():
            layer.scale = layer.alpha
        assert look(model, tokenizer, examples) == {"adapters are in use": BROKEN}

    def test_a_factor_that_is_very_large(self, tiny_model, tokenizer, examples):
        model = inject_lora(tiny_model, "all-linear", r=4, lora_alpha=64, seed=0)
        assert look(model, tokenizer, examples) == {"adapters are in use": LOOK}

    def test_an_adapter_that_is_merged(self, model, tokenizer, examples):
        next(iter(lora_layers(model).values())).merge()
        found = look(model, tokenizer, examples)
        assert found == {"adapters are in use": BROKEN, "training starts at the base": LOOK}

    def test_both_matrices_zero(self, model, tokenizer, examples):
        for layer in lora_layers(model).values():
            torch.nn.init.zeros_(layer.A)
        assert look(model, tokenizer, examples) == {"training starts at the base": BROKEN}

    def test_both_matrices_random(self, model, tokenizer, examples):
        for layer in lora_layers(model).values():
            torch.nn.init.normal_(layer.B)
        assert look(model, tokenizer, examples) == {"training starts at the base": LOOK}


def test_looking_changes_nothing(model, tokenizer, examples):
    model.train()
    next(iter(lora_layers(model).values())).eval()
    modes = [module.training for module in model.modules()]
    weights = {name: p.clone() for name, p in model.named_parameters()}
    random = torch.get_rng_state()
    preflight(model, tokenizer, examples, TALKS, HELDOUT)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(weights[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_the_table_names_the_worst_first_with_its_remedy(model, tokenizer, examples):
    rows = [masked(examples[0], lambda i, x: False), *examples]
    lines = format_findings(preflight(model, tokenizer, rows, TALKS)).split("\n")
    assert lines[0].startswith("broken  every row is trained") and "row 1" in lines[0]
    assert lines[1].strip().startswith("→ look at the mask")
    assert format_findings([]) == ""


def program(*arguments):
    return subprocess.run([sys.executable, "-m", "sftlab.preflight", *map(str, arguments)],
                          capture_output=True, text=True)  # fmt: skip


def command(*arguments):
    """The same without a process of its own, which takes seconds to start."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as errors:
        status = main(list(map(str, arguments)))
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())


def test_the_command_line_checks_a_file(tmp_path):
    leak = tmp_path / "leak.jsonl"
    rows = [{**row, "prompt": prompt} for row, prompt in zip(ROWS, HELDOUT, strict=False)]
    leak.write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = ["--max-length", "30", "--too-long", "drop_row", "--heldout", INSTRUCTIONS / "heldout.jsonl"]  # fmt: skip
    for how, data, status, said in (
        (program, INSTRUCTIONS / "handful.jsonl", 0, "look  "),
        (command, leak, 1, "broken"),
    ):
        done = how(data, *more)
        assert (done.returncode, done.stderr) == (status, "")
        assert done.stdout.startswith(said)
    assert "left out: longer than 30 tokens" in done.stdout
    for data, said in ((tmp_path / "no.jsonl", "is no file"), (leak, "no model 'none'")):
        done = command(data, "--model", "none" if data == leak else "almanac")
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_the_command_line_speaks_json_and_writes_a_page(tmp_path):
    rows = [*ROWS[:3], {"prompt": "<b>Hi</b>", "response": ""}, {"prompt": "Mail a.b@c.org!", "response": "Ok.", "src": 1}]  # fmt: skip
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = command(data, "--json", "--report", tmp_path / "page.html")
    found = json.loads(done.stdout)
    assert done.returncode == found["exit_status"] == 1
    assert (found["rows"], found["examples"]) == (5, 4)
    states = {finding["guard"]: finding["state"] for finding in found["findings"]}
    assert states["rows can be used"] == BROKEN
    assert states["every key is used"] == states["no personal data"] == LOOK
    assert "line 4: message 2 (assistant) is empty" in str(found["findings"][0]["where"])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (
        page.count("<svg") == 2
        and page.count("<h3>") == 4
        and "a.b@c.org" not in page.split("<h3>")[0]
    )
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_command_line_checks_a_run_with_its_settings(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"q": ROWS[0]["prompt"], "a": "Yes."}) + "\n")
    run = {"model": "almanac", "data": "rows.jsonl", "output": "out", "adapter": {"r": 2}, "train": {}}  # fmt: skip
    for more, status in (({}, 1), ({"prompt_column": "q", "response_column": "a"}, 0)):
        (tmp_path / "run.json").write_text(json.dumps(run | more))
        assert command(tmp_path / "run.json").returncode == status
    assert not (tmp_path / "out").exists()


def test_the_command_line_checks_a_model_in_a_folder(tiny_model, tokenizer, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    data = str(INSTRUCTIONS / "handful.jsonl")
    for more, said in (([], "adapters are in use"), (["--full"], "149,664 of 149,664")):
        done = command(data, "--model", tmp_path / "model", *more)
        assert (done.returncode, done.stderr) == (0, "")
        assert said in done.stdout and "broken" not in done.stdout


@pytest.mark.parametrize("name", ["handful", "pairs", "curated", "conversations"])
def test_no_false_alarm_on_the_workbooks_own_pairs(name, model, tokenizer):
    talks = [conversation(row) for row in read_jsonl(INSTRUCTIONS / f"{name}.jsonl")]
    rows = tokenize_conversations(tokenizer, talks).examples
    assert states(preflight(model, tokenizer, rows, talks, HELDOUT)) == {}


def test_no_false_alarm_in_any_notebook():
    """`sft_train` looks before it trains; what it found broken would stand in the outputs."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        printed = [
            "".join(output.get("text", ""))
            for cell in cells
            for output in cell.get("outputs", [])
            if output["output_type"] == "stream"
        ]
        assert not any(line.startswith("broken  ") for text in printed for line in text.split("\n")), path.name  # fmt: skip


def test_it_costs_less_than_a_step_of_the_run(model, examples):
    """Of all examples it reads ids and labels alone; through the model go few tokens."""
    through = []
    hook = model.get_decoder().register_forward_hook(
        lambda _, inputs, given, out: through.append(out.last_hidden_state[..., 0].numel()),
        with_kwargs=True,
    )
    preflight(model, examples=examples)
    hook.remove()
    assert sum(through) < 16 * len(examples[0])


def test_a_finding_is_a_plain_value(model, examples):
    first = preflight(model, examples=examples)[0]
    assert replace(first, state=LOOK) != first


class TestInTheLoop:
    CONFIG = TrainConfig(max_steps=1, batch_size=4)

    def test_a_sound_run_says_nothing(self, model, examples, capsys):
        sft_train(model, examples, self.CONFIG, progress=False)
        assert capsys.readouterr().out == ""

    def test_a_broken_one_is_told_before_it_starts_and_can_be_silenced(
        self, model, tokenizer, examples, capsys
    ):
        hidden = [masked(row, lambda i, x: x != tokenizer.eos_token_id) for row in examples]
        sft_train(model, hidden, self.CONFIG, progress=False)
        assert "broken  answers end with their marker" in capsys.readouterr().out
        sft_train(model, hidden, self.CONFIG, progress=False, check=False)
        assert capsys.readouterr().out == ""

    def test_looking_does_not_change_the_run(self, tiny_model, examples):
        weights = []
        for check in (True, False):
            model = inject_lora(copy.deepcopy(tiny_model), "all-linear", r=4, lora_alpha=12, lora_dropout=0.1, seed=0)  # fmt: skip
            sft_train(model, examples, self.CONFIG, progress=False, check=check)
            weights.append(torch.cat([p.flatten() for p in lora_parameters(model)]))
        assert torch.equal(*weights)
