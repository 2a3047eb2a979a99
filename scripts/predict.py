"""Predicts for scans of people of whom nothing need be known, and warns where a prediction should not be trusted.

python scripts/predict.py --workdir=runs/quickstart NEW_SCANS --output=predicted.tsv

Behind the flags stand image files, folders and tables of paths. Scans are read as those of the run were. Any option is
set anew by its name in the config: --data.align=rough.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORKDIR = cli.workdir_flag("Folder of the run whose model is used.")
WHICH = flags.DEFINE_string("which", "last", "Model to use: best (on validation), last, or the number of a round.")
OUTPUT = flags.DEFINE_string("output", "", "Table to write (default: predicted.tsv in the run).")
cli.keys_flag("KEY=VALUE of the run's config, section data; --data.KEY=VALUE is the same, and so is --options.KEY.")
PLACES = cli.places("image files, folders of them, or tables of paths")


def main():
    from fedsparse_jax.config import chosen_round
    from fedsparse_jax.core.errors import UsageError
    from fedsparse_jax.core.files import write_tsv, write_whole
    from fedsparse_jax.data.tables import Drop, NothingLeft, count_reasons
    from fedsparse_jax.studies import predict_scans

    cli.cache_compilations()
    workdir = Path(WORKDIR.value)
    output = Path(OUTPUT.value or workdir / "predicted.tsv")
    left_out = output.with_name(f"{output.stem}-dropped.tsv")
    round_ = chosen_round(workdir, WHICH.value)
    try:
        found = predict_scans(workdir, PLACES(), cli.settings(), round_, cli.show_progress)
    except NothingLeft as error:
        write_tsv(left_out, Drop._fields, error.dropped)
        raise UsageError(f"{str(error).rstrip('.')}; all are listed in {left_out}.") from error
    write_whole(output, found.table)
    if found.dropped:
        write_tsv(left_out, Drop._fields, found.dropped)
        print(f"Left out: {len(found.dropped)} ({count_reasons(found.dropped)}); see {left_out}.")
    for note in found.notes:
        print(f"Look at: {note}.")
    if found.trained_on == "phantom":
        print("This model was trained on the phantom: it knows nothing about real brains.")
    scans = "1 scan" if found.scans == 1 else f"{found.scans} scans"
    print(f"Predictions for {scans}, {found.warned} with a warning: {output}")


if __name__ == "__main__":
    cli.run_main(main)
