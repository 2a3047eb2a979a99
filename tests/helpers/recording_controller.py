"""The controller of NVIDIA FLARE, which writes down what of each site's answer arrives at the server, name by name."""

import json
import os
from pathlib import Path

from fedsparse_jax.deploy.flare import RoundsController

PLACE = "FEDSPARSE_JAX_RECORDING"  # environment variable: the file that is written


class RecordingController(RoundsController):
    """As the real one. A line of the recording is an answer: ``{name: value}``, where bytes are in hexadecimal."""

    @staticmethod
    def _next_reply(replies):
        site, result = RoundsController._next_reply(replies)
        if result is not None:
            with Path(os.environ[PLACE]).open("a") as file:
                file.write(json.dumps(dict(_named(result))) + "\n")
        return site, result


def _named(result):
    """Every name in a Shareable, with what came under it; objects that NVFlare made of it at the server are left out."""
    for key, value in result.items():
        name = key.strip("_")
        if isinstance(value, dict):
            inner = dict(_named(value))
            yield from inner.items() if name == "headers" else ((f"{name}.{one}", inner[one]) for one in inner)
        elif isinstance(value, bytes):
            yield name, value.hex()
        elif value is None or isinstance(value, str | int | float | bool | list):
            yield name, value
