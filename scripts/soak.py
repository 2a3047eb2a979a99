"""Kills training at random moments, goes on with the same command, and compares with a run that was never stopped.

python scripts/soak.py --workdir=runs/soak --kills=100

Several methods take turns, on their smallest forms: with checkpoints of one round and of many, and with messages that
owe what they lost. Prints a table, and ends with exit code 1 if a run ended otherwise.
"""

import sys
from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORKDIR = cli.workdir_flag("Folder for the runs; what earlier soaks left there is deleted.")
KILLS = flags.DEFINE_integer("kills", 100, "How many times to kill.")
SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
CASES = flags.DEFINE_list("cases", [], "Which methods take turns, of those in scripts/soak.py (default: all).")

COMMANDS = {
    "local": "fedsparsify_local.py:smoke --config.checkpoint.keep=1",
    "feddst": "feddst.py:digits+smoke --config.checkpoint.keep=1 --config.regrowth.end=6 --config.log.report=False",
    "int8": "fedsparsify_global.py:digits+smoke --config.checkpoint.keep=1 --config.participation=0.5"
    " --config.communication.mode=transmit --config.communication.dtype=int8 --config.communication.feedback=True"
    " --config.log.report=False",
    "fedadam": "fedadam.py:smoke --config.client.optimizer_state=kept",
    "lotteryfl": "lotteryfl.py:digits+smoke --config.checkpoint.every=2 --config.checkpoint.keep=2"
    " --config.log.report=False",
}


def command(words: str):
    """The command of a case, by the folder that it is played in."""
    first, *others = words.split()

    def in_folder(folder: Path) -> list[str]:
        places = [f"--workdir={folder / 'run'}", f"--config.data.cache_dir={folder / 'cache'}", "--config.rounds=8"]
        script = str(Path(__file__).with_name("train.py"))
        return [sys.executable, script, f"--config=configs/methods/{first}", *others, *places]

    return in_folder


def main():
    from fedsparse_jax.core.errors import UsageError
    from fedsparse_jax.studies.soak import soak, soak_table

    if unknown := set(CASES.value) - set(COMMANDS):
        raise UsageError(f"--cases names {', '.join(sorted(unknown))}; there are {', '.join(COMMANDS)}.")
    cases = {name: command(COMMANDS[name]) for name in CASES.value or COMMANDS}
    chains = soak(cases, Path(WORKDIR.value), kills=KILLS.value, seed=SEED.value)
    print(f"\n{soak_table(chains)}")
    if any(chain.differences for chain in chains):
        sys.exit(1)


if __name__ == "__main__":
    cli.run_main(main)
