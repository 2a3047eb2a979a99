"""``metrics.jsonl``, one line a round, and the same numbers for TensorBoard."""

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from fedsparse_jax.core.files import write_whole
from fedsparse_jax.runs.records import RoundRecord

METRICS = "metrics.jsonl"


def append_record(workdir: Path, record: RoundRecord) -> None:
    """Adds one round to ``metrics.jsonl``."""
    with open(workdir / METRICS, "a", encoding="utf-8") as file:
        file.write(_line(record))


def read_records(workdir: Path) -> list[RoundRecord]:
    """All rounds of ``metrics.jsonl``, oldest first, up to the first line that was cut off or damaged."""
    path = workdir / METRICS
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            records.append(RoundRecord.from_json(json.loads(line)))
        except (ValueError, TypeError, AttributeError, KeyError):
            break
    return records


def restore_records(workdir: Path, lines: list[dict], print_fn: Callable[[str], None]) -> list[RoundRecord]:
    """Makes the log what its checkpoint says it was, and says so where it had been something else."""
    path, records = workdir / METRICS, [RoundRecord.from_json(line) for line in lines]
    expected = "".join(map(_line, records))
    found = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    if not found.startswith(expected):  # rounds behind the checkpoint are played again
        print_fn(
            f"{path} had lost rounds or was damaged; it is written anew from the checkpoint of round {len(lines)}."
        )
    write_whole(path, expected)
    return records


def truncate_records(workdir: Path, last_round: int) -> list[RoundRecord]:
    """Drops what was logged after ``last_round``, the round of the checkpoint; returns what stays."""
    kept = [record for record in read_records(workdir) if record.round <= last_round]
    write_whole(workdir / METRICS, "".join(map(_line, kept)))
    return kept


def _line(record: RoundRecord) -> str:
    return json.dumps(record.to_json()) + "\n"


@contextlib.contextmanager
def tensorboard(workdir: Path, records: list[RoundRecord]) -> Iterator[Callable[[RoundRecord], None]]:
    """A function that adds a round to ``workdir/tensorboard``; starts by writing the rounds there are, anew."""
    from tensorboardX import SummaryWriter

    shutil.rmtree(workdir / "tensorboard", ignore_errors=True)
    with SummaryWriter(str(workdir / "tensorboard")) as writer:

        def add(record: RoundRecord) -> None:
            for name, value in scalars(record.to_json()).items():
                writer.add_scalar(name, value, record.round)
            writer.flush()

        for record in records:
            add(record)
        yield add


def scalars(entry: dict, prefix: str = "") -> dict[str, float]:
    """The finite numbers of a record's line, nested ones as ``outer/inner``.

    >>> scalars({"round": 3, "density": {"conv": 0.5}, "cohort": [1]})
    {'round': 3, 'density/conv': 0.5}
    """
    flat: dict[str, float] = {}
    for name, value in entry.items():
        if isinstance(value, dict):
            flat.update(scalars(value, f"{prefix}{name}/"))
        elif isinstance(value, (int, float)) and math.isfinite(value):
            flat[prefix + name] = value
    return flat
