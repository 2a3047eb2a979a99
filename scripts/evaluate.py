"""Predicts ages with a trained model and writes predictions.tsv.

python scripts/evaluate.py --workdir=runs/quickstart --root=BIDS_FOLDER --output=predictions.tsv
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORKDIR = cli.workdir_flag("Folder of the run whose model is used.")
ROOT = flags.DEFINE_string("root", None, "BIDS folder, or CSV/TSV file, of the scans.", required=True)
SOURCE = flags.DEFINE_enum("source", "bids", ["bids", "table"], "What --root is.")
ROUND = flags.DEFINE_integer("round", None, "Checkpoint to use (default: the newest).")
ALIGN = flags.DEFINE_string("align", "", "affine, rough or register (default: as the run was trained).")
OUTPUT = flags.DEFINE_string("output", "", "Table to write (default: predictions-<folder>.tsv in the run).")


def main():
    from fedsparse_jax.core.files import write_whole
    from fedsparse_jax.runs.console import quality_line
    from fedsparse_jax.studies import evaluate_run

    cli.cache_compilations()
    workdir, root = Path(WORKDIR.value), ROOT.value
    scans = evaluate_run(workdir, SOURCE.value, root, ROUND.value, ALIGN.value, cli.show_progress)
    output = Path(OUTPUT.value or workdir / f"predictions-{Path(root).resolve().name}.tsv")
    write_whole(output, scans.table)
    if scans.trained_quality:
        print(f"People whom the model was trained on, no test: {quality_line(scans.trained_quality)}")
    if scans.quality:
        print(f"Other people: {quality_line(scans.quality)}" if scans.trained_quality else quality_line(scans.quality))
    else:
        print("Nobody else is left, so that this is no test; give scans of people whom the model was not trained on.")
    if scans.trained_on == "phantom":
        print("This model was trained on the phantom: it knows nothing about real brains.")
    print(f"Predictions: {output}")


if __name__ == "__main__":
    cli.run_main(main)
