"""Membership inference against a network: who was in the training data? And poisoning: clients who lie.

An attack needs four things: a prediction function, the parameters, the masks and the data. It does not depend on the
training code.
"""

from fedsparse_jax.attacks.controls import age_matched
from fedsparse_jax.attacks.evaluate import Finding, evaluate_attacks, log_leakage
from fedsparse_jax.attacks.evidence import (
    Attack, Evidence, MissingEvidence, Shadows, Snapshot, others_than, shadow_halves,
)  # fmt: skip
from fedsparse_jax.attacks.features import FEATURES, ExampleView, example_features, feature_cache
from fedsparse_jax.attacks.membership import (
    ATTACKS, error_threshold, lira_offline, lira_online, rmia, sparsity_aware, white_box,
)  # fmt: skip
from fedsparse_jax.attacks.poison import (
    POISONS, add_trigger, backdoor, keep_weights, kill_weights, label_noise, scaling, sign_flip,
)  # fmt: skip
from fedsparse_jax.attacks.statistics import (
    Estimate, Outcome, auc, epsilon_lower_bound, judge_scores, roc, tpr_at,
)  # fmt: skip
from fedsparse_jax.attacks.threats import (
    Threat, client_attacks_client, every_pair_of_clients, evidence_for, outsider_attacks, server_attacks_client,
)  # fmt: skip
