"""Networks as ``Model(init, apply)``."""

from fedsparse_jax.models.brain_age_cnn import brain_age_cnn
from fedsparse_jax.models.flat_cnn import flat_cnn

MODELS = {
    "brain_age_cnn": brain_age_cnn,
    "flat_cnn": flat_cnn,
}
