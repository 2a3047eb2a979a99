"""Files that are whole or not there, and tables of tab-separated values.

Stands at the bottom of the house because the data, the communication and the run folder all write files.
"""

import contextlib
import csv
import fcntl
import io
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from fedsparse_jax.core.errors import UsageError


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


def tsv_text(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    r"""A table of tab-separated values; an empty cell is ``n/a``, as in BIDS.

    >>> tsv_text(["id", "site"], [["sub-1", ""]])
    'id\tsite\nsub-1\tn/a\n'
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter="\t", lineterminator="\n")
    writer.writerow(head)
    writer.writerows([[str(cell).replace("\r", " ") or "n/a" for cell in row] for row in rows])
    return buffer.getvalue()


def write_tsv(path: Path, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes such a table, whole."""
    write_whole(path, tsv_text(head, rows))


def read_tsv(path: Path) -> list[dict[str, str]]:
    """The rows of such a table, as text by column; empty where there is no such file."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))
