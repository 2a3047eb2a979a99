"""What every script shares: flags, progress bars, and errors as one sentence with exit code 2."""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from fedsparse_jax.core.types import UsageError

flags.disclaim_key_flags()  # the flags defined here belong to the script that asks for them


def run(main: Callable[[], None]) -> None:
    """Parses the flags, calls ``main()`` and ends the process.

    Exit codes: 0 done; 2 the user can mend it, with one sentence on stderr; 130 stopped by Ctrl-C or SIGTERM.
    """
    keep_freed_memory()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        parse(sys.argv)
        main()
    except UsageError as error:
        _leave(str(error), 2)
    except KeyboardInterrupt:
        _leave("Stopped. Finished rounds are safe, and the same command goes on from there.", 130)


def _interrupt(*_) -> None:
    """As Ctrl-C does, also where a shell's background job ignores that."""
    raise KeyboardInterrupt


def parse(argv: list[str]) -> None:
    """Reads the flags, the config file among them.

    Raises:
        UsageError: whatever is wrong with a flag, a config key or the config file, in one sentence.
    """
    app.define_help_flags()
    try:
        rest = flags.FLAGS(argv)[1:]
        if "config" in flags.FLAGS:
            _ = flags.FLAGS.config.seed  # a config file that cannot be loaded shows itself only on use
    except UsageError:
        raise
    except Exception as error:  # absl and ml_collections raise many types, and the config file any
        raise UsageError(f"The flags cannot be read: {_sentence(error)} (--help lists them).") from error
    if rest:
        raise UsageError(f"{rest[0]!r} is not a flag; options are written --name=value (see --help).")


def workdir_flag(help_: str = "Folder of the run."):
    """Defines the required ``--workdir``."""
    return flags.DEFINE_string("workdir", None, help_, required=True)


def config_flag():
    """Defines the required ``--config``."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, such as configs/quickstart.py; ':smoke' behind it for its smallest form.",
        lock_config=True,
    )


def track(items: Iterable, description: str, total: int) -> Iterable:
    """Progress bar with time left; where there is no terminal, a line every tenth."""
    if sys.stdout.isatty():
        from rich.progress import track as bar

        return bar(items, description, total)
    return _lines(items, description, total)


def cache_compilations(folder: str | None = None) -> None:
    """Keeps compiled programs in a user cache folder, so that a second start compiles nothing."""
    import jax

    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "fedsparse_jax" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(Path(folder or default).expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


MALLOPT = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_MMAP_MAX": (-4, 0)}  # by the numbers of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tells glibc to keep what was freed for the next round; returns whether there is a glibc to tell.

    By default it gives large arrays back to the system, which hands out fresh, zeroed pages for the next ones: a
    round's largest cost beyond its steps on CPU (docs/performance.md). To be called before other threads are started.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        return all([library.mallopt(*setting) for setting in MALLOPT.values()])
    except (OSError, AttributeError):
        return False


def _lines(items: Iterable, description: str, total: int) -> Iterable:
    for done, item in enumerate(items, 1):
        yield item
        if done * 10 // total > (done - 1) * 10 // total:
            print(f"{description}: {done}/{total}", flush=True)


def _sentence(error: Exception) -> str:
    """An exception as part of a sentence: its type is named only where its text says little."""
    text = " ".join(str(error).replace("\\n", " ").split()).rstrip(".")
    if suggestion := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text):
        return f"the config has no key {suggestion[2]!r}; did you mean {suggestion[1]!r}?"
    if form := re.search(r"the config has no form '.*", text):
        return form[0]
    if missing := re.search(r"No such file or directory: '(.+?)'", text):
        return f"there is no config file {missing[1]}"
    if isinstance(error, AttributeError | KeyError):
        return f"the config has no key {error.args[0]!s}"
    named = isinstance(error, ValueError | OSError) or type(error).__module__.startswith("absl")
    return text if named and text else f"{type(error).__name__}: {text}"


def _leave(sentence: str, code: int) -> None:
    print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
