"""Reads the scans of a config, shows what was accepted, what was dropped and why, and draws a contact sheet.

python scripts/prepare.py --config=configs/real_scans.py --config.data.root=BIDS_FOLDER --output=prepared

Training with the same config then finds the scans in the cache.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

CONFIG = cli.config_flag()
OUTPUT = flags.DEFINE_string("output", "prepared", "Folder for the tables and the picture.")


def main():
    import numpy as np

    from fedsparse_jax.config import read_scans
    from fedsparse_jax.core.errors import UsageError
    from fedsparse_jax.data.scan_cache import ScanSet, summarize_scans, write_tables
    from fedsparse_jax.data.tables import NothingLeft
    from fedsparse_jax.reporting.plots_scans import contact_sheet
    from fedsparse_jax.reporting.style import render_figure

    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    sheet_file = output / "contact_sheet.png"
    try:
        scan_set = read_scans(CONFIG.value, cli.show_progress)
    except NothingLeft as error:
        write_tables(ScanSet(np.zeros(0), (), (), error.dropped, ()), output)
        sheet_file.unlink(missing_ok=True)  # it showed other scans
        raise UsageError(f"{str(error).rstrip('.')}; all are listed in {output / 'dropped.tsv'}.") from error
    print(summarize_scans(scan_set))
    write_tables(scan_set, output)
    titles = [f"{scan.participant}, {scan.age:.0f} y" for scan in scan_set.scans]
    sheet = contact_sheet(scan_set.volumes, titles)
    sheet_file.write_bytes(render_figure(sheet, "png"))
    print(f"Tables and contact sheet: {output}")


if __name__ == "__main__":
    cli.run_main(main)
