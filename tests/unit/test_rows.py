"""Files of every kind give the same rows, and what cannot be read is named by its place."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma

import datasets
import pytest

from sftlab.errors import WorkbookError
from sftlab.rows import read_rows

ROWS = [
    {"prompt": "Wie heißt du?", "response": "Näh\u2028me."},
    {"prompt": "007", "response": "NA"},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def rows(path, notes=None):
    return [row for _, row in read_rows(path, notes)]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


TEXTS = {
    "lines": LINES,
    "lines that end as on Windows": LINES.replace("\n", "\r\n"),
    "a byte order mark": "\ufeff" + LINES,
    "line ends of an old Mac": LINES.replace("\n", "\r"),
    "UTF-16": LINES.encode("utf-16"),
    "blank lines": "\n \n" + LINES.replace("\n", "\n\n"),
    "an array": json.dumps(ROWS),
    "an array over lines": "\n" + json.dumps(ROWS, indent=2) + "\n",
    "objects over lines": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "columns": json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}),
    "rows under one key": json.dumps({"data": ROWS}, indent=1),
    "gzip": gzip.compress(LINES.encode(), mtime=0),
    "bzip2": bz2.compress(LINES.encode()),
    "xz": lzma.compress(LINES.encode()),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_every_kind_of_text_gives_the_rows(kind, tmp_path):
    assert rows(write(tmp_path / "rows.json", TEXTS[kind])) == ROWS


@pytest.mark.parametrize("kind", ["csv", "semicolons", "tsv", "parquet", "saved"])
def test_every_kind_of_table_gives_the_rows(kind, tmp_path):
    table = datasets.Dataset.from_list(ROWS)
    path = tmp_path / f"table.{'csv' if kind == 'semicolons' else kind}"
    if kind == "parquet":
        table.to_parquet(path)
    elif kind == "saved":
        table.save_to_disk(path)
    else:
        table.to_csv(path, sep={"semicolons": ";", "tsv": "\t"}.get(kind, ","))
    notes = []
    assert rows(path, notes) == ROWS  # "007" and "NA" stay texts
    assert bool(notes) == (kind in ("semicolons", "tsv"))


def test_rows_of_a_table_that_do_not_fit_its_header_are_named(tmp_path):
    content = ',prompt,response\n0,hello,hi there, friend\n1,bye,"see you, pal"\n2,x,"he \\"yo\\" ok"\n3,a,b\n'
    found = dict(read_rows(write(tmp_path / "t.csv", content)))
    assert found["line 3"] == {"column 1 (without a name)": "1", "prompt": "bye", "response": "see you, pal"}  # fmt: skip
    assert found["line 5"]["response"] == "b"
    assert "4 cells, but the header has 3" in str(found["line 2"])
    assert "not valid CSV" in str(found["line 4"])


def test_lines_that_are_lists_are_no_array(tmp_path):
    found = list(
        read_rows(write(tmp_path / "rows.jsonl", '[{"role": "user"}]\n[{"role": "user"}]\n'))
    )
    assert [place for place, _ in found] == ["line 1", "line 2"]
    assert 'write {"messages": [...]}' in str(found[0][1])


def test_a_first_line_of_columns_is_a_row_if_others_follow(tmp_path):
    line = '{"prompt": ["a", "b"], "response": ["c", "d"]}\n'
    assert len(rows(write(tmp_path / "one.json", line))) == 2
    assert len(rows(write(tmp_path / "rows.jsonl", line + LINES))) == 3


def test_a_cell_of_messages_is_read_as_json(tmp_path):
    messages = [{"role": "user", "content": "Hi"}]
    datasets.Dataset.from_list([{"messages": json.dumps(messages)}]).to_csv(tmp_path / "t.csv")
    assert rows(tmp_path / "t.csv") == [{"messages": messages}]


def test_reading_goes_on_after_each_bad_line(tmp_path):
    bad = ['{"prompt": "a"', "[1]", '{"a": 1, "a": 2}', "[" * 100_000, "9" * 5000]
    content = "\n".join([json.dumps(ROWS[0]), *bad, json.dumps(ROWS[1])]).encode() + b"\n\xff"
    found = list(read_rows(write(tmp_path / "rows.jsonl", content)))
    assert [place for place, row in found if isinstance(row, WorkbookError)] == [f"line {n}" for n in (2, 3, 4, 5, 6, 8)]  # fmt: skip
    told = "".join(str(row) for _, row in found)
    for said in ("not valid JSON", "found list", 'the key "a" occurs twice', "not UTF-8"):
        assert said in told


def test_a_first_line_that_is_cut_does_not_hide_the_others(tmp_path):
    found = list(read_rows(write(tmp_path / "rows.jsonl", '{"prompt": "a",\n' + LINES)))
    assert [isinstance(row, WorkbookError) for _, row in found] == [True, False, False]


@pytest.mark.parametrize(
    ("content", "place", "said"),
    [
        ('[{"prompt": "a"},\n{"prompt" "b"}]', "item 2, line 2", "column 11"),
        ('[{"prompt": "a"}', "line 1", '"]" is missing'),
        ('[{"prompt": "a"},\n\n 3]', "item 2, line 3", "found int"),
    ],
)
def test_a_damaged_array_says_where(content, place, said, tmp_path):
    *_, (where, row) = read_rows(write(tmp_path / "rows.json", content))
    assert where == place and said in str(row)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "is the file complete"),
        ("rows.parquet", b"PAR1", "cannot be read as parquet"),
        (
            "rows.csv",
            "prompt;response\n\xe4".encode("latin-1"),
            "cannot be read as csv|is not UTF-8",
        ),
        ("rows.xlsx", b"PK", "save the sheet as CSV"),
        ("rows.pkl", b"", "pickled files can run code"),
        ("rows.txt", b"\xff\xfea", "damaged UTF-16"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(name, content, said, tmp_path):
    with pytest.raises(WorkbookError, match=said):
        rows(write(tmp_path / name, content))
