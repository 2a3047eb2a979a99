"""What a script does for its process: progress, compiled programs that are kept, memory that is kept."""

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import jax
import pytest
from absl import logging

from fedsparse_jax import cli
from fedsparse_jax.cli import cache_compilations, show_progress

SETTINGS = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}


def test_where_there_is_no_terminal_progress_is_a_line_every_tenth(capsys):
    assert list(show_progress(range(30), "reading", 30)) == list(range(30))
    assert capsys.readouterr().out.splitlines() == [f"reading: {3 * i}/30" for i in range(1, 11)]


def test_few_items_have_a_line_each(capsys):
    assert list(show_progress("abc", "letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().out.splitlines() == ["letters: 1/3", "letters: 2/3", "letters: 3/3"]
    assert list(show_progress([], "nothing", 0)) == []
    assert capsys.readouterr().out == ""


def test_a_line_is_said_once_its_item_is_done(capsys):
    items = show_progress([10, 20], "work", 2)
    assert next(items) == 10 and capsys.readouterr().out == ""
    assert next(items) == 20 and capsys.readouterr().out == "work: 1/2\n"


def test_in_a_terminal_progress_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert list(show_progress(range(4), "reading", 4)) == [0, 1, 2, 3]
    out = capsys.readouterr().out
    assert "reading" in out and "100%" in out and "reading: 4/4" not in out


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "runs/a: No space left on device; free some space, then give the same command again"),
        (errno.EDQUOT, "runs/a: Disk quota exceeded; free some of your quota, then"),
        (errno.EACCES, "runs/a: Permission denied; choose a folder that you may write into."),
        (errno.EROFS, "runs/a: Read-only file system; choose a folder that can be written."),
        (errno.ENOENT, "runs/a: No such file or directory; make it, or choose another path."),
        (errno.EEXIST, "runs/a: File exists; a folder is needed there; move that file away, or"),
        (errno.EFBIG, "runs/a: File too large; a limit on the size of files is in the way (ulimit -f); lift it"),
        (errno.EIO, "runs/a: Input/output error; the disk or its network is failing; mend it, then give the same"),
        (errno.ENOLCK, "runs/a: No locks available; files cannot be locked there; choose a folder on another disk."),
    ],
)
def test_what_a_disk_refuses_is_one_sentence(monkeypatch, capsys, number, sentence):
    def main():
        raise OSError(number, os.strerror(number), "runs/a")

    monkeypatch.setattr(cli.flags, "parse_flags", lambda argv: None)
    monkeypatch.setattr(cli.flags.signal, "signal", lambda *_: None)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    with pytest.raises(SystemExit) as left:
        cli.flags.run_main(main)
    assert left.value.code == 2 and capsys.readouterr().err.startswith(sentence)


LOSES_AN_INTERRUPT = """
import os, signal, time
from fedsparse_jax import cli

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.01)  # the interrupt is raised here, where Python can only print it

def main():
    Deaf()
    try:
        time.sleep(60)
        print("ended as usual")
    finally:
        time.sleep(2.5)  # what is tidied up is not interrupted a second time
        print("tidied up")

signal.signal(signal.SIGINT, signal.default_int_handler)
cli.run_main(main)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_that_a_destructor_loses_is_raised_again_and_what_is_tidied_up_is_not_interrupted(name):
    ended = subprocess.run([sys.executable, "-c", LOSES_AN_INTERRUPT.format(name=name)], capture_output=True, text=True)
    assert ended.returncode == 130 and ended.stdout == "tidied up\n"
    assert ended.stderr == "Stopped. Finished rounds are safe, and the same command goes on from there.\n"


@pytest.fixture
def settings():
    """The settings of the compilation cache, which the other tests need as they were."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    yield lambda: {name: getattr(jax.config, name) for name in SETTINGS}
    for name, value in before.items():
        jax.config.update(name, value)


def test_compiled_programs_are_kept_in_the_folder_that_is_asked_for(settings, tmp_path):
    cache_compilations(str(tmp_path / "programs"))
    assert settings() == {**SETTINGS, "jax_compilation_cache_dir": str(tmp_path / "programs")}


def test_compiled_programs_are_kept_in_the_users_cache(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_compilations()
    assert settings()["jax_compilation_cache_dir"] == str(tmp_path / "fedsparse_jax/xla")
    monkeypatch.delenv("XDG_CACHE_HOME")
    cache_compilations()
    assert settings()["jax_compilation_cache_dir"] == str(Path.home() / ".cache/fedsparse_jax/xla")


def test_where_programs_cannot_be_kept_a_run_goes_on_without(settings, tmp_path, capsys):
    before = settings()
    (tmp_path / "file").touch()
    cache_compilations(str(tmp_path / "file/programs"))
    assert settings() == before and "cannot be kept in the cache folder; set XDG_CACHE_HOME" in capsys.readouterr().err


def test_an_empty_setting_of_the_cache_is_none(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    cache_compilations()
    assert settings()["jax_compilation_cache_dir"] == str(tmp_path / ".cache/fedsparse_jax/xla")


@pytest.mark.parametrize("platform_", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there_is_one_sentence_of_every_script(repository, platform_):
    command = [sys.executable, "scripts/report.py", "--workdir=runs/none"]
    environment = {**os.environ, "JAX_PLATFORMS": platform_}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"JAX_PLATFORMS is '{platform_}', but this machine has no such platform")
    assert "JAX_PLATFORMS=cpu" in done.stderr
    for script in (repository / "scripts").glob("*.py"):
        assert "cli.run_main(main)" in script.read_text(), f"{script.name} does not begin as the others do"


def test_a_line_is_in_the_log_when_it_is_said(repository, tmp_path):
    """Also without a terminal, where Python keeps lines back."""
    program = (
        "import os; from fedsparse_jax.cli import process; process.show_lines_at_once(); print('said'); os._exit(0)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, env=environment, capture_output=True)
    assert done.stdout == b"said\n"


def test_the_words_of_orbax_are_not_shown(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", shown := Mock())
    before = logging.get_verbosity()
    try:
        cli.process.silence_orbax()
        assert not logging.level_error()
    finally:
        logging.set_verbosity(before)
    sys.unraisablehook(Mock(exc_value=RuntimeError("Event loop is closed")))
    shown.assert_not_called()
    sys.unraisablehook(Mock(exc_value=RuntimeError("something else")))
    shown.assert_called_once()


def test_freed_memory_is_kept_where_there_is_glibc():
    program = "from fedsparse_jax import cli; print(cli.keep_freed_memory())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == str(platform.libc_ver()[0] == "glibc")
