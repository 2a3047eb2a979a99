"""Files as ``torch.save`` writes them, in both formats, by Python's own pickler; nothing is shared with the reader."""

import collections
import io
import pickle
import struct
import zipfile

import numpy as np

STORAGES = {"<f4": "FloatStorage", "<f8": "DoubleStorage", "<i8": "LongStorage", "<f2": "HalfStorage"}
VERSION, MAGIC = 1001, 0x1950A86A20F9469CFC6C


class Name:
    """Pickled as the global ``module name``; called in the file with arguments if it has some."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Called:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Block:
    """A storage, pickled as a persistent reference."""

    def __init__(self, key, array):
        self.key, self.array = key, array


class Writer(pickle._Pickler):  # the one in Python, whose operations can be chosen
    def persistent_id(self, obj):
        if isinstance(obj, Block):
            tail = (None,) if self.legacy else ()
            kind = Name("torch", STORAGES[obj.array.dtype.str])
            return ("storage", kind, obj.key, "cuda:0", obj.array.size, *tail)
        return None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            return self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        if isinstance(obj, Called):
            self.save(obj.function)
            self.save(obj.arguments)
            return self.write(pickle.REDUCE)
        return super().save(obj, save_persistent_id)


def dump(obj, legacy):
    stream = io.BytesIO()
    writer = Writer(stream, protocol=2)
    writer.legacy = legacy
    writer.dump(obj)
    return stream.getvalue()


def state_of(arrays, prefix=""):
    """``(object as torch pickles it, blocks)``; each second tensor is a view of a longer block, from its third on."""
    blocks, tensors = [], []
    for place, (name, array) in enumerate(arrays.items()):
        ahead = 3 if place % 2 else 0
        flat = np.concatenate([np.zeros(ahead, array.dtype), np.ravel(array)])
        strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides) if array.ndim else ()
        blocks.append(Block(str(94_000 + place), flat))
        rebuild = Name("torch._utils", "_rebuild_tensor_v2")
        no_hooks = Called(Name("collections", "OrderedDict"))
        tensors.append((prefix + name, Called(rebuild, blocks[-1], ahead, array.shape, strides, False, no_hooks)))
    return collections.OrderedDict(tensors), blocks


def archive(obj, blocks, compression=zipfile.ZIP_STORED, order=b"little"):
    """The format of 2020 on."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        file.writestr("weights/data.pkl", dump(obj, legacy=False))
        file.writestr("weights/byteorder", order)
        for block in blocks:
            file.writestr(f"weights/data/{block.key}", block.array.tobytes())
        file.writestr("weights/version", b"3\n")
    return stream.getvalue()


def stream(obj, blocks):
    """The older format."""
    machine = dict(protocol_version=VERSION, little_endian=True, type_sizes=dict(short=2, int=4, long=4))
    head = b"".join(pickle.dumps(one, protocol=2) for one in (MAGIC, VERSION, machine))
    body = dump(obj, legacy=True) + pickle.dumps([block.key for block in blocks], protocol=2)
    return head + body + b"".join(struct.pack("<q", block.array.size) + block.array.tobytes() for block in blocks)


FORMATS = {"archive": archive, "stream": stream}


def sfcn_state(widths=(32, 64, 128, 256, 256, 64), bins=40, seed=0):
    """Random tensors with the names and shapes of SFCN's state dict, as it is in its repository."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    arrays, before = {}, 1
    for i, width in enumerate(widths):
        side, name = 1 if i == len(widths) - 1 else 3, f"feature_extractor.conv_{i}"
        arrays[f"{name}.0.weight"] = draw(width, before, side, side, side) / np.float32(np.sqrt(before * side**3))
        arrays |= {
            f"{name}.0.bias": draw(width),
            f"{name}.1.weight": 1 + draw(width) / 4,
            f"{name}.1.bias": draw(width),
        }
        arrays[f"{name}.1.running_mean"] = draw(width)
        arrays[f"{name}.1.running_var"] = (0.5 + rng.random(width)).astype(np.float32)
        arrays[f"{name}.1.num_batches_tracked"] = np.array(12_949, np.int64)
        before = width
    last = f"classifier.conv_{len(widths)}"
    return arrays | {f"{last}.weight": draw(bins, before, 1, 1, 1), f"{last}.bias": draw(bins)}
