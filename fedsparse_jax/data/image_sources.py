"""The second task: images and their classes, from scikit-learn's digits or from IDX files (MNIST and its kin)."""

import gzip
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.files import MAX_INFLATION

IDX_UBYTE = 8  # the code of unsigned bytes in an IDX header


class Images(NamedTuple):
    """A labelled set of images, all in memory."""

    inputs: np.ndarray  # f32[N, H, W, 1] in [0, 1]
    labels: np.ndarray  # i64[N], from 0
    test: np.ndarray | None  # indices of the set's own test set, if it has one


def digits_images(root: str = "") -> Images:
    """1,797 handwritten digits of 8 x 8 pixels, shipped with scikit-learn (Alpaydin and Kaynak, UCI, 1998).

    Args:
        root: not used; the images are inside the package.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError(
            "The handwritten digits are shipped with scikit-learn, which is not installed: pip install scikit-learn."
        ) from None
    loaded = load_digits()
    return Images((loaded.images / 16).astype(np.float32)[..., np.newaxis], loaded.target.astype(np.int64), None)


def idx_images(root: str) -> Images:
    """A folder with the four files of MNIST or Fashion-MNIST, gzipped or not; ``t10k`` is the test set.

    Args:
        root: the folder; it holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, and the same of ``t10k``
            (these two may both be missing: then a share of the rest becomes the test set).

    Raises:
        UsageError: a file is missing, damaged or does not fit the others.
    """
    folder = Path(root).expanduser()
    if not root or not folder.is_dir():
        raise ArgumentError("root", root, "it must be the folder of the IDX files")
    train = _pair(folder, "train")
    test = _pair(folder, "t10k") if _find(folder, "t10k", "images") or _find(folder, "t10k", "labels") else None
    pairs = [train] if test is None else [train, test]
    if len({images.shape[1:] for images, _ in pairs}) > 1:
        raise UsageError(f"{folder}: the images of train and t10k differ in size; put one data set into a folder.")
    inputs = np.concatenate([images for images, _ in pairs]).astype(np.float32) / 255
    labels = np.concatenate([labels for _, labels in pairs]).astype(np.int64)
    own = None if test is None else np.arange(len(train[0]), len(labels))
    return Images(inputs[..., np.newaxis], labels, own)


def _pair(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    arrays = []
    for kind in ("images", "labels"):
        path = _find(folder, part, kind)
        if path is None:
            raise UsageError(
                f"{folder} holds no {part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte (or .gz); "
                "put the IDX files of the data set there."
            )
        arrays.append(read_idx(path, 3 if kind == "images" else 1))
    images, labels = arrays
    if len(images) != len(labels):
        raise UsageError(f"{folder}: {part} has {len(images)} images and {len(labels)} labels; fetch the files again.")
    return images, labels


def _find(folder: Path, part: str, kind: str) -> Path | None:
    sides = 3 if kind == "images" else 1
    names = [f"{part}-{kind}{sep}idx{sides}-ubyte{end}" for sep in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_idx(path: Path, dims: int) -> np.ndarray:
    """The unsigned bytes of an IDX file, gzipped or not.

    Args:
        path: the file.
        dims: axes that it must have.

    Raises:
        UsageError: it is no IDX file of bytes, has other axes, or is longer or shorter than it claims.
    """
    zipped, start = path.suffix == ".gz", 4 + 4 * dims
    try:
        with gzip.open(path) if zipped else open(path, "rb") as file:
            head = file.read(start)
            if len(head) < start or head[:4] != bytes([0, 0, IDX_UBYTE, dims]):
                raise UsageError(f"{path} is no IDX file of unsigned bytes with {dims} axes; check what it is.")
            shape = tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, start, 4))
            claimed, size = math.prod(shape), path.stat().st_size
            most = size * MAX_INFLATION if zipped else size - start
            raw = file.read(claimed + 1) if claimed <= most else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read ({error}); fetch it again.") from None
    if claimed != len(raw):
        sides = " x ".join(map(str, shape))
        held = str(len(raw)) if claimed <= most else f"at most {most}" if zipped else str(most)
        held = "more" if len(raw) > claimed else held
        raise UsageError(f"{path} claims {sides} bytes but holds {held}; fetch it again.")
    return np.frombuffer(raw, np.uint8).reshape(shape)


IMAGE_SOURCES: dict[str, Callable[[str], Images]] = {"digits": digits_images, "idx": idx_images}
