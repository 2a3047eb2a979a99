"""Makes one side of a federation ready: where its scans lie, and what starts it.

python scripts/prepare_kit.py --kit=KIT --root=BIDS_FOLDER
python scripts/prepare_kit.py --engine=flower --kit=KIT --name=north --root=BIDS_FOLDER \
    --server=HOST:PORT --certificate=server.crt

KIT is the site's folder, or the server's, whose scans are the test set. With NVIDIA FLARE it is a start-up kit, which
gets a file that says what a job may start; with Flower any folder, which gets a script that starts the side. Other keys
that are a site's own are set by their names: --data.source=table, --data.workers=4, --data.options.age_col=COLUMN.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

ENGINE = flags.DEFINE_enum("engine", "nvflare", ["nvflare", "flower"], "What carries the bytes.")
KIT = flags.DEFINE_string(
    "kit", None, "Folder of the kit, as nvflare provision wrote it; any with Flower.", required=True
)
ROOT = flags.DEFINE_string("root", None, "BIDS folder, or CSV/TSV/Excel file, of the scans.", required=True)
NAME = flags.DEFINE_string("name", "", "With Flower: name of the site, or 'server'.")
SERVER = flags.DEFINE_string("server", "", "With Flower: HOST:PORT by which the sites reach the server.")
CERTIFICATE = flags.DEFINE_string("certificate", "server.crt", "With Flower: file of the server's certificate.")
cli.keys_flag("KEY=VALUE of this side's own keys of the config; --data.KEY=VALUE is the same.")


def main():
    root = Path(ROOT.value).expanduser().resolve()
    own = {"data.root": str(root), **dict(cli.settings())}
    if ENGINE.value == "flower":
        from fedsparse_jax.deploy.flower_job import prepare_folder

        name = NAME.value
        prepare_folder(Path(KIT.value), name, own, SERVER.value, Path(CERTIFICATE.value))
    else:
        from fedsparse_jax.deploy.flare_job import prepare_kit

        name = prepare_kit(Path(KIT.value), own)
    print(f"The kit of {name} is ready: its scans lie in {root}.")


if __name__ == "__main__":
    cli.run_main(main)
