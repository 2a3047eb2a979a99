"""What does each aggregation rule bear of clients who lie? Trains all cells and prints tables; resumable.

python scripts/study_poison.py --workdir=runs/poison

One to three of eight clients lie in six ways, against eight rules, at 0 and 95 % sparsity, on the digits (extra
"test"). Writes cells.jsonl and study.md into the folder; the same command again goes on where it stopped.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORKDIR = cli.workdir_flag("Folder of the study.")
PERCENTS = flags.DEFINE_list("sparsities", ["0", "95"], "In percent.")
LIARS = flags.DEFINE_list("liars", ["1", "2", "3"], "Numbers of clients who lie.")
SEEDS = flags.DEFINE_list("seeds", ["1", "2", "3"], "Seeds.")
RULES = flags.DEFINE_list("rules", [], "Some of the rules, by their numbers from 1; none for all.")
FORM = flags.DEFINE_string("form", "", "A further form of the configs, such as smoke.")


def main():
    from fedsparse_jax.studies import poisoned_training as study

    cli.cache_compilations()
    numbers = lambda flag: [int(text) for text in flag.value]
    names = list(study.RULES)
    rules = [names[number - 1] for number in numbers(RULES)] or names
    cells = study.all_cells(numbers(PERCENTS), numbers(LIARS), numbers(SEEDS), rules)
    results = study.run_cells(cells, Path(WORKDIR.value), FORM.value, cli.show_progress)
    print(study.write_poison_tables(results, Path(WORKDIR.value)))


if __name__ == "__main__":
    cli.run_main(main)
