"""The house holds: imports point one way, only the right rooms know the right things, files stay short."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fedsparse_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the ground up; a module may import what stands on a lower floor, and its neighbours within a folder.
FLOORS = [
    {"types"},
    {"tree"},
    {
        "masks",
        "criteria",
        "schedules",
        "losses",
        "metrics",
        "flops",
        "models",
        "data",
        "attacks",
        "defaults",
        "accounting",
    },
    {"local", "pruning", "aggregation", "wire", "figures", "slices", "classes", "log"},
    {"regrowth", "leaks", "page"},
    {"federated", "checkpoint", "report", "exchange", "folder"},
    {"experiment", "method"},
    {"build"},
    {"compare", "cli", "benchmarks", "wire_sizes", "shadowing", "auditing"},
    {"study"},
]
EDGE = {
    "experiment.py",
    "build.py",
    "data/cohort.py",
    "attacks/features.py",
    "attacks/encoders.py",
}
FOLDERS_KNOW_ONLY = {"types", "tree", "losses"}  # models, data and attacks


def room(path: Path) -> str:
    """The module's name, or its folder's."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Names of everything imported, as dotted paths."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def rooms_used(path: Path) -> set[str]:
    own = (name.split(".") for name in imported(path) if name.startswith("fedsparse_jax."))
    rooms = {parts[1] for parts in own}
    return {name for name in rooms if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = room(path)
    if here == "__init__":
        return
    for other in rooms_used(path) - {here}:
        assert floor(other) <= floor(here), f"{path.name} imports {other}, which stands above it"
        assert here not in rooms_used_by(other), f"{here} and {other} import each other"


def rooms_used_by(name: str) -> set[str]:
    paths = [p for p in MODULES if room(p) == name]
    return set().union(*(rooms_used(p) for p in paths)) - {name}


@pytest.mark.parametrize("folder", ["models", "data", "attacks"])
def test_folders_know_only_the_vocabulary(folder):
    assert rooms_used_by(folder) <= FOLDERS_KNOW_ONLY


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_laws(path):
    text, here, name = path.read_text(), room(path), str(path.relative_to(PACKAGE))
    if here not in {"build", "method", "defaults"}:
        assert "ConfigDict" not in text, "only build.py and method.py read configs"
    if here != "models":
        assert not any(name.split(".")[0] == "flax" for name in imported(path)), "only models/ knows Flax"
    if here not in {"local", "models"} and name != "attacks/features.py":  # which maps over examples
        assert "jax.vmap" not in text and "lax.map" not in text, "only local.py maps over clients"
    if name not in EDGE and here != "benchmarks":
        assert "jax.jit(" not in text and "@jax.jit" not in text, "jit is applied at the edge"
    assert path.name != "utils.py"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_short(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 500
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 80, f"{path.name}: {node.name} is too long"
