"""Trained networks as files that others read: sparse values for NumPy, StableHLO for JAX, ONNX for everybody else.

A way to write a network goes here: one function from a `Network` to bytes, one back to predictions, and their line in
``FORMATS``.
"""

from fedsparse_jax.export.compaction import drop_dead_channels
from fedsparse_jax.export.formats import FORMATS, Format, Network
from fedsparse_jax.export.sparse_file import SparseModel, read_sparse, sparse_bytes
