"""The results of a study's runs in one file, so that they outlive the run folders and can be passed on.

``runs.jsonl.gz`` has one line a run: the labels of its cell, its seed and config, the versions and the machine, its log
and its measures. A study that is given such a file takes from it the runs whose configs are the same, and trains the
others.
"""

import gzip
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedsparse_jax.config.defaults import defaults
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import write_whole
from fedsparse_jax.runs.records import RoundRecord
from fedsparse_jax.runs.run_dir import differing_keys
from fedsparse_jax.studies.grid import Run, Study, config_of_run

KEPT = "runs.jsonl.gz"
ONLY_OF_THE_LAST = ("clients", "sites", "age_bias", "bytes_up", "bytes_down", "cohort", "dead_channels")


def write_kept(path: Path, runs: Sequence[Run]) -> None:
    """Writes finished runs; the same runs give the same bytes."""
    lines = "".join(json.dumps(_line(run)) + "\n" for run in runs)
    write_whole(path, gzip.compress(lines.encode(), mtime=0))


def _line(run: Run) -> dict[str, Any]:
    """A run as an object; long fields are left out of all its rounds but the last."""
    *earlier, last = (record.to_json() for record in run.records)
    shortened = [{key: value for key, value in entry.items() if key not in ONLY_OF_THE_LAST} for entry in earlier]
    return {
        "labels": dict(run.cell.labels),
        "seed": run.seed,
        "config": dict(run.config),
        "environment": dict(run.environment),
        "measures": dict(run.measures),
        "records": [*shortened, last],
    }


def read_kept(path: Path, study: Study) -> list[Run]:
    """The runs of a study that a file of `write_kept` holds, with all the measures that the study asks for.

    A run counts if no key that decides its numbers is another in the study's config; its labels may be others.

    Raises:
        UsageError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path} of known runs; leave --known away, or name a {KEPT} of a study.")
    try:
        lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
        kept = [(line, [RoundRecord.from_json(entry) for entry in line["records"]]) for line in lines]
    except (OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path} is damaged ({error}); put a sound copy in its place, or leave --known away."
        ) from error
    standard, runs = defaults().to_dict(), list[Run]()
    by_seed: dict[int, list[tuple[dict[str, Any], list[RoundRecord]]]] = {}
    for line, records in kept:
        if line["measures"].keys() >= set(study.measures):
            by_seed.setdefault(line["seed"], []).append((line, records))
    for cell in study.cells:
        for seed in cell.seeds:
            try:
                config = config_of_run(cell, seed).to_dict()
            except UsageError:
                continue  # the cell fails by itself
            same = (
                Run(cell, seed, path.parent, records, "", line["measures"], line["environment"], line["config"])
                for line, records in by_seed.get(seed, [])
                if not differing_keys(config, line["config"], standard)
            )
            runs += itertools.islice(same, 1)
    return runs
