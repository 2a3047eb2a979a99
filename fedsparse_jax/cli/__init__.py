"""What the scripts share: flags, progress bars, and errors as one sentence with exit code 2."""

from fedsparse_jax.cli.flags import (
    cache_compilations,
    config_flag,
    keep_freed_memory,
    run,
    track,
    workdir_flag,
)

__all__ = ["cache_compilations", "config_flag", "keep_freed_memory", "run", "track", "workdir_flag"]
