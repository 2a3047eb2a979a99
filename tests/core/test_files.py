"""Files are whole or not there, and tables come back as they were written."""

import os
from pathlib import Path

import pytest

from fedsparse_jax.core.files import read_json, read_tsv, tsv_text, write_json, write_tsv, write_whole


def test_a_file_is_written_with_the_folders_above_it(tmp_path):
    write_whole(tmp_path / "a" / "b" / "text.md", "Größe\n")
    write_whole(tmp_path / "a" / "b" / "bytes.bin", b"\x00\r\n\xff")
    assert (tmp_path / "a/b/text.md").read_bytes() == b"Gr\xc3\xb6\xc3\x9fe\n"
    assert (tmp_path / "a/b/bytes.bin").read_bytes() == b"\x00\r\n\xff"
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == ["bytes.bin", "text.md"]


@pytest.mark.parametrize("step", ["write_bytes", "replace"])
def test_writing_that_fails_leaves_the_old_file_and_nothing_half_written(tmp_path, monkeypatch, step):
    file, write_bytes = tmp_path / "metrics.jsonl", Path.write_bytes
    write_whole(file, "before\n")

    def write_a_half_and_fail(path, content):
        write_bytes(path, content[: len(content) // 2])
        raise OSError("No space left on device")

    def fail(source, target):
        raise OSError("No space left on device")

    if step == "write_bytes":
        monkeypatch.setattr(Path, "write_bytes", write_a_half_and_fail)
    else:
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "after, and much longer\n")
    assert file.read_text() == "before\n"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_value_that_is_no_json_is_refused_before_the_file_is_touched(tmp_path):
    write_json(tmp_path / "config.json", {"seed": 3})
    with pytest.raises(TypeError):
        write_json(tmp_path / "config.json", {("a", "tuple"): "cannot be a key"})
    assert read_json(tmp_path / "config.json") == {"seed": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_what_json_does_not_know_is_written_as_text(tmp_path):
    write_json(tmp_path / "about.json", {"shape": (2, 3), "root": Path("scans")})
    assert read_json(tmp_path / "about.json") == {"shape": [2, 3], "root": "scans"}
    assert (tmp_path / "about.json").read_text().endswith("}\n")


def test_a_table_with_quotes_tabs_and_line_breaks_comes_back(tmp_path):
    rows = [
        ("sub-1", 'the "old" scanner', "63.5"),
        ("sub-2", "left\tright", "n/a"),
        ("sub-3", "two\nlines", "71.0"),
        ('"sub-4"', "it's, say; here", "0"),
    ]
    write_tsv(tmp_path / "participants.tsv", ("participant_id", "site", "age"), rows)
    read = read_tsv(tmp_path / "participants.tsv")
    assert read == [dict(zip(("participant_id", "site", "age"), row)) for row in rows]


def test_plain_cells_are_written_plainly_and_empty_ones_as_in_bids():
    text = tsv_text(["participant_id", "age", "site"], [["sub-1", 63.5, ""], ["sub-2", 0, "it's, say; here"]])
    assert text == "participant_id\tage\tsite\nsub-1\t63.5\tn/a\nsub-2\t0\tit's, say; here\n"


def test_a_table_that_is_not_there_has_no_rows(tmp_path):
    assert read_tsv(tmp_path / "participants.tsv") == []
    write_tsv(tmp_path / "participants.tsv", ("participant_id", "age"), [])
    assert read_tsv(tmp_path / "participants.tsv") == []
