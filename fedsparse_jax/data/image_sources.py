"""The second task: images and their classes, from scikit-learn's digits, from IDX files (MNIST and its kin), or from
``.npz`` files (MedMNIST and its volumes, the sets of Keras)."""

import gzip
import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.files import MAX_INFLATION

IDX_UBYTE = 8  # the code of unsigned bytes in an IDX header
MOST_CHANNELS = 4  # of a colour image; a longer last axis is one of space
NPZ_LAYOUTS = (  # names of images and labels by part
    {part: (f"{part}_images", f"{part}_labels") for part in ("train", "val", "test")},  # MedMNIST
    {part: (f"x_{part}", f"y_{part}") for part in ("train", "test")},  # Keras
)


class Images(NamedTuple):
    """A labelled set of images, all in memory."""

    inputs: np.ndarray  # f32[N, *shape, channels] in [0, 1]
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


def npz_images(root: str) -> Images:
    """An ``.npz`` file of MedMNIST, or of the sets of Keras, whose own test part is the test set.

    MedMNIST's validation part is trained on with the training part. Bytes are divided by 255. Of four axes the last are
    channels if they are at most ``MOST_CHANNELS`` (colour images); else the examples are volumes.

    Args:
        root: the file. MedMNIST (Yang et al., Scientific Data 2023) names its arrays ``train_images``,
            ``train_labels`` and so on, Keras ``x_train``, ``y_train``, ``x_test``, ``y_test``.

    Raises:
        UsageError: no such file, other arrays, or arrays that do not fit one another.
    """
    path = Path(root).expanduser()
    if not root or not path.is_file():
        raise ArgumentError("root", root, "it must be the .npz file, with its images and labels")
    parts = _parts_of_npz(path)
    if len({images.shape[1:] for images, _ in parts.values()}) > 1:
        raise UsageError(f"{path}: the images of its parts differ in size; fetch it again.")
    train = [name for name in parts if name != "test"]
    order = [*train, *(["test"] if "test" in parts else [])]
    inputs = np.concatenate([_scaled(path, parts[name][0]) for name in order])
    labels = np.concatenate([parts[name][1] for name in order])
    if labels.min() < 0:
        raise UsageError(f"{path} has negative labels; number the classes from 0.")
    count = sum(len(parts[name][1]) for name in train)
    return Images(inputs, labels, np.arange(count, len(labels)) if "test" in parts else None)


def _parts_of_npz(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels by part: train, val and test."""
    arrays = _arrays_of_npz(path)
    for layout in NPZ_LAYOUTS:
        there = {part: names for part, names in layout.items() if set(names) & set(arrays)}
        if "train" in there:
            break
    else:
        found = ", ".join(sorted(arrays)[:8]) or "nothing"
        wanted = " or ".join(" and ".join(layout["train"]) for layout in NPZ_LAYOUTS)
        raise UsageError(f"{path} holds {found}, and not {wanted}; rename its arrays.")
    lacking = [name for names in there.values() for name in names if name not in arrays]
    if lacking:
        raise UsageError(f"{path} holds no {lacking[0]}; fetch it again.")
    parts = {}
    for part, (images, labels) in there.items():
        classes = arrays[labels].reshape(len(arrays[labels]), -1)
        if classes.shape[1] != 1 or classes.dtype.kind not in "iub":
            raise UsageError(f"{path}: {labels} has the shape {arrays[labels].shape}; only one class an image is read.")
        if len(classes) != len(arrays[images]) or not len(classes):
            counts = f"{len(arrays[images])} images and {len(classes)} labels"
            raise UsageError(f"{path}: its part {part} has {counts}; fetch it again.")
        parts[part] = (_with_channels_last(path, images, arrays[images]), classes[:, 0].astype(np.int64))
    return parts


def _arrays_of_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file; nothing is unpickled, and no more is unpacked than the file can stand for."""
    try:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(member.file_size for member in file.infolist())
            if unpacked > MAX_INFLATION * path.stat().st_size:
                raise ValueError("it announces more than it holds")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read ({error}); fetch it again.") from None


def _with_channels_last(path: Path, name: str, images: np.ndarray) -> np.ndarray:
    """``[N, *shape, channels]``, with a last axis of 1 where there are no channels."""
    if images.ndim == 5 or (images.ndim == 4 and images.shape[-1] <= MOST_CHANNELS):
        return images
    if images.ndim in (3, 4):
        return images[..., np.newaxis]
    raise UsageError(f"{path}: {name} has the shape {images.shape}; it must be images or volumes, one behind another.")


def _scaled(path: Path, images: np.ndarray) -> np.ndarray:
    """Numbers from 0 to 1."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / 255
    if images.dtype.kind == "f" and np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1:
        return images.astype(np.float32)
    raise UsageError(f"{path}: its images are {images.dtype} and not bytes, or not from 0 to 1; convert them.")


IMAGE_SOURCES: dict[str, Callable[[str], Images]] = {"digits": digits_images, "idx": idx_images, "npz": npz_images}
