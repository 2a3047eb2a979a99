"""The examples of the documentation run."""

import re

from fedsparse_jax import losses, models, pruning
from fedsparse_jax.aggregation import AGGREGATORS
from fedsparse_jax.attacks.features import FEATURES
from fedsparse_jax.attacks.membership import ATTACKS
from fedsparse_jax.criteria import CRITERIA
from fedsparse_jax.data import images, partition, sources
from fedsparse_jax.regrowth import REGROWTH
from fedsparse_jax.schedules import SCHEDULES
from fedsparse_jax.wire import VALUES

REGISTRIES = (
    CRITERIA, SCHEDULES, pruning.SCOPES, AGGREGATORS, losses.LOSSES, models.MODELS, partition.PARTITIONS,
    sources.DATASETS, images.IMAGES, REGROWTH, FEATURES, ATTACKS, VALUES,
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
