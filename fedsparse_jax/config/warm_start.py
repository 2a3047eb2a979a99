"""Where a run's weights come from, if not from the seed: another run, its sparse file, or a file from elsewhere.

``model.init_from`` names the place. A leaf that is there with the shape of the network's own is taken, with its mask;
every other leaf is newly initialised, and named before round 1. The resolved config holds a hash of what was taken, so
that a run goes on from the same weights or not at all.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from fedsparse_jax.config.saved_runs import chosen_round, load_run
from fedsparse_jax.core import masks, tree
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.types import Masks, Model, Params
from fedsparse_jax.data.federation import Federation
from fedsparse_jax.data.roster import is_trained_on
from fedsparse_jax.export.sparse_file import read_sparse
from fedsparse_jax.models import sfcn
from fedsparse_jax.runs.checkpoint import digest_of_arrays
from fedsparse_jax.runs.run_dir import recorded_people

SEEN_BY_NETWORK = ("shape", "channels", "align", "normalise")  # keys of data
OUTPUTS = ("output_mean", "output_scale")  # keys of model


class Source(NamedTuple):
    """Weights to start from."""

    params: Params  # may lack leaves of the network, and have others
    masks: Masks | None = None  # of the same leaves; None where nothing is pruned
    licence: str = ""  # what a user must be told
    network: Mapping[str, Any] = {}  # of the section model of the run that they come from: its name and ``OUTPUTS``
    seen: Mapping[str, Any] = {}  # keys of its section data, of ``SEEN_BY_NETWORK``
    trained_on: frozenset[str] = frozenset()  # ids of its people


class WarmStart(NamedTuple):
    """What a network begins with."""

    init: Callable  # (key) -> params
    masks: Masks | None
    resolved: dict[str, Any]  # keys for the section model of the resolved config
    remarks: tuple[str, ...]  # for the console


def read_run(folder: Path, which: str) -> Source:
    """The model of a run, within its mask."""
    config, _, server = load_run(folder, chosen_round(folder, which))
    people = frozenset(entry.participant_id for entry in recorded_people(folder) if is_trained_on(entry.set))
    seen = {key: config.data[key] for key in SEEN_BY_NETWORK}
    params = masks.apply(server.masks, server.params)
    return Source(params, server.masks, network=config.model.to_dict(), seen=seen, trained_on=people)


def read_exported(file: Path, which: str) -> Source:
    """The model in a sparse file, with what its card tells of the network, the scans and the licence."""
    params, kept, card = read_sparse(file)
    try:
        _, *shape, channels = card["preprocessing"]["inputs"]
        told = {**card["preprocessing"], "shape": shape, "channels": channels}
        seen = {key: told[key] for key in SEEN_BY_NETWORK if key in told}
        numbers = {key: float(card["network"][key]) for key in OUTPUTS if card["network"].get(key) is not None}
        network = {"name": card["network"]["name"], **numbers}
        return Source(params, kept, f"Licence of {file}: {card['licence']}.", network, seen)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"The model card in {file} does not tell what a start needs to know; write the file anew by "
            "scripts/export.py, or give the run folder as model.init_from."
        ) from error


def read_published_sfcn(file: Path, which: str) -> Source:
    """The published SFCN weights, as their repository has them."""
    return Source(sfcn.read_sfcn(file), licence=sfcn.SFCN_LICENCE)


def source_from_config(config: ConfigDict) -> Source | None:
    """The weights that ``model.init_from`` names; None where it names none.

    Raises:
        UsageError: nothing there that can be read.
    """
    place = config.model.get("init_from", "")
    if not place:
        return None
    path, which = Path(place).expanduser(), config.model.get("init_which", "last")
    if not path.exists():
        raise UsageError(f"model.init_from is {place!r}, where nothing is; give a run folder or a file of weights.")
    kind = "folder" if path.is_dir() else path.suffix.lower()
    if kind not in READERS:
        raise UsageError(
            f"model.init_from is {place!r}, a file that nobody reads; give a run folder, or a file that ends in "
            f"{', '.join(name for name in READERS if name != 'folder')}."
        )
    return READERS[kind](path, which)


def with_numbers_of(config: ConfigDict, source: Source) -> ConfigDict:
    """The config with the mean and the scale of the outputs that the weights of a run were trained with.

    Raises:
        UsageError: the config asks for another scale.
    """
    if source.network.get("name") != config.model.name:
        return config
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        for key in OUTPUTS:
            trained = source.network.get(key)
            if trained is not None and changed.model.get(key) is None:
                changed.model[key] = trained
    asked, trained = (one.get("output_scale") for one in (changed.model, source.network))
    if asked != trained:
        raise UsageError(
            f"model.output_scale is {asked}, but the weights of {config.model.init_from} were trained with "
            f"{'the default' if trained is None else trained}; leave it out."
        )
    return changed


def begin_from(
    source: Source, network: Model, section: ConfigDict, data: ConfigDict, federation: Federation
) -> WarmStart:
    """The network's own params and masks with the leaves that the source has in the same shape.

    Args:
        source: the weights.
        network: that begins with them.
        section: ``model`` of the config.
        data: ``data`` of the config.
        federation: the people of the new run.

    Raises:
        UsageError: no leaf fits.
    """
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    named = lambda values: dict(zip(tree.leaf_names(values), jax.tree.leaves(values), strict=True))
    wanted, there = named(shapes), named(source.params)
    fits = {name: leaf for name, leaf in there.items() if name in wanted and leaf.shape == wanted[name].shape}
    if not fits:
        raise UsageError(
            f"model.init_from is {section.init_from!r}, of whose {len(there)} leaves none fits {section.name!r}; "
            "choose the network that it was trained with (model.name, model.widths, data.shape)."
        )
    structure, keep = jax.tree.structure(shapes), source.masks is not None and section.get("init_masks", True)
    kept = named(source.masks) if keep else {}

    def init(key) -> Params:
        own = named(network.init(key))
        return jax.tree.unflatten(structure, [jnp.asarray(fits.get(name, leaf)) for name, leaf in own.items()])

    mask = [jnp.asarray(kept[n]) if n in fits and n in kept else jnp.ones(one.shape, bool) for n, one in wanted.items()]
    sha256 = digest_of_arrays([*fits.values(), *mask])
    remarks = [_taken(section, fits, there, wanted, sha256), source.licence, _seen_otherwise(source, data)]
    remarks.append(_known_people(source, federation))
    starting_mask = jax.tree.unflatten(structure, mask) if keep else None
    return WarmStart(init, starting_mask, {"init_sha256": sha256}, tuple(filter(None, remarks)))


def _taken(section: ConfigDict, fits: dict, there: dict, wanted: dict, sha256: str) -> str:
    """Which leaves were taken, and which are new and why."""
    new = [
        f"{name} {leaf.shape}" + (f", there {tuple(there[name].shape)}" if name in there else ", not there")
        for name, leaf in wanted.items()
        if name not in fits
    ]
    unused = [name for name in there if name not in wanted]
    text = f"Weights from {section.init_from}: {len(fits)} of {len(wanted)} leaves (SHA-256 {sha256[:12]})."
    text += f" Newly initialised: {'; '.join(new)}." if new else ""
    return text + (f" Not used: {', '.join(unused)}." if unused else "")


def _seen_otherwise(source: Source, data: ConfigDict) -> str:
    """What of the scans is other than it was for the run that the weights come from."""
    pairs = ((key, before, data[key]) for key, before in source.seen.items())
    plain = lambda value: tuple(value) if isinstance(value, list) else value
    differ = [f"data.{key} was {before!r} and is {now!r}" for key, before, now in pairs if plain(before) != plain(now)]
    return f"Note: the weights were trained on scans read otherwise: {'; '.join(differ)}." if differ else ""


def _known_people(source: Source, federation: Federation) -> str:
    """How many of those who judge the new model the weights were trained on, by their ids."""
    sets = {"test set": federation.test, "validation": federation.validation_rows}
    judges = {name: {federation.people[row]["participant_id"] for row in rows} for name, rows in sets.items()}
    known = {name: len(people & source.trained_on) for name, people in judges.items()}
    told = [f"{count} of {len(judges[name])} people of the {name}" for name, count in known.items() if count]
    return f"Warning: the weights were trained on {' and '.join(told)}, whose errors are no test." if told else ""


# How each kind of place is read, by the end of its name: (path, which) -> Source.
READERS: dict[str, Callable[[Path, str], Source]] = {
    "folder": read_run,
    ".sparse": read_exported,
    ".p": read_published_sfcn,
    ".pth": read_published_sfcn,
    ".pt": read_published_sfcn,
}
