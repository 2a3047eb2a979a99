"""Does a run that is killed end as one that was never stopped? Kills it at random moments, and compares.

A chain is one run: killed with SIGKILL, begun again with the same command, killed again, until it ends. What it left is
compared with the twin, an uninterrupted run of the same command in another folder.
"""

import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from fedsparse_jax.config.saved_runs import load_run
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_json
from fedsparse_jax.reporting.markdown import markdown_table
from fedsparse_jax.runs import run_dir
from fedsparse_jax.runs.checkpoint import digest_of_arrays
from fedsparse_jax.runs.metrics_log import METRICS, read_records

MOMENTS = (
    "starting",
    "reading scans, building the cache",
    "preparing and compiling",
    "training",
    "saving",
    "cleaning up old checkpoints",
    "predicting, writing the report",
    "leaving",
)
LEFT_BEHIND = (".partial", "-tmp")  # in names that may not remain when a run has ended
IN_A_ROW = 4  # kills of one run; then it may end

Command = Callable[[Path], Sequence[str]]  # by a folder of its own: "run" in it is the workdir, "cache" the scans'
Contents = Mapping[str, bytes]  # what a run left, by name


class Kill(NamedTuple):
    """One kill."""

    case: str
    seconds: float  # after the command was given
    phase: str


class Chain(NamedTuple):
    """One run that was killed, and went on, until it ended."""

    case: str
    kills: tuple[Kill, ...]
    differences: tuple[str, ...]  # names of what is not as in the uninterrupted run


def soak(
    cases: Mapping[str, Command],
    folder: Path,
    *,
    kills: int = 100,
    seed: int = 0,
    contents: Callable[[Path], Contents] | None = None,
    print_fn: Callable[[str], None] = print,
) -> list[Chain]:
    """Kills runs until there were ``kills`` kills; the cases take turns.

    Args:
        cases: commands by name; each is run in folders of its own under ``folder``.
        folder: is emptied of earlier soaks of these cases.
        kills: how many.
        seed: of the moments, which are uniform over the time that the newest uninterrupted run took.
        contents: what is compared, by the workdir; default `run_contents`.
        print_fn: told of every chain.
    """
    contents, rng = contents or run_contents, np.random.default_rng(seed)
    chains: list[Chain] = []
    twins: dict[str, tuple[float, Contents]] = {}
    for name, command in cases.items():
        (_, first), twins[name] = (_play_whole(command, folder / name / twin, contents) for twin in ("first", "twin"))
        if differ := differences(first, twins[name][1]):
            raise UsageError(
                f"{name} gives two results when it is not interrupted: {', '.join(differ)}; mend that first."
            )
        print_fn(f"{name}: {twins[name][0]:.1f} s when it is not interrupted")
    for name in itertools.cycle(cases):
        done = sum(len(chain.kills) for chain in chains)
        if done >= kills:
            return chains
        length, expected = twins[name]
        moments = rng.uniform(0, length, min(IN_A_ROW, kills - done))
        began = time.monotonic()
        chains.append(_play_chain(name, cases[name], _fresh(folder / name / "killed"), moments, expected, contents))
        if not chains[-1].kills:  # it had ended by then: the machine is less busy now
            twins[name] = min(length, time.monotonic() - began), expected
        verdict = ", ".join(chains[-1].differences) or "the same run"
        fell = "; ".join(f"{kill.phase} ({kill.seconds:.1f} s)" for kill in chains[-1].kills)
        print_fn(f"{name}: killed while {fell or 'nothing'}: {verdict}")
    return chains


def _play_whole(command: Command, own: Path, contents) -> tuple[float, Contents]:
    """Seconds and contents of an uninterrupted run; the first one also compiles."""
    began, code = time.monotonic(), _start(command(_fresh(own)), own, None)
    if code != 0:
        raise UsageError(f"{own} ended with exit code {code} when it was not interrupted; see {own / 'said.txt'}.")
    return time.monotonic() - began, contents(own / "run")


def _play_chain(name, command: Command, own: Path, moments, expected: Contents, contents) -> Chain:
    kills: list[Kill] = []
    code = None
    for moment in moments:
        began = time.time()
        code = _start(command(own), own, moment)
        if code is not None:
            break
        kills.append(Kill(name, float(moment), phase(own, began)))
    if code is None:
        code = _start(command(own), own, None)
    if code != 0:
        return Chain(name, tuple(kills), (f"exit code {code}: {(own / 'said.txt').read_text()[-500:]}",))
    return Chain(name, tuple(kills), tuple(differences(expected, contents(own / "run"))))


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _start(command: Sequence[str], own: Path, kill_after: float | None) -> int | None:
    """The exit code; None if it was killed."""
    with open(own / "said.txt", "w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        try:
            return process.wait(kill_after)
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()
            process.wait()


def phase(own: Path, since: float = 0.0) -> str:
    """What a killed process was doing, by what it had printed last and what it changed in its folders ``since``."""
    said, workdir = (own / "said.txt").read_text(), own / "run"
    rounds = re.findall(r"^round +(\d+)/(\d+)", said, re.MULTILINE) or [("0", "1")]
    new = lambda folder, pattern: [path for path in folder.rglob(pattern) if path.stat().st_mtime >= since]
    checkpoints = [path for path in new(workdir / "checkpoints", "*") if path.parent.name == "checkpoints"]
    if "Report:" in said:
        return "leaving"
    if any("tmp" in path.name for path in checkpoints):
        return "saving"
    if rounds[-1][0] == rounds[-1][1]:
        return "predicting, writing the report"
    if any(not (path / "commit_success.txt").exists() and path.is_dir() for path in checkpoints):
        return "cleaning up old checkpoints"
    if rounds[-1][0] != "0":
        return "training"
    if new(own / "cache", "*.partial") or re.search(r"scans: (\d+)/(?!\1\n)\d+\s*\Z", said):
        return "reading scans, building the cache"
    return "preparing and compiling" if said or new(workdir, "config.json") else "starting"


def run_contents(workdir: Path) -> Contents:
    """What a finished run left: its newest state, its records, log, predictions and report, without times."""
    _, _, server = load_run(workdir)
    leaves = jax.tree_util.tree_leaves_with_path(server)
    found = {f"state{jax.tree_util.keystr(path)}": digest_of_arrays([leaf]).encode() for path, leaf in leaves}
    newest = run_dir.client_records(workdir) / f"{int(server.round)}.npz"
    if newest.exists():
        with np.load(newest) as stored:
            found |= {f"{newest.parent.name}/{name}": digest_of_arrays([stored[name]]).encode() for name in stored}
    for record in read_records(workdir):
        line = record.to_json()
        found[f"{METRICS}, round {line['round']}"] = repr({**line, "seconds": 0}).encode()
    for name in ("predictions.tsv", "people.tsv", "federation.json"):
        found[name] = (workdir / name).read_bytes()
    found["environment.json"] = repr(sorted(read_json(workdir / "environment.json"))).encode()
    if (workdir / "report.html").exists():
        report = (workdir / "report.html").read_text(encoding="utf-8").replace(str(workdir.parent), "")
        found["report.html"] = _without_times(report).encode()
    rest = [path for path in workdir.parent.rglob("*") if any(part in path.name for part in LEFT_BEHIND)]
    return found | {f"left behind: {path.relative_to(workdir.parent)}": b"" for path in rest}


def differences(one: Contents, other: Contents) -> list[str]:
    """The names of what is not the same, or not in both."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def soak_table(chains: Sequence[Chain]) -> str:
    """Kills by case and phase, and how many of the runs ended as the uninterrupted one."""
    cases = list(dict.fromkeys(chain.case for chain in chains))
    kills = [kill for chain in chains for kill in chain.kills]
    of = lambda case: [kill.phase for kill in kills if case in (kill.case, "all")]
    rows = [[f"killed while {one}", *(of(case).count(one) for case in [*cases, "all"])] for one in MOMENTS]
    rows.append(["kills", *(len(of(case)) for case in [*cases, "all"])])
    verdicts = lambda case: [not chain.differences for chain in chains if case in (chain.case, "all")]
    rows.append(["the same run in the end", *(f"{sum(v)} of {len(v)}" for v in map(verdicts, [*cases, "all"]))])
    return markdown_table(["", *cases, "all"], [[str(cell) for cell in row] for row in rows])


def _without_times(report: str) -> str:
    """The report's HTML without the seconds of the rounds, their sum, and the date."""
    report = re.sub(r"<small>[^<]* in all</small>", "", report)
    report = re.sub(r"<td>started</td><td>[^<]*</td>", "", report)
    return re.sub(r"(?m)^(<tr>(?:<td>[^<]*</td>){8,})<td>[\d.]+</td></tr>$", r"\1</tr>", report)
