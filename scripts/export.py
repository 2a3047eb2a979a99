"""Writes a run's model as one file that needs no run folder, and its model card beside it.

python scripts/export.py --workdir=runs/quickstart --format=sparse --output=model.sparse

Formats: sparse, values and masks for NumPy, about as small as a message; stablehlo, a program for JAX; onnx, for ONNX
Runtime and others.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORKDIR = cli.workdir_flag("Folder of the run whose model is exported.")
WHICH = flags.DEFINE_string("which", "last", "Model to use: best (on validation), last, or the number of a round.")
FORMAT = flags.DEFINE_string("format", "sparse", "sparse, stablehlo or onnx.")
OUTPUT = flags.DEFINE_string("output", "", "File to write (default: model.FORMAT in the run); its card is FILE.md.")
LICENCE = flags.DEFINE_string("licence", "", "Licence of the model, for its card, such as 'CC BY 4.0'.")


def main():
    from fedsparse_jax.config import chosen_round
    from fedsparse_jax.core.files import write_whole
    from fedsparse_jax.reporting.model_card import card_text
    from fedsparse_jax.studies import export_run

    cli.cache_compilations()
    workdir = Path(WORKDIR.value)
    found = export_run(workdir, FORMAT.value, chosen_round(workdir, WHICH.value), LICENCE.value)
    output = Path(OUTPUT.value or workdir / f"model.{FORMAT.value}")
    write_whole(output, found.content)
    write_whole(output.with_name(f"{output.name}.md"), card_text(found.card))
    for layer, (dropped, channels) in found.dropped.items():
        print(f"Dead channels left out: {dropped} of {channels} of {layer}")
    print(f"Checked: for two random inputs the file predicts what the run's network does, to {found.difference:.1e}.")
    if found.card["data"]["source"] == "phantom":
        print("This model was trained on the phantom: it knows nothing about real brains.")
    print(f"Model of round {found.card['round']}: {output} ({len(found.content):,} bytes), card: {output.name}.md")


if __name__ == "__main__":
    cli.run_main(main)
