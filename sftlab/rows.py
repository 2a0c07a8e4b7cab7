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
TABLES = {".parquet": "parquet", ".arrow": "arrow"}
SPLITS = {"train", "test", "validation", "valid", "val", "dev", "eval"}
TEXT_TABLES = (".csv", ".tsv")
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
            yield from _table(path)
        else:
            yield from _text(path, notes)
    except WorkbookError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
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
    with opened(path, "rb") as file:  # type: ignore[operator]
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
        if first.startswith(b"version https://git-lfs"):
            raise WorkbookError(
                f"{path} is a pointer of Git LFS; fetch the file with  git lfs pull"
            )
        if set(TEXT_TABLES) & {suffix.lower() for suffix in path.suffixes[-2:]}:
            decoded = _decoded(path, chain([first], lines))
            yield from _csv(path, decoded, notes)
            return
        if b"\r" in first.strip() and not first.endswith(b"\n"):  # line ends of an old Mac
            lines = iter(first.replace(b"\r", b"\n").splitlines(keepends=True))
            first = next(lines, b"")
        blank = 0
        while first and not first.strip():
            first, blank = next(lines, b""), blank + 1
        if _begins_a_document(first):
            raw = first + b"".join(lines)
            if _is_document(raw):
                yield from _document(path, raw, blank, notes)
                return
            first, lines = b"", iter(raw.splitlines(keepends=True))
            blank -= 1  # the line number of the empty first line
        yield from _lines(chain([first], lines), blank)


def _decoded(path: Path, lines: Iterator[bytes]) -> Iterator[str]:
    try:
        yield from (line.decode("utf-8") for line in lines)
    except UnicodeDecodeError:
        raise WorkbookError(f"{path} is not UTF-8 text; save it as UTF-8") from None


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
    hint = '; write {"messages": [...]}' if isinstance(row, list) else ""
    return WorkbookError(f"expected a JSON object {EXAMPLE}, found {type(row).__name__}{hint}")


def no_key_twice(pairs: Sequence[tuple[str, object]]) -> dict:
    """Return a JSON object; raise ValueError if a key occurs twice. For ``object_pairs_hook``."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{twice}" occurs twice; JSON keeps only the last')
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=no_key_twice)
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


def _is_document(raw: bytes) -> bool:
    """Return whether the text is one value, or begins with one over several lines."""
    text = raw.decode("utf-8", "replace").strip()
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):  # a damaged array, or a damaged row before others
        return text.startswith("[")
    return end == len(text) or "\n" in text[:end]


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
    lists = [
        n
        for n, v in row.items()
        if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)
    ]
    if len(lists) > 1 and set(row) <= SPLITS:
        raise WorkbookError(
            f"it holds several splits ({', '.join(lists)}); save one of them to a file"
        )
    if len(lists) == 1 and lists[0] in ("data", "train", "rows", "examples", "instances"):
        return row[lists[0]]
    texts = all(isinstance(v, list) and all(isinstance(t, str) for t in v) for v in values)
    if len(row) > 1 and texts and len({len(v) for v in values}) == 1:
        return [dict(zip(row, each, strict=True)) for each in zip(*values, strict=True)]
    return None


def _table(path: Path) -> Iterator[Row]:
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
            kind = TABLES[path.suffix.lower()]
            rows = datasets.load_dataset(kind, data_files=str(path), split="train", streaming=True)
        for number, row in enumerate(rows, 1):
            yield f"row {number}", {name: _cell(name, value) for name, value in row.items()}
    except WorkbookError:
        raise
    except Exception as error:  # the readers raise many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WorkbookError(
            f"{path} cannot be read as {'a dataset' if path.is_dir() else path.suffix[1:]} ({reason})"
        ) from None


def _csv(path: Path, lines: Iterator[str], notes: list[str]) -> Iterator[Row]:
    """Yield the rows of a table in text; every cell is kept as it is written, "NA" and "007" too."""
    csv.field_size_limit(2**31 - 1)
    first = next(lines, "")
    separator = max(SEPARATORS, key=first.count)
    if separator != ",":
        notes.append(f"columns are separated by {separator!r}")
    reader = csv.reader(chain([first], lines), delimiter=separator, strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"line {reader.line_num}", WorkbookError(f"not valid CSV ({error}); quotes inside a text are doubled")  # fmt: skip
            continue
        if header is None:
            header = [
                name.strip() or f"column {k} (without a name)" for k, name in enumerate(cells, 1)
            ]
            if twice := [name for name in header if header.count(name) > 1]:
                raise WorkbookError(f'{path}: the column "{twice[0]}" occurs twice; rename one')
        elif len(cells) == len(header):
            pairs = zip(header, cells, strict=True)
            yield f"line {reader.line_num}", {name: _cell(name, text) for name, text in pairs}
        elif cells:
            yield (
                f"line {reader.line_num}",
                WorkbookError(
                    f"{len(cells)} cells, but the header has {len(header)}; is a text with {separator!r} not in quotes?"
                ),
            )


def _cell(name: str, value: object) -> object:
    """Return a cell; a column of a table that holds JSON is parsed."""
    nested = name in ("messages", "conversations", "tools", "prompt", "completion")
    if nested and isinstance(value, str) and value[:2] in ("[{", "[ ", "[\n"):
        try:
            return _parsed(value)
        except ValueError:
            return value
    return value
