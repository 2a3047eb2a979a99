"""The examples of the documentation run, its links lead somewhere, and its tables are those of the code."""

import re
import runpy
import subprocess
import sys

import jax
import pytest

import fedsparse_jax as fs
from fedsparse_jax.federated.named_hooks import HOOKS
from fedsparse_jax.runs.records import describe_fields

REGISTRIES = (
    fs.sparsity.CRITERIA, fs.sparsity.SCHEDULES, fs.sparsity.SCOPES, fs.sparsity.REGROWTH, fs.federated.AGGREGATORS,
    HOOKS, fs.core.LOSSES, fs.models.MODELS, fs.data.PARTITIONS, fs.data.SCAN_SOURCES, fs.data.IMAGE_SOURCES,
    fs.communication.VALUE_CODECS, fs.attacks.FEATURES, fs.attacks.ATTACKS,
)  # fmt: skip


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def test_every_extension_point_has_an_example_that_runs(repository):
    blocks = python_blocks(repository / "docs/how-to/extend.md")
    before = [dict(registry) for registry in REGISTRIES]
    try:
        exec("\n".join(blocks), {})
        assert all(len(now) > len(old) for now, old in zip(REGISTRIES, before))
    finally:
        for registry, old in zip(REGISTRIES, before):
            registry.clear()
            registry.update(old)


def test_the_example_of_a_whole_audit_runs(repository):
    (block,) = python_blocks(repository / "docs/explanation/threats.md")
    exec(block, {})


@pytest.mark.slow
def test_own_arrays_reach_95_percent_sparsity_and_beat_predicting_the_mean(repository):
    script = repository / "docs/examples/own_arrays.py"
    assert len(script.read_text().splitlines()) < 60
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    last = re.fullmatch(r"round 24: sparsity 0\.950, test MAE (\d+\.\d+) years", done.stdout.splitlines()[-1])
    assert float(last[1]) < 4  # predicting the mean of ages from 45 to 80 is off by 8.75 years


@pytest.mark.slow
def test_fedsparsify_by_hand_reaches_95_percent_sparsity_and_beats_the_commonest_class(repository):
    script = repository / "docs/examples/fedsparsify_by_hand.py"
    assert len(script.read_text().splitlines()) < 80 and "config" not in script.read_text()
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    lines = [
        re.fullmatch(r"round ( \d|\d\d): sparsity (0\.\d+), test accuracy (0\.\d+)", line)
        for line in done.stdout.splitlines()
    ]
    assert [int(line[1]) for line in lines] == list(range(1, 31))
    sparsities = [float(line[2]) for line in lines]
    assert sparsities == sorted(sparsities) and sparsities[3] == 0 and sparsities[-11:] == [0.95] * 11
    assert float(lines[-1][3]) > 0.85  # ten classes: the commonest one is a tenth


@pytest.mark.slow
def test_the_python_in_the_readme_runs_on_the_arrays_of_the_example(repository):
    (block,) = python_blocks(repository / "README.md")
    assert len(block.splitlines()) <= 15
    example = runpy.run_path(str(repository / "docs/examples/own_arrays.py"))
    exec(block, scope := {"own_arrays": example["own_arrays"]})
    weights = sum(leaf.size for leaf in jax.tree.leaves(scope["server"].masks))
    assert int(sum(scope["info"].kept)) / weights == pytest.approx(0.05, abs=1e-3)


def test_the_record_of_a_round_is_documented_field_by_field(repository):
    page = (repository / "docs/reference/run_folder.md").read_text()
    for name, meaning in describe_fields():
        assert f"| `{name}` | {meaning} |" in page


PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]


def test_links_lead_to_files(repository):
    pages = [repository / name for name in PAGES] + sorted((repository / "docs").rglob("*.md"))
    for page in pages:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not link.startswith(("http", "mailto")):
                assert (page.parent / link).exists(), f"{page.name} links to {link}, which is not there"


def test_paths_of_the_repository_that_the_documentation_names_are_there(repository):
    pages = [repository / "README.md"] + sorted((repository / "docs").rglob("*.md"))
    for page in pages:
        text = page.read_text()
        for path in re.findall(r"\b((?:configs|scripts|docs|tests|fedsparse_jax)/[\w./-]+\.(?:py|md|txt))\b", text):
            assert (repository / path).exists(), f"{page.name} names {path}, which is not there"
