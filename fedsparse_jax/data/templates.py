"""The brain that scans are registered to: the ICBM 152 nonlinear symmetric template, release 2009a, out of nilearn.

Its licence stands in `LICENCE` and goes into every folder that holds what was made with it. nilearn brings the template
with it, without its skull, so that nothing is downloaded.
"""

import functools
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.errors import UsageError

NO_EXTRA = (
    "data.align is 'register', which needs SimpleITK and nilearn: pip install SimpleITK nilearn (the extra "
    "'register'); or set it to 'rough', for skull-stripped scans."
)
NAME = "ICBM 152 nonlinear symmetric template, release 2009a"
LICENCE = (
    "Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill "
    "University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose "
    "and without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and "
    "McGill University make no representations about the suitability of this software for any purpose. It is provided "
    '"as is" without express or implied warranty. The authors are not responsible for any data loss, equipment damage, '
    "property loss, or injury to subjects or patients resulting from the use or misuse of this software package."
)
FIT = 4  # voxels: each side can be halved twice


class Template(NamedTuple):
    """The template at 2 mm."""

    intensity: np.ndarray  # f32[100, 120, 96], 0 outside the brain, up to 1
    inside: np.ndarray  # bool[100, 120, 96], the brain
    affine: np.ndarray  # f64[4, 4], voxel to RAS mm


@functools.cache
def load_template() -> Template:
    """The template.

    Raises:
        UsageError: nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        raise UsageError(NO_EXTRA) from error
    image, mask = datasets.load_mni152_template(resolution=2), datasets.load_mni152_brain_mask(resolution=2)
    inside = _padded(np.asarray(mask.dataobj) > 0)
    intensity = np.where(inside, _padded(image.get_fdata(dtype=np.float32)), 0)
    return Template(intensity, inside, np.array(image.affine, float))


def _padded(volume: np.ndarray) -> np.ndarray:
    return np.pad(volume, [(0, -size % FIT) for size in volume.shape])
