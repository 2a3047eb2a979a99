"""Makes the coarse brain that the package brings with it (fedsparse_jax/data/coarse_brain.py) from nilearn's template.

python scripts/make_coarse_brain.py --output=coarse_brain.npz
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

OUTPUT = flags.DEFINE_string("output", None, "The file to write.", required=True)


def main():
    import numpy as np

    from fedsparse_jax.core.files import partial_file
    from fedsparse_jax.data.resampling import halve
    from fedsparse_jax.data.templates import load_template

    template = load_template()
    intensity, inside, affine = template.intensity, template.inside.astype(np.float32), template.affine
    for _ in range(2):  # 2 mm to 8 mm
        (intensity, _), (inside, affine) = halve(intensity, affine), halve(inside, affine)
    scaled = {"intensity": intensity / intensity.max(), "inside": inside}
    whole = {name: (255 * values).round().astype(np.uint8) for name, values in scaled.items()}
    with partial_file(Path(OUTPUT.value)) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **whole, affine=affine)
    print(f"Coarse brain: {OUTPUT.value}")


if __name__ == "__main__":
    cli.run_main(main)
