"""Networks as ``Model(init, apply)``. A network goes here: a factory, and its line in ``MODELS``.

A network that is to lose dead channels and to be written as ONNX has a line in ``CHAINS``, too: the same options to its
`chains.LayerChain`.
"""

from collections.abc import Callable

from fedsparse_jax.core.types import Model
from fedsparse_jax.models.brain_age_cnn import brain_age_chain, brain_age_cnn
from fedsparse_jax.models.chains import LayerChain
from fedsparse_jax.models.flat_cnn import flat_chain, flat_cnn
from fedsparse_jax.models.flops import flops_per_example, multiply_adds_per_weight
from fedsparse_jax.models.from_nnx import from_nnx, in_precision
from fedsparse_jax.models.image_classifiers import image_chain, image_cnn, mlp, mlp_chain

MODELS: dict[str, Callable[..., Model]] = {
    "brain_age_cnn": brain_age_cnn,
    "flat_cnn": flat_cnn,
    "mlp": mlp,
    "image_cnn": image_cnn,
}

CHAINS: dict[str, Callable[..., LayerChain]] = {
    "brain_age_cnn": brain_age_chain,
    "flat_cnn": flat_chain,
    "mlp": mlp_chain,
    "image_cnn": image_chain,
}
