"""Flags of the scripts, and their errors as one sentence with exit code 2."""

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable

from absl import app, flags

from fedsparse_jax.cli.launch import wants_hosts
from fedsparse_jax.cli.process import check_platform, keep_freed_memory, show_lines_at_once, silence_orbax
from fedsparse_jax.core.errors import UsageError

flags.disclaim_key_flags()  # the flags defined here belong to the script that asks for them

CONFIG_FLAG, SET_FLAG = "config", "set"
PREFIXES = {"config.": "", "data.": "data.", "options.": "data.options."}  # of flags that set a key of a config
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
        if not wants_hosts():  # JAX is not to be used before the processes have met
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
    except Exception:
        if not wants_hosts():
            raise
        _leave_at_once(traceback.format_exc().rstrip(), 1)


def hear_stops() -> None:
    """Makes SIGTERM stop the process as Ctrl-C does, and both of them surely.

    An interrupt that comes while a destructor or a compiler's callback runs is lost there, as Python can only print it.
    It is therefore raised again every second until it is on its way up, and what is lost is not printed.
    """
    sys.unraisablehook = _print_unless_interrupt
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


def _print_unless_interrupt(lost) -> None:
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)


def parse_flags(argv: list[str]) -> None:
    """Reads the flags, the config file and its keys among them.

    Raises:
        UsageError: whatever is wrong with a flag, a config key or the config file, in one sentence.
    """
    app.define_help_flags()
    try:
        words = flags.FLAGS.read_flags_from_files(argv)
        rest = flags.FLAGS(_as_settings(words) if SET_FLAG in flags.FLAGS else words)[1:]
    except Exception as error:  # absl raises many types
        raise UsageError(f"The flags cannot be read: {_sentence(error)} (--help lists them).") from error
    if not flags.FLAGS["verbosity"].present:
        silence_orbax()
    if rest and _takes_places:
        _GIVEN.extend(rest)
    elif rest:
        raise UsageError(f"{rest[0]!r} is not a flag; options are written --name=value (see --help).")
    if CONFIG_FLAG in flags.FLAGS:
        setattr(flags.FLAGS, CONFIG_FLAG, _config(getattr(flags.FLAGS, CONFIG_FLAG)))


def _as_settings(argv: list[str]) -> list[str]:
    """Words of a command line in which every flag that sets a key, such as ``--config.KEY=VALUE``, is a ``--set``.

    >>> _as_settings(["train.py", "--config.rounds=3", "--config.log.report", "--noconfig.log.tensorboard", "--x"])
    ['train.py', '--set=rounds=3', '--set=log.report=true', '--set=log.tensorboard=false', '--x']
    >>> _as_settings(["evaluate.py", "--data.align", "rough", "--options.cap_89"])
    ['evaluate.py', '--set=data.align=rough', '--set=data.options.cap_89=true']
    """
    words, rest = [], list(argv)
    while rest:
        word = rest.pop(0)
        match = re.fullmatch(rf"--?(no)?({'|'.join(map(re.escape, PREFIXES))})([^=]+)(=(.*))?", word, re.DOTALL)
        if not match:
            words.append(word)
            continue
        negated, prefix, key, _, value = match.groups()
        if value is None:
            has_value = not negated and rest and not rest[0].startswith("--")
            value = rest.pop(0) if has_value else "false" if negated else "true"
        words.append(f"--{SET_FLAG}={PREFIXES[prefix]}{key}={value}")
    return words


def settings() -> list[tuple[str, str]]:
    """The keys of a config that the command line sets, ``(key, text)``, in order.

    Raises:
        UsageError: a ``--set`` without a value.
    """
    pairs = [text.partition("=") for text in getattr(flags.FLAGS, SET_FLAG)]
    for key, sign, _ in pairs:
        if not sign:
            raise UsageError(f"--{SET_FLAG}={key} has no value; write --config.{key}=VALUE.")
    return [(key, value) for key, _, value in pairs]


def _config(spec: str):
    """The config of a file, with the keys that the command line sets."""
    from fedsparse_jax.config import load_config, override  # only where there is a config: it loads much

    try:
        config = load_config(spec)
    except UsageError:
        raise
    except Exception as error:  # the config file may raise any
        raise UsageError(f"{spec} cannot be read: {_sentence(error)}.") from error
    return override(config, settings())


_GIVEN: list[str] = []  # words of the command line that are no flags, of a script that takes some
_takes_places: list[str] = []


def places(what: str) -> Callable[[], list[str]]:
    """Lets a script take words that are no flags.

    Args:
        what: they are, for the sentence where there are none.

    Returns:
        A function that gives the words, once the flags are parsed; it raises a UsageError where there are none.
    """
    _takes_places.append(what)

    def given() -> list[str]:
        if not _GIVEN:
            raise UsageError(f"Nothing to read is named; give {what} behind the flags.")
        return _GIVEN

    return given


def workdir_flag(help_: str = "Folder of the run."):
    """Defines the required ``--workdir``."""
    return flags.DEFINE_string("workdir", None, help_, required=True)


def config_flag():
    """Defines the required ``--config``, whose value is a ConfigDict, and the flags that set its keys."""
    keys_flag()
    return flags.DEFINE_string(
        CONFIG_FLAG,
        None,
        "Config file, such as configs/quickstart.py; ':smoke' behind it for its smallest form. Its keys are set by "
        "--config.KEY=VALUE.",
        required=True,
    )


def keys_flag(help_: str = "KEY=VALUE of the config; --config.KEY=VALUE is the same."):
    """Defines the flags that set keys of a config, see `settings`."""
    return flags.DEFINE_multi_string(SET_FLAG, [], help_)


def _sentence(error: Exception) -> str:
    """An exception as part of a sentence: its type is named only where its text says little."""
    text = " ".join(str(error).replace("\\n", " ").split()).rstrip(".")
    named = isinstance(error, ValueError | OSError) or type(error).__module__.startswith("absl")
    return text if named and text else f"{type(error).__name__}: {text}"


def _leave_at_once(sentence: str, code: int) -> None:
    """Leaves without Python's own way out, which crashes under what devices compute, and waits for other hosts."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(sentence, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


def _leave(sentence: str, code: int) -> None:
    if wants_hosts():
        _leave_at_once(sentence, code)
    print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
