"""What is pruned, how much, when, and what returns. Criteria, schedules, scopes and regrowth rules go here."""

from fedsparse_jax.sparsity.criteria import (
    CRITERIA, Criterion, grasp, lamp, magnitude, random, signed_gradient, snip, squared_gradient, synflow,
)  # fmt: skip
from fedsparse_jax.sparsity.pacing import Pace, Paced, paced
from fedsparse_jax.sparsity.pruning import Pruning, make_scorer
from fedsparse_jax.sparsity.regrowth import REGROWTH, Regrowth, greedy, swap
from fedsparse_jax.sparsity.schedules import SCHEDULES, constant, gradual, multiplicative, one_shot, step_wise
from fedsparse_jax.sparsity.scopes import PRUNABLE, SCOPES, erk, everything, global_, kernels, per_layer, with_floor
from fedsparse_jax.sparsity.selection import keep_largest, share_of
