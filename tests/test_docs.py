"""The examples of the documentation run."""

import re

from fedsparse_jax import models
from fedsparse_jax.attacks.features import FEATURES
from fedsparse_jax.attacks.membership import ATTACKS
from fedsparse_jax.communication import VALUES
from fedsparse_jax.core import losses
from fedsparse_jax.data import image_sources, partitions, scan_sources
from fedsparse_jax.federated.aggregation import AGGREGATORS
from fedsparse_jax.sparsity import pruning
from fedsparse_jax.sparsity.criteria import CRITERIA
from fedsparse_jax.sparsity.regrowth import REGROWTH
from fedsparse_jax.sparsity.schedules import SCHEDULES

REGISTRIES = (
    CRITERIA, SCHEDULES, pruning.SCOPES, AGGREGATORS, losses.LOSSES, models.MODELS, partitions.PARTITIONS,
    scan_sources.DATASETS, image_sources.IMAGES, REGROWTH, FEATURES, ATTACKS, VALUES,
)  # fmt: skip


def test_extending(repository):
    blocks = re.findall(r"```python\n(.*?)```", (repository / "docs/extending.md").read_text(), re.DOTALL)
    assert len(blocks) == 13
    before = [dict(registry) for registry in REGISTRIES]
    try:
        exec("\n".join(blocks), {})
        assert all(len(now) > len(old) for now, old in zip(REGISTRIES, before))
    finally:
        for registry, old in zip(REGISTRIES, before):
            registry.clear()
            registry.update(old)


def test_privacy(repository):
    blocks = re.findall(r"```python\n(.*?)```", (repository / "docs/privacy.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    exec(blocks[0], {})
