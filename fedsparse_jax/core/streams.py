"""The independent streams of random numbers that are drawn from one seed on the host.

A stream's number stands behind the seed in NumPy's seed sequence, ``default_rng([seed, Stream.X, ...])``, so that no
two of these draws share their random numbers. The phantom has a seed and numbers of its own. A number is never given
to another stream: every published result hangs on it. The device derives its own keys from the seed by ``fold_in``
(`federated.algorithm`).
"""

import enum


class Stream(enum.IntEnum):
    """What a stream decides."""

    TEST_SPLIT = 1  # who was in the test set of a run of version 0.1
    PARTITION_BY_CHANCE = 2  # whose scans each client holds
    PARTITION_BY_AGE = 3
    PARTITION_BY_DIRICHLET = 4
    COHORT = 5  # who takes part in a round
    BATCHES = 6  # the order of a client's examples
    PARTITION_BY_CLASS = 7
    SCORED_BATCHES = 8  # the batches that a criterion looks at
    MESSAGE_ROUNDING = 9  # which way a lossy message rounds
    FAULTS = 10  # who drops out of a round, and who is slow
    SHADOW_HALVES = 11  # who is in which half of a pair of shadow models
    TRAVEL = 12  # in which order the model goes from client to client
    SERVER_KNOWN_MEMBERS = 21  # whom an attacker knows
    SERVER_KNOWN_OUTSIDERS = 22
    CLIENT_KNOWN_OUTSIDERS = 23
    OUTSIDER_KNOWN_MEMBERS = 24
    OUTSIDER_KNOWN_OUTSIDERS = 25
    BOOTSTRAP = 31
    PEOPLE_BOOTSTRAP = 32  # of the measures of a model
    CLASSIFIER_VALIDATION = 41  # the feature classifier of an attack
    CLASSIFIER_ORDER = 42
