"""Registers the raw scans of a BIDS folder twice and shows how many land on the template.

The measurement behind docs/results/registration.md.

python scripts/study_registration.py --root=BIDS_FOLDER --workers=2 --picture=registration.png
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

ROOT = flags.DEFINE_string("root", None, "BIDS folder with T1-weighted scans.", required=True)
WORKERS = flags.DEFINE_integer("workers", 1, "Scans at a time.", lower_bound=1)
PICTURE = flags.DEFINE_string("picture", "", "Where to write the picture (default: nowhere).")


def main():
    import time

    from fedsparse_jax.reporting.style import render_figure
    from fedsparse_jax.studies.judge_registration import judge_registration, landings_figure, landings_table

    begun = time.process_time()
    landings = judge_registration(Path(ROOT.value), WORKERS.value, cli.show_progress)
    print(landings_table(landings))
    seconds = (time.process_time() - begun) / (2 * len(landings))
    print(f"A registration took {seconds:.1f} s of one core.")
    if PICTURE.value:
        Path(PICTURE.value).write_bytes(render_figure(landings_figure(landings), "png", dpi=110))
        print(f"Picture: {PICTURE.value}")


if __name__ == "__main__":
    cli.run_main(main)
