"""Reads the scans of a config, shows what was accepted, what was dropped and why, and draws a contact sheet.

python scripts/prepare.py --config=configs/real.py --config.data.root=BIDS_FOLDER --output=prepared

Training with the same config then finds the scans in the cache.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

CONFIG = cli.config_flag()
OUTPUT = flags.DEFINE_string("output", "prepared", "Folder for the tables and the picture.")


def main():
    from fedsparse_jax.config import build
    from fedsparse_jax.data import scan_cache
    from fedsparse_jax.reporting import plots, plots_scans

    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    scan_set = build.scans(CONFIG.value, cli.track)
    print(scan_cache.summary(scan_set))
    scan_cache.write_tables(scan_set, output)
    titles = [f"{scan.participant}, {scan.age:.0f} y" for scan in scan_set.scans]
    sheet = plots_scans.contact_sheet(scan_set.volumes, titles)
    (output / "contact_sheet.png").write_bytes(plots.render(sheet, "png"))
    print(f"Tables and contact sheet: {output}")


if __name__ == "__main__":
    cli.run(main)
