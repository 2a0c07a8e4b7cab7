"""The certificate of a run: what it says, as Markdown and as HTML, and what it refuses."""

from __future__ import annotations

import json

import pytest

from sftlab import cli
from sftlab.certificate import Score, certificate, write_certificate
from sftlab.data import INSTRUCTIONS, read_jsonl, write_jsonl
from sftlab.errors import WorkbookError
from sftlab.fetch import file_checksum
from sftlab.findings import BROKEN, LOOK, OK, Finding
from sftlab.results import save_result


@pytest.fixture
def result(tiny_model, tokenizer, tmp_path):
    return save_result(
        tiny_model, tokenizer, tmp_path / "result", base_name="almanac",
        run={"model": "almanac", "data": {"file": "my <b>.jsonl", "rows": 3, "sha256": "abc"}, "train": {"seed": 3}},
        history={"losses": [2.0, 1.5]}, end_ids=[2], adapter=False,
    )  # fmt: skip


def test_what_it_says(result):
    checks = [
        Finding("rows differ", OK, "0 of 3 | copies"),
        Finding("texts differ", LOOK, "2 nearly"),
    ]
    page = certificate(result, checks, [Score("exact", 0.5, 0.25, 0.75, "of 8 questions")])
    text, html = page.markdown(), page.html()
    for found in (text, html):
        assert "1 of 2 checks passed, 1 need a look, 0 failed" in found
        assert "0.5 (95% interval 0.25 to 0.75), of 8 questions" in found
        assert "almanac-base" in found and "train, seed" in found and "final loss" in found
        assert file_checksum(result / "model.safetensors") in found
    assert "0 of 3 \\| copies" in text and "0 of 3 | copies" in html
    assert "my &lt;b&gt;" in html and "my <b>" not in html and "http" not in html
    assert text.index("look: texts differ") < text.index("ok: rows differ")


def test_a_failed_check_is_said_first(result):
    page = certificate(result, [Finding("one", BROKEN, "no")])
    assert page.verdict.endswith("1 failed. Do not serve this model.")
    assert certificate(result).verdict == "No check was made."


def test_folders_without_a_result_or_room(result, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(WorkbookError, match="nothing is known of its run"):
        certificate(tmp_path / "other")
    with pytest.raises(WorkbookError, match="cannot be written"):
        write_certificate(certificate(result), tmp_path / "nowhere")


def test_the_command_on_a_run(tmp_path, capsys):
    pairs = read_jsonl(INSTRUCTIONS / "pairs.jsonl")
    write_jsonl(tmp_path / "pairs.jsonl", [{k: r[k] for k in ("prompt", "response")} for r in pairs[:32]])  # fmt: skip
    write_jsonl(tmp_path / "asked.jsonl", [{k: r[k] for k in ("prompt", "response")} for r in pairs[40:44]])  # fmt: skip
    run = {"model": "almanac", "data": "pairs.jsonl", "heldout": "asked.jsonl", "output": "out", "adapter": {"r": 2},
           "train": {"max_steps": 2}}  # fmt: skip
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run), encoding="utf-8")
    assert cli.main(["certificate", str(path)]) == 1  # not trained yet
    assert cli.main(["train", str(path)]) == 0
    assert cli.main(["certificate", str(path)]) == 0
    text = (tmp_path / "out" / "certificate.md").read_text(encoding="utf-8")
    assert "of 4 held-out questions" in text and "held-out prompts are held out" in text
    assert (tmp_path / "out" / "certificate.html").is_file()
