"""Flags of the scripts, and their errors as one sentence with exit code 2."""

import errno
import os
import re
import signal
import sys
from collections.abc import Callable

from absl import app, flags
from ml_collections import config_flags

from fedsparse_jax.cli.process import check_platform, keep_freed_memory, show_lines_at_once, silence_orbax
from fedsparse_jax.core.errors import UsageError

flags.disclaim_key_flags()  # the flags defined here belong to the script that asks for them


REMEDIES = {  # of what a file system refuses
    errno.ENOSPC: "free some space, then give the same command again: what was saved is whole",
    errno.EDQUOT: "free some of your quota, then give the same command again: what was saved is whole",
    errno.EACCES: "choose a folder that you may write into",
    errno.EPERM: "choose a folder that you may write into",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOENT: "make it, or choose another path",
    errno.ENOTDIR: "a part of that path is a file; choose another folder",
    errno.EEXIST: "a folder is needed there; move that file away, or choose another folder",
    errno.EISDIR: "a file is needed there; move that folder away, or choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "a limit on the size of files is in the way (ulimit -f); lift it, then give the same command again",
    errno.EMFILE: "the limit on open files is in the way (ulimit -n); lift it, then give the same command again",
    errno.ENOLCK: "files cannot be locked there; choose a folder on another disk",
    errno.EIO: "the disk or its network is failing; mend it, then give the same command again",
    errno.ESTALE: "the network disk was mounted anew; give the same command again",
}


def run_main(main: Callable[[], None]) -> None:
    """Parses the flags, calls ``main()`` and ends the process.

    Exit codes: 0 done; 2 the user can mend it, with one sentence on stderr; 130 stopped by Ctrl-C or SIGTERM.
    """
    keep_freed_memory()
    show_lines_at_once()
    try:
        hear_stops()
        parse_flags(sys.argv)
        check_platform()
        main()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except UsageError as error:
        _leave(str(error), 2)
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        _leave(f"{error.filename or 'A file'}: {error.strerror}; {REMEDIES[error.errno]}.", 2)
    except KeyboardInterrupt:
        _leave_at_once("Stopped. Finished rounds are safe, and the same command goes on from there.", 130)


def hear_stops() -> None:
    """Makes SIGTERM stop the process as Ctrl-C does, and both of them surely.

    An interrupt that comes while a destructor or a compiler's callback runs is lost there, as Python can only print it.
    It is therefore raised again every second until it is on its way up.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt_again)


def _interrupt(*_) -> None:
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    raise KeyboardInterrupt


def _interrupt_again(*_) -> None:
    if not isinstance(sys.exception(), KeyboardInterrupt):
        raise KeyboardInterrupt


def parse_flags(argv: list[str]) -> None:
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
    if not flags.FLAGS["verbosity"].present:
        silence_orbax()
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


def _sentence(error: Exception) -> str:
    """An exception as part of a sentence: its type is named only where its text says little."""
    text = " ".join(str(error).replace("\\n", " ").split()).rstrip(".")
    if renamed := _renamed_key(text):
        return renamed
    if suggestion := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text):
        return f"the config has no key {suggestion[2]!r}; did you mean {suggestion[1]!r}?"
    if form := re.search(r"the config has no form '.*", text):
        return form[0]
    if missing := re.search(r"No such file or directory: '(.+?)'", text):
        return f"there is no config file {missing[1]}"
    if isinstance(error, AttributeError | KeyError):
        key = str(error.args[0]).strip("\"'")
        return f"the config has no key {key!r}"
    named = isinstance(error, ValueError | OSError) or type(error).__module__.startswith("absl")
    return text if named and text else f"{type(error).__name__}: {text}"


def _renamed_key(text: str) -> str:
    """A sentence for a flag that sets a key by the name of an earlier version; else empty."""
    from fedsparse_jax.runs.migrations import RENAMED_KEYS  # only where something is wrong: it loads much

    for old, new in RENAMED_KEYS.items():
        asked = re.compile(rf"--?config\.{re.escape(old)}(=.*)?")
        if any(map(asked.fullmatch, sys.argv)) and any(part in text for part in old.split(".")):
            return f"the config's key {old} is now called {new}"
    return ""


def _leave_at_once(sentence: str, code: int) -> None:
    """Leaves without Python's own way out, which crashes under what devices still compute."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(sentence, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


def _leave(sentence: str, code: int) -> None:
    print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
