"""Two linear layers and a regression that plain NumPy can follow."""

import jax
import numpy as np

from fedsparse_jax.core.types import Model
from fedsparse_jax.data.federation import Federation

SIZES = (9, 5, 12)  # examples of the three clients


def tiny_model():
    def init(key):
        a, b, c = jax.random.split(key, 3)
        draw = jax.random.normal
        return {"b": draw(a, (1,)) + 0.3, "v": draw(b, (3, 1)), "w": draw(c, (5, 3))}

    return Model(init, lambda p, x: (x.reshape(len(x), -1) @ p["w"] @ p["v"])[:, 0] + p["b"][0])


def problem():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(sum(SIZES) + 4, 5)).astype(np.float32)
    targets = (inputs @ [1.0, -2.0, 0.5, 0.0, 3.0] + rng.normal(size=len(inputs))).astype(np.float32)
    members = np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])
    rows = [{"participant_id": str(i), "session": "", "site": ""} for i in range(len(inputs))]
    return Federation(inputs, targets, members, np.arange(sum(SIZES), len(inputs)), rows)
