"""Errors that a user can mend: one sentence that names what is wrong, and the remedy."""


class UsageError(ValueError):
    """The user can mend this: one sentence that names the file or the key, and the remedy.

    Scripts print the sentence alone and exit with code 2; nothing is written before it is raised.
    """


class ArgumentError(UsageError):
    """An argument of a function cannot be used.

    The sentence begins with the argument's own name, so that ``config/`` can put the path of the section before it:
    ``final is 2: ...`` becomes ``pruning.schedule.final is 2: ...``.

    >>> str(ArgumentError("final", 2, "a sparsity lies between 0 and 1"))
    'final is 2: a sparsity lies between 0 and 1.'
    """

    def __init__(self, argument: str, value: object, rule: str):
        super().__init__(f"{argument} is {value!r}: {rule}.")
        self.argument = argument
