"""Makes a start-up kit of NVIDIA FLARE ready at its site: where the scans lie, and what a job may start.

python scripts/prepare_kit.py --kit=KIT --root=BIDS_FOLDER

KIT is the site's folder, or the server's, whose scans are the test set. Other keys that are a site's own are set by
their names: --data.source=table, --data.workers=4, --data.options.age_col=COLUMN.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

KIT = flags.DEFINE_string("kit", None, "Folder of the kit, as nvflare provision wrote it.", required=True)
ROOT = flags.DEFINE_string("root", None, "BIDS folder, or CSV/TSV/Excel file, of the scans.", required=True)
cli.keys_flag("KEY=VALUE of this side's own keys of the config; --data.KEY=VALUE is the same.")


def main():
    from fedsparse_jax.deploy.flare_job import prepare_kit

    root = Path(ROOT.value).expanduser().resolve()
    name = prepare_kit(Path(KIT.value), {"data.root": str(root), **dict(cli.settings())})
    print(f"The kit of {name} is ready: its scans lie in {root}.")


if __name__ == "__main__":
    cli.run_main(main)
