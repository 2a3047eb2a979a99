"""Words and pytree algebra that everything shares: types, errors, trees, masks, losses, tasks."""

from fedsparse_jax.core import losses, masks, tasks, tree
from fedsparse_jax.core.errors import ArgumentError, UsageError
from fedsparse_jax.core.losses import LOSSES
from fedsparse_jax.core.tasks import TASKS, Task
from fedsparse_jax.core.types import (
    Chunk, ClientMemory, ClientState, DataNeeds, FedAlgorithm, Model, Payload, RoundInfo, ServerState, StepInfo,
)  # fmt: skip
