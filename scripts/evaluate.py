"""Judges a trained model on other scans whose ages, or labels, are known; writes predictions.tsv.

python scripts/evaluate.py --workdir=runs/quickstart --root=BIDS_FOLDER --output=predictions.tsv

Scans are read as those of the run were: the same source, alignment, columns and other options, where they fit. Any of
them is set anew by its name in the config: --data.source=table, --data.align=rough, --data.options.age_col=COLUMN.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORKDIR = cli.workdir_flag("Folder of the run whose model is used.")
ROOT = flags.DEFINE_string("root", None, "BIDS folder, or CSV/TSV/Excel file, of the scans.", required=True)
SOURCE = flags.DEFINE_string("source", "", "What --root is, bids or table (default: as the run, where that fits).")
WHICH = flags.DEFINE_string("which", "last", "Model to use: best (on validation), last, or the number of a round.")
ALIGN = flags.DEFINE_string("align", "", "affine, rough or register (default: as the run was trained).")
OUTPUT = flags.DEFINE_string("output", "", "Table to write (default: predictions-<folder>.tsv in the run).")
cli.keys_flag("KEY=VALUE of the run's config, section data; --data.KEY=VALUE is the same, and so is --options.KEY.")


def show_more(scans) -> None:
    """Prints the error without the age bias, by site, and the score of the OpenBHB challenge."""
    from fedsparse_jax.runs.console import measures_line, sites_line

    if scans.age_bias:
        told = measures_line(scans.quality["corrected"], scans.task)
        print(
            f"Corrected for the age bias, learned on {scans.age_bias.scans} scans of the validation, by true ages and "
            f"so no accuracy: {told}"
        )
    elif scans.task.of_age and scans.task.lower_is_better:
        print(f"Not corrected for the age bias, as {scans.uncorrected}.")
    if scans.sites:
        print(f"By site: {sites_line(scans.sites, scans.task)}")
    if scans.challenge:
        parts = scans.challenge
        print(
            f"Score of the OpenBHB challenge: {parts.score:.3f} y (MAE {parts.external_mae:.2f} y on {parts.external} "
            f"scans of other sites; {parts.sites} sites are named with a balanced accuracy of "
            f"{parts.site_accuracy:.3f} on {parts.internal} scans)"
        )


def main():
    from fedsparse_jax.config import chosen_round
    from fedsparse_jax.core.errors import UsageError
    from fedsparse_jax.core.files import write_tsv, write_whole
    from fedsparse_jax.data.tables import Drop, NothingLeft, count_reasons
    from fedsparse_jax.runs.console import quality_line
    from fedsparse_jax.studies import evaluate_run

    cli.cache_compilations()
    workdir, root = Path(WORKDIR.value), ROOT.value
    short = [(f"data.{flag.name}", flag.value) for flag in (SOURCE, ALIGN) if flag.value]
    output = Path(OUTPUT.value or workdir / f"predictions-{Path(root).resolve().name}.tsv")
    left_out = output.with_name(f"{output.stem}-dropped.tsv")
    round_ = chosen_round(workdir, WHICH.value)
    try:
        scans = evaluate_run(workdir, root, [*short, *cli.settings()], round_, cli.show_progress)
    except NothingLeft as error:
        write_tsv(left_out, Drop._fields, error.dropped)
        raise UsageError(f"{str(error).rstrip('.')}; all are listed in {left_out}.") from error
    write_whole(output, scans.table)
    write_tsv(left_out, Drop._fields, scans.dropped)
    print(f"Read as the run's own scans, where nothing else was said: {scans.read_as}.")
    if scans.dropped:
        print(f"Left out: {len(scans.dropped)} ({count_reasons(scans.dropped)}); see {left_out}.")
    for remark in scans.remarks:
        print(f"Look at: {remark}")
    if scans.trained_quality:
        print(f"People whom the model was trained on, no test: {quality_line(scans.trained_quality, scans.task)}")
    if scans.validation_quality:
        told = quality_line(scans.validation_quality, scans.task)
        print(f"People of the validation, by whom the best model is chosen, no test: {told}")
    if scans.quality:
        of_whom = "Other people: " if scans.trained_quality or scans.validation_quality else ""
        print(of_whom + quality_line(scans.quality, scans.task))
        print("In brackets: 95 % intervals of a bootstrap over people.")
        for name, quality in scans.by_test_set.items():
            print(f"Of them the test set {name}: {quality_line(quality, scans.task)}")
        show_more(scans)
    else:
        print("Nobody else is left, so that this is no test; give scans of people whom the model was not trained on.")
    if scans.trained_on == "phantom":
        print("This model was trained on the phantom: it knows nothing about real brains.")
    print(f"Predictions: {output}")


if __name__ == "__main__":
    cli.run_main(main)
