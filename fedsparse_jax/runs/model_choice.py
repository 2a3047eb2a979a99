"""Which round's model is the best, by the people of the validation and never by the test set, and when that is enough.

All of it follows from the records of the rounds, so that a run that goes on chooses as if it had not been stopped.
"""

from collections.abc import Sequence

from fedsparse_jax.core.tasks import Task
from fedsparse_jax.runs.records import RoundRecord


def best_record(records: Sequence[RoundRecord], task: Task) -> RoundRecord | None:
    """The round with the best headline measure on validation, of those that may be; the first of equals, None of none.

    Args:
        records: of a run, in the order of the rounds.
        task: says which measure counts, and whether less of it is better.
    """
    best, sign = None, 1 if task.lower_is_better else -1
    for record in records:
        value = record.validation.get(task.headline)
        if record.may_be_best and value is not None and (best is None or sign * value < best[0]):
            best = sign * value, record
    return best[1] if best else None


def has_ended_early(records: Sequence[RoundRecord], task: Task, patience: int) -> bool:
    """Whether so many rounds have passed since the best one; never where ``patience`` is 0 or no round competes."""
    best = best_record(records, task) if patience else None
    return best is not None and records[-1].round - best.round >= patience
