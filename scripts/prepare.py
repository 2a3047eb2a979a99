"""Reads the scans of a config and shows what was accepted, what was dropped and why, as tables, pictures and a page.

python scripts/prepare.py --config=configs/real_scans.py --config.data.root=BIDS_FOLDER --output=prepared

Training with the same config then finds the scans in the cache.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

CONFIG = cli.config_flag()
OUTPUT = flags.DEFINE_string("output", "prepared", "Folder for the tables, the picture and the page.")


def main():
    import numpy as np

    from fedsparse_jax.config import read_scans
    from fedsparse_jax.config.build import federation_from_config
    from fedsparse_jax.config.scans import label_from_config
    from fedsparse_jax.core.errors import UsageError
    from fedsparse_jax.data.scan_cache import ScanSet, summarize_scans, write_tables
    from fedsparse_jax.data.scan_quality import find_doubts
    from fedsparse_jax.data.tables import NothingLeft
    from fedsparse_jax.reporting.cohort_page import (
        COHORT_PAGE,
        Sharing,
        cohort_sheets,
        describe_classes,
        write_cohort_page,
    )
    from fedsparse_jax.reporting.plots_scans import MAX_SCANS
    from fedsparse_jax.reporting.style import render_figure

    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    sheet_file = output / "contact_sheet.png"
    try:
        scan_set = read_scans(CONFIG.value, cli.show_progress)
    except NothingLeft as error:
        write_tables(ScanSet(np.zeros(0), (), (), error.dropped, ()), output)
        for file in (sheet_file, output / COHORT_PAGE):
            file.unlink(missing_ok=True)  # it showed other scans
        raise UsageError(f"{str(error).rstrip('.')}; all are listed in {output / 'dropped.tsv'}.") from error
    print(summarize_scans(scan_set))
    write_tables(scan_set, output)
    sharing = Sharing(CONFIG.value.partition.name, None, label=label_from_config(CONFIG.value))
    try:
        sharing = sharing._replace(federation=federation_from_config(CONFIG.value, scan_set=scan_set)[0])
    except UsageError as error:
        sharing = sharing._replace(problem=str(error))
        print(f"not divided: {error}")
    for line in describe_classes(scan_set, sharing):
        print(line)
    sheet = next(cohort_sheets(scan_set, find_doubts(scan_set.quality), MAX_SCANS))
    sheet_file.write_bytes(render_figure(sheet, "png"))
    write_cohort_page(output / COHORT_PAGE, scan_set, sharing)
    print(f"Tables and contact sheet: {output}")
    print(f"Page: {output / COHORT_PAGE}")


if __name__ == "__main__":
    cli.run_main(main)
