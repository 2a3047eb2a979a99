"""What a script does for its process: progress, compiled programs that are kept, memory that is kept."""

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

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
    ],
)
def test_what_a_disk_refuses_is_one_sentence(monkeypatch, capsys, number, sentence):
    def main():
        raise OSError(number, os.strerror(number), "runs/a")

    monkeypatch.setattr(cli.flags, "parse_flags", lambda argv: None)
    monkeypatch.setattr(cli.flags.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as left:
        cli.flags.run_main(main)
    assert left.value.code == 2 and capsys.readouterr().err.startswith(sentence)


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


def test_freed_memory_is_kept_where_there_is_glibc():
    program = "from fedsparse_jax import cli; print(cli.keep_freed_memory())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == str(platform.libc_ver()[0] == "glibc")
