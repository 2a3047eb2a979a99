"""Files that are whole or not there, and tables of tab-separated values.

Stands at the bottom of the house because the data, the communication and the run folder all write files.
"""

import contextlib
import csv
import fcntl
import io
import json
import math
import os
import re
import secrets
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from fedsparse_jax.core.errors import UsageError

MAX_INFLATION = 1032  # bytes that one byte of DEFLATE can stand for at most


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a whole file or nothing: under another name first, then moved into place."""
    with partial_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """An empty file beside ``path``, to be filled in the block: moved there at its end, gone if the block fails.

    It is locked, so that `forget_partial` can tell it from what a killed process left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            _try_lock(file)
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def forget_partial(folder: Path) -> None:
    """Deletes the files that killed processes began in a folder, and none that is being written."""
    for partial in folder.glob(f".*.{'[0-9a-f]' * 8}.partial*"):
        with contextlib.suppress(OSError), open(partial, "rb") as file:  # gone, or of somebody else
            if _try_lock(file):
                partial.unlink()


def _try_lock(file: IO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:  # another process holds it, or the file system has no locks
        return False


def write_json(path: Path, value: Any, indent: int = 1) -> None:
    """Writes a JSON file; what JSON does not know is written as text."""
    write_whole(path, json.dumps(value, indent=indent, default=str) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        UsageError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise UsageError(f"{path} is damaged ({error}); put a sound copy in its place.") from error


def refuse_file(folder: Path) -> None:
    """Refuses a file where a folder is needed.

    Raises:
        UsageError: there is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, and a folder is needed there; move it away, or choose another folder.")


@contextlib.contextmanager
def lock(path: Path, who: str) -> Iterator[None]:
    """Holds a file for this process alone; a process that dies, however it does, holds nothing any more.

    Args:
        path: made if missing, and left behind empty.
        who: for the sentence, such as ``"Another process trains in runs/a"``.

    Raises:
        UsageError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{who}; wait for it to end, or stop it.") from error
        yield


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """What `read_npz` reads: a file of `numpy.savez`, as bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file of `numpy.savez`, by name; nothing is unpickled, and no more is read than the file holds.

    Raises:
        FileNotFoundError: there is no such file.
        UsageError: it is damaged, compressed, or announces more than it holds.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("it is compressed")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError("it announces more than it holds")
            return {member.filename.removesuffix(".npy"): _array_of(file.read(member)) for member in members}
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is damaged ({error}); put a sound copy in its place.") from error


def _array_of(content: bytes) -> np.ndarray:
    """What a ``.npy`` file holds whose header was not believed before it was compared with its length."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array in it is of another version")
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError("an array in it does not have its length")
    flat = np.frombuffer(content, dtype, offset=stream.tell()) if math.prod(shape) else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if in_columns else "C").copy()


FORMULA = re.compile(r"'*\s*[=+\-@].", re.DOTALL)  # how a cell begins that a spreadsheet would compute


def _without_formula(text: str) -> str:
    """A cell as a spreadsheet shows and does not compute it: an apostrophe before what is no number."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if FORMULA.match(text) else text
    return text


def _with_formula(text: Any) -> Any:
    """Takes that apostrophe away again."""
    return text[1:] if isinstance(text, str) and text.startswith("'") and FORMULA.match(text) else text


def tsv_text(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    r"""A table of tab-separated values; an empty cell is ``n/a``, as in BIDS.

    Text that a spreadsheet would take for a formula gets an apostrophe before it, which `read_tsv` takes away.

    >>> tsv_text(["id", "site"], [["sub-1", ""], ["sub-2", "=1+1"], ["sub-3", "-1"]])
    "id\tsite\nsub-1\tn/a\nsub-2\t'=1+1\nsub-3\t-1\n"
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(head)
    writer.writerows([[_cell(cell) for cell in row] for row in rows])
    return buffer.getvalue()


def _cell(value: Any) -> str:
    """A cell as UTF-8 can hold it; bytes of a file's name that are no UTF-8 are written as escapes."""
    text = str(value).replace("\r", " ").encode("utf-8", "backslashreplace").decode()
    return _without_formula(text) or "n/a"


def write_tsv(path: Path, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes such a table, whole."""
    write_whole(path, tsv_text(head, rows))


def read_tsv(path: Path) -> list[dict[str, str]]:
    """The rows of such a table, as text by column; empty where there is no such file."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return [{name: _with_formula(cell) for name, cell in row.items()} for row in rows]
