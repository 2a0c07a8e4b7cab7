"""Read a file of training data row by row, whatever its kind, with the place of each row.

Kinds: JSONL, JSON (an array, objects over several lines, columns), compressed with gzip, bzip2 or
xz, in UTF-8 or UTF-16; CSV, TSV, Parquet and Arrow, and folders saved by the datasets library. A
row that cannot be read is an error with its place, and reading goes on after it.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import logging
import lzma
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from sftlab.errors import WorkbookError

Row = tuple[str, dict | WorkbookError]  # a place such as "line 3", and the row or what is wrong

COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
TABLES = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
SEPARATORS = (",", ";", "\t", "|")
NOT_READ = {
    ".xlsx": "save the sheet as CSV", ".xls": "save the sheet as CSV", ".zip": "unpack it first",
    ".zst": "unpack it first", ".tar": "unpack it first", ".pkl": "pickled files can run code; save it as JSONL",
    ".pt": "pickled files can run code; save it as JSONL", ".pdf": "write its contents as JSONL",
}  # fmt: skip
EXAMPLE = 'such as {"prompt": "...", "response": "..."}'


def read_rows(path: str | Path, notes: list[str] | None = None) -> Iterator[Row]:
    """Yield each row of a file with its place in the file, one at a time.

    Args:
        notes: a list that receives one sentence for each thing that had to be interpreted.

    Raises:
        WorkbookError: the file cannot be read at all. A single unreadable row is yielded as an
            error in its place.
    """
    path, notes = Path(path), [] if notes is None else notes
    if path.suffix.lower() in NOT_READ and path.is_file():
        raise WorkbookError(f"{path} cannot be read as data; {NOT_READ[path.suffix.lower()]}")
    try:
        if (
            (path / "state.json").is_file()
            or (path / "dataset_dict.json").is_file()
            or (path.suffix.lower() in TABLES and path.is_file())
        ):
            yield from _table(path, notes)
        else:
            yield from _text(path, notes)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise WorkbookError(f"{path} cannot be read ({error}); is the file complete?") from None


def _text(path: Path, notes: list[str]) -> Iterator[Row]:
    if not path.is_file():
        raise WorkbookError(
            f"{path} is no file; expected a JSONL file, one JSON object per line (or JSON, CSV, "
            "Parquet, or a folder that the datasets library saved)"
        )
    with path.open("rb") as file:
        head = file.read(6)
    opened = next((o for magic, o in COMPRESSED.items() if head.startswith(magic)), open)
    with opened(path, "rb") as file:
        lines: Iterator[bytes] = iter(file)
        first = next(lines, b"")
        if first.startswith((b"\xff\xfe", b"\xfe\xff")):
            notes.append("the file is in UTF-16")
            try:
                text = (first + file.read()).decode("utf-16")
            except UnicodeDecodeError:
                raise WorkbookError(f"{path} is damaged UTF-16; save it as UTF-8") from None
            lines = iter(text.encode("utf-8", "surrogatepass").splitlines(keepends=True))
            first = next(lines, b"")
        first = first.removeprefix(b"\xef\xbb\xbf")  # a byte order mark, as some editors write
        blank = 0
        while first and not first.strip():
            first, blank = next(lines, b""), blank + 1
        if _begins_a_document(first):
            raw = first + b"".join(lines)
            if raw.startswith(b"[") or _decodes(raw):
                yield from _document(path, raw, blank, notes)
                return
            first, lines = b"", iter(raw.splitlines(keepends=True))
            blank -= 1  # the line number of the empty first line
        yield from _lines(chain([first], lines), blank)


def _lines(lines: Iterator[bytes], before: int) -> Iterator[Row]:
    """Yield the rows of JSONL: one object per line. Bytes are split, because a text may contain
    characters such as U+2028 that only look like line ends.
    """
    for number, raw in enumerate(lines, before + 1):
        if raw.strip():
            yield f"line {number}", _row(raw)


def _row(raw: bytes) -> dict | WorkbookError:
    try:
        row = _parsed(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return WorkbookError(f"not UTF-8 text (byte {error.start}); save the file as UTF-8")
    except json.JSONDecodeError as error:
        return WorkbookError(
            f"not valid JSON ({error.msg} at column {error.colno}); expected one object per line, "
            f"{EXAMPLE}"
        )
    except (ValueError, RecursionError) as error:  # a key twice, nested or long beyond limits
        return WorkbookError(f"not usable JSON ({str(error).splitlines()[0]})")
    return row if isinstance(row, dict) else _no_object(row)


def _no_object(row: object) -> WorkbookError:
    return WorkbookError(f"expected a JSON object {EXAMPLE}, found {type(row).__name__}")


def _once(pairs: Sequence[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{twice}" occurs twice; JSON keeps only the last')
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_once)
_parsed = _DECODER.decode


def _begins_a_document(line: bytes) -> bool:
    """Return whether the first line begins a JSON text over several lines, or an array."""
    start = line.strip()
    if start.startswith(b"["):
        return True
    if not start.startswith(b"{"):
        return False
    try:
        row = json.loads(start)
    except ValueError as error:
        # The object is not at its end: an error before the end of the line is a damaged row.
        return isinstance(error, json.JSONDecodeError) and error.pos >= len(start.decode()) - 1
    except RecursionError:
        return False
    return _columns(row) is not None


def _decodes(raw: bytes) -> bool:
    """Return whether the text begins with a whole JSON object."""
    try:
        json.JSONDecoder().raw_decode(raw.decode("utf-8", "replace").lstrip())
    except (ValueError, RecursionError):
        return False
    return True


def _document(path: Path, raw: bytes, before: int, notes: list[str]) -> Iterator[Row]:
    """Yield the rows of a JSON array, of objects over several lines, or of an object of columns."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WorkbookError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    text = text.rstrip()
    at, line, number = 0, before + 1, 0
    array = text.startswith("[")
    notes.append("the file is a JSON array" if array else "its objects span several lines")
    at += array
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            line += text[at] == "\n"
            at += 1
        if at >= len(text) or (array and text[at] == "]"):
            if array and text[at:] != "]":
                yield f"line {line}", WorkbookError('the array is not closed: "]" is missing; is the file complete?')  # fmt: skip
            return
        number += 1
        place = f"item {number}, line {line}"
        try:
            row, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            yield (
                place,
                WorkbookError(
                    f"not valid JSON ({error.msg} at line {error.lineno + before}, column {error.colno}); "
                    "nothing after it can be read"
                ),
            )
            return
        except (ValueError, RecursionError) as error:
            yield place, WorkbookError(f"not usable JSON ({str(error).splitlines()[0]}); nothing after it can be read")  # fmt: skip
            return
        line += text.count("\n", at, end)
        at = end
        inner = None if array else _columns(row)
        if inner is not None:
            notes[-1] = "the file is one JSON object that holds the rows"
            for k, each in enumerate(inner, 1):
                yield f"item {k}", each if isinstance(each, dict) else _no_object(each)
        else:
            yield place, row if isinstance(row, dict) else _no_object(row)


def _columns(row: object) -> list | None:
    """Return the rows inside an object such as {"data": [rows]} or {"prompt": [...], ...}."""
    if not isinstance(row, dict) or not row:
        return None
    values = list(row.values())
    if len(row) == 1 and next(iter(row)) in ("data", "train", "rows", "examples", "instances"):
        return values[0] if isinstance(values[0], list) else None
    texts = all(isinstance(v, list) and all(isinstance(t, str) for t in v) for v in values)
    if len(row) > 1 and texts and len({len(v) for v in values}) == 1:
        return [dict(zip(row, each, strict=True)) for each in zip(*values, strict=True)]
    return None


def _table(path: Path, notes: list[str]) -> Iterator[Row]:
    """Yield the rows of a table, read by the datasets library without its cache."""
    import datasets  # takes a second to import

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # its errors are told below
    try:
        if path.is_dir():
            rows = datasets.load_from_disk(str(path))
            if isinstance(rows, dict):
                raise WorkbookError(
                    f"{path} holds several splits ({', '.join(rows)}); give the folder of one"
                )
        else:
            options = _csv_options(path, notes) if TABLES[path.suffix.lower()] == "csv" else {}
            rows = datasets.load_dataset(
                TABLES[path.suffix.lower()], data_files=str(path), split="train",
                streaming=True, **options,
            )  # fmt: skip
        for number, row in enumerate(rows, 1):
            yield f"row {number}", {name: _cell(name, value) for name, value in row.items()}
    except WorkbookError:
        raise
    except Exception as error:  # the readers raise many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorkbookError(
            f"{path} cannot be read as {'a dataset' if path.is_dir() else path.suffix[1:]} ({reason})"
        ) from None


def _csv_options(path: Path, notes: list[str]) -> dict:
    """Return options that keep every cell as it is written: a text, "NA" and "007" included."""
    import datasets

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = max(SEPARATORS, key=file.readline().count)
            file.seek(0)
            header = next(csv.reader(file, delimiter=separator), [])
    except UnicodeDecodeError:
        raise WorkbookError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except csv.Error as error:
        raise WorkbookError(f"{path} cannot be read as csv ({error})") from None
    if separator != ",":
        notes.append(f"columns are separated by {separator!r}")
    texts = datasets.Features({name: datasets.Value("string") for name in header})
    return {"sep": separator, "features": texts, "keep_default_na": False, "encoding": "utf-8-sig"}


def _cell(name: str, value: object) -> object:
    """Return a cell; a column of a table that holds JSON is parsed."""
    nested = name in ("messages", "conversations", "tools", "prompt", "completion")
    if nested and isinstance(value, str) and value[:2] in ("[{", "[ ", "[\n"):
        try:
            return _parsed(value)
        except ValueError:
            return value
    return value
