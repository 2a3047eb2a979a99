"""What the scripts share: flags, progress bars, and errors as one sentence with exit code 2."""

from fedsparse_jax.cli.flags import config_flag, keys_flag, places, run_main, settings, workdir_flag
from fedsparse_jax.cli.launch import hosts_flags, many_hosts
from fedsparse_jax.cli.process import begin_worker, cache_compilations, keep_freed_memory, show_progress
