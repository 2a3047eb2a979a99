"""The handshake: what a site and the server must agree on before a scan is looked at, compared fact by fact."""

import json
from typing import Any, NamedTuple

import jax
import numpy as np

from fedsparse_jax.communication import MessageError, make_context
from fedsparse_jax.communication import message as codec
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data import templates
from fedsparse_jax.deploy import envelope
from fedsparse_jax.runs.experiment import Experiment
from fedsparse_jax.runs.run_dir import COST_ONLY, by_path

LONGEST_HELLO = 2**20
OWN_KEYS = (  # keys of a config, or sections, that are each side's own
    *(f"{section}." for section in COST_ONLY),
    *("data.source", "data.options.", "data.root", "data.cache_dir", "data.workers"),
    *("data.test_share", "data.validation_share", "faults.", "early_stopping."),
    *("model.init_from", "model.init_which"),  # what was taken, init_sha256, is compared, and not where it lay
)


class Hello(NamedTuple):
    """How a site introduces itself; sent as JSON."""

    site: int  # its number in the federation, from 0
    name: str
    examples: int  # that it trains on
    facts: dict[str, Any]


def describe_experiment(experiment: Experiment) -> dict[str, Any]:
    """The facts that both sides must share, as JSON has them: versions, grid, preprocessing, network, method.

    Keys that are each side's own, such as where its scans lie, are not among them.
    """
    config = experiment.config
    data = config.get("data", {})
    params = jax.eval_shape(experiment.model.init, jax.random.key(0))
    facts: dict[str, Any] = {
        "wire version": codec.VERSION,
        "envelope version": envelope.ENVELOPE_VERSION,
        "grid": list(experiment.federation.inputs.shape[1:-1]),
        "channels": experiment.federation.inputs.shape[-1],
        "normalisation": data.get("normalise"),
        "alignment": data.get("align"),
        "template": templates.NAME if data.get("align") == "register" else None,
        "network": make_context(params).digest.hex(),
        "clients": len(experiment.federation.members),
        "seed": experiment.seed,
        "batch size": experiment.batching.batch_size,
        "epochs": experiment.batching.epochs,
        "values of messages": experiment.messages.dtype,
        "feedback of messages": experiment.messages.feedback,
    }
    facts |= {key: value for key, value in by_path(config).items() if not key.startswith(OWN_KEYS)}
    return json.loads(json.dumps(facts))


def differing_facts(there: dict[str, Any], here: dict[str, Any]) -> str:
    """The facts that differ, with both values, as part of a sentence; empty where none does."""
    keys = sorted(there.keys() | here.keys())
    differ = [key for key in keys if there.get(key) != here.get(key)]
    return "; ".join(f"{key} is {there.get(key)!r} there and {here.get(key)!r} here" for key in differ)


def digest_of_facts(facts: dict[str, Any]) -> bytes:
    """16 bytes that stand for the facts in every envelope."""
    return codec.content_hash(json.dumps(facts, sort_keys=True).encode())


def write_hello(hello: Hello) -> bytes:
    """The bytes of an introduction."""
    return json.dumps(hello._asdict()).encode()


def read_hello(data: bytes, num_sites: int) -> Hello:
    """An introduction from anywhere.

    Raises:
        MessageError: it is none, or of a site whose number or size is impossible.
    """
    try:
        if len(data) > LONGEST_HELLO:
            raise ValueError("it is too long")
        entry = json.loads(data)
        hello = Hello(entry["site"], str(entry["name"]), entry["examples"], dict(entry["facts"]))
        if len(entry) != len(Hello._fields) or not all(type(n) is int for n in (hello.site, hello.examples)):
            raise ValueError("its fields are others")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MessageError("What came is no introduction of a site.") from error
    if not 0 <= hello.site < num_sites:
        raise MessageError(f"{hello.name} calls itself site {hello.site}; the run has sites 0 to {num_sites - 1}.")
    if not 0 < hello.examples < np.iinfo(np.int32).max:
        raise MessageError(f"Site {hello.site} ({hello.name}) has {hello.examples} examples; it needs at least one.")
    return hello


def write_welcome(problem: str = "") -> bytes:
    """The server's answer to an introduction: accepted, or refused with a sentence."""
    return json.dumps({"refused": problem}).encode()


def read_welcome(data: bytes) -> None:
    """Returns where a site was accepted.

    Raises:
        UsageError: it was refused, with the server's sentence.
    """
    try:
        problem = json.loads(data)["refused"]
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError("What answers is no server of fedsparse_jax; check its address.") from error
    if problem:
        raise UsageError(str(problem))
