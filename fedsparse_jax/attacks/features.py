r"""What a white box shows of one example, under one model.

Everything is made from the prediction :math:`f`, the target :math:`y` and the slope :math:`\partial f/\partial w`: one
backward pass for each example. The gradient of the squared error is :math:`2 (f - y)\,\partial f/\partial w`. Of a
classifier the cross-entropy takes the place of both :math:`f` and :math:`f - y`, and its slope is its gradient. Models
are opaque, so nothing hooks into a layer: the slope at the kernel of a linear output *is* what enters the output (times
the model's output scale), which is how the last activations are read off without dividing by a residual near zero.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedsparse_jax.attacks.evidence import MissingEvidence, Snapshot
from fedsparse_jax.core import tree
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.losses import cross_entropy
from fedsparse_jax.core.types import Array, Masks, Params


class ExampleView(NamedTuple):
    """One example under one model, before anything is chosen from it."""

    outputs: Array  # f32[], or logits f32[K]
    target: Array  # f32[]
    residual: Array  # f32[], signed: positive where the prediction is too high; of a classifier the cross-entropy
    slope: Params  # d residual / d params, at every position, pruned ones too
    masks: Masks
    step: Params | None  # params minus those before the pruning
    before: "ExampleView | None"  # the same example under these

    @property
    def gradient(self) -> Params:
        """Of the squared error, or of the cross-entropy."""
        return self.slope if self.outputs.ndim else jax.tree.map(lambda leaf: 2 * self.residual * leaf, self.slope)


def error(view: ExampleView, **unused) -> Array:
    """Signed and squared error, ``[2]``."""
    return jnp.stack([view.residual, view.residual**2])


def prediction(view: ExampleView, **unused) -> Array:
    """Prediction and label, ``[2]``, or logits and label, ``[K + 1]``.

    The label alone may tell members from others: see the control by age.
    """
    return jnp.append(view.outputs, view.target)


def label(view: ExampleView, **unused) -> Array:
    """The age, or class, alone, ``[1]``: no model is looked at. It shows how far the label gives members away."""
    return view.target[None]


def gradient_norm(view: ExampleView, **unused) -> Array:
    """Norm of the gradient of each leaf, ``[L]``."""
    return jnp.stack([jnp.linalg.norm(leaf) for leaf in jax.tree.leaves(view.gradient)])


def gradient(view: ExampleView, *, leaves, **unused) -> Array:
    """The whole gradient of the chosen leaves, flattened."""
    return _pick(view.gradient, leaves)


def activation(view: ExampleView, *, leaves, **unused) -> Array:
    """What enters the output, times the output scale: the slope at the last of the chosen leaves, the head's kernel."""
    return _pick(view.slope, leaves[-1:])


def gradient_mass(view: ExampleView, **unused) -> Array:
    """Norm of the gradient of each leaf on kept and on pruned positions, ``[2 L]``: what pruning took still pulls."""
    pairs = zip(jax.tree.leaves(view.masks), jax.tree.leaves(view.gradient), strict=True)
    norms = [jnp.linalg.norm(jnp.where(side, leaf, 0)) for mask, leaf in pairs for side in (mask, ~mask)]
    return jnp.stack(norms)


def change(view: ExampleView, **unused) -> Array:
    r"""What pruning did to the example, ``[6 + L]``.

    Residuals before and after, their difference, the difference of the squares, the first-order part of that
    :math:`\langle g_{before}, w - w_{before} \rangle` and what it leaves over; then the change of each leaf's log
    gradient norm.
    """
    assert view.before is not None and view.step is not None
    old, new = view.before.residual, view.residual
    products = jax.tree.map(jnp.vdot, view.before.gradient, view.step)
    first_order = jnp.stack(jax.tree.leaves(products)).sum()
    rise = new**2 - old**2
    size = lambda v: jnp.log(gradient_norm(v) + 1e-6)
    scalars = jnp.stack([old, new, new - old, rise, first_order, rise - first_order])
    return jnp.concatenate([scalars, size(view) - size(view.before)])


FEATURES: dict[str, Callable[..., Array]] = {
    "error": error,
    "prediction": prediction,
    "label": label,
    "gradient_norm": gradient_norm,
    "gradient": gradient,
    "activation": activation,
    "gradient_mass": gradient_mass,
    "change": change,
}


def example_features(apply: Callable, names: tuple[str, ...], leaves: tuple[str, ...]) -> Callable:
    """``(snapshot, input, target) -> {name: f32[F]}`` for one example; pure, to be vmapped and jitted."""

    def view(params, masks, x, y, step, before):
        def off(p):
            outputs = apply(p, x[None])
            return (cross_entropy(outputs, y[None])[0] if outputs.ndim == 2 else outputs[0] - y), outputs[0]

        (residual, outputs), slope = jax.value_and_grad(off, has_aux=True)(params)
        return ExampleView(outputs, y, residual, slope, masks, step, before)

    def of_one(snapshot: Snapshot, x, y):
        old = step = None
        if snapshot.before is not None:
            old = view(snapshot.before, snapshot.masks, x, y, None, None)
            step = jax.tree.map(jnp.subtract, snapshot.params, snapshot.before)
        one = view(snapshot.params, snapshot.masks, x, y, step, old)
        return {name: FEATURES[name](one, leaves=leaves) for name in names}

    return of_one


def feature_cache(
    apply: Callable, models: tuple[Snapshot, ...], inputs, targets, *, leaves=(), chunk: int = 16
) -> Callable[..., dict[str, np.ndarray]]:
    """The ``observe`` of an `Evidence`: features of rows under one of the models, computed when first asked for.

    Examples go through the device ``chunk`` at a time, which bounds its memory by that many copies of the params and of
    an example's activations. What was computed once is kept: 56 pairs of clients look at the same people.

    Args:
        apply: ``(params, inputs [B, ...]) -> predictions [B]``, or logits ``[B, K]``.
        models: oldest first.
        inputs: ``[P, ...]``; may be memory-mapped.
        targets: ``[P]``.
        leaves: names of the leaves whose gradients are looked at as a whole, the head's kernel last; by default the
            first kernel and the head's.
        chunk: examples at a time.

    Returns:
        ``(model, names, rows) -> {name: f32[len(rows), F]}``.

    Raises:
        UsageError: ``leaves`` names none of the model's, or no kernel is recognised as the head's.
    """
    if leaves:
        check_leaves(models[-1].params, leaves)
    kept: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}

    def compute(model: int, names: tuple[str, ...], rows):
        for start in range(0, len(rows), chunk):
            piece = rows[start : start + chunk]
            padded = np.resize(piece, chunk)
            xs, ys = jnp.asarray(inputs[padded]), jnp.asarray(targets[padded], jnp.float32)
            outputs = jax.eval_shape(apply, models[-1].params, xs).shape[1:]
            compiled = _compiled(apply, names, check_leaves(models[-1].params, leaves, *outputs))
            for name, values in compiled(models[model], xs, ys).items():
                store, done = kept.setdefault((model, name), _room(len(targets), values.shape[-1]))
                store[piece], done[piece] = np.asarray(values)[: len(piece)], True

    def observe(model: int, names: tuple[str, ...], rows) -> dict[str, np.ndarray]:
        if "change" in names and models[model].before is None:
            raise MissingEvidence("the feature 'change' needs the model before pruning; this attacker has none.")
        done = [kept[model, name][1][rows] if (model, name) in kept else rows < 0 for name in names]
        missing = np.unique(rows[~np.logical_and.reduce(done)])
        if len(missing):
            compute(model, tuple(names), missing)
        return {name: kept[model, name][0][rows] for name in names}

    return observe


@functools.lru_cache(maxsize=32)
def _compiled(apply: Callable, names: tuple[str, ...], leaves: tuple[str, ...]) -> Callable:
    """Features of a chunk; compiled once for all models of one network."""
    return jax.jit(jax.vmap(example_features(apply, names, leaves), in_axes=(None, 0, 0)))


def check_leaves(params: Params, leaves: tuple[str, ...] = (), outputs: int = 1) -> tuple[str, ...]:
    """The leaves whose gradients are looked at as a whole; for none the first kernel and the head's.

    Args:
        params: of the model.
        leaves: names.
        outputs: of the model, which the head's kernel ends with.

    Raises:
        UsageError: an unknown name, or no kernel that is recognised as the head's.
    """
    names = tree.leaf_names(params)
    for name in leaves:
        if name not in names:
            raise ArgumentError("leaves", name, f"the model has {', '.join(names)}")
    if leaves:
        return tuple(leaves)
    kernels = [(n, leaf) for n, leaf in zip(names, jax.tree.leaves(params), strict=True) if leaf.ndim > 1]
    heads = [name for name, leaf in kernels if leaf.ndim == 2 and leaf.shape[-1] == outputs]
    if len(heads) != 1:
        raise UsageError(f"No kernel [F, {outputs}] says which leaf is the head's; name it last in leaves.")
    return tuple(dict.fromkeys((kernels[0][0], heads[0])))


def _pick(values: Any, leaves: tuple[str, ...]) -> Array:
    by_name = dict(zip(tree.leaf_names(values), jax.tree.leaves(values), strict=True))
    return jnp.concatenate([by_name[name].ravel() for name in leaves])


def _room(people: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory that costs nothing where nobody is looked at: untouched zeros are not paged in."""
    return np.zeros((people, width), np.float32), np.zeros(people, bool)
