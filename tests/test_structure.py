"""The house holds: rooms import one way, only the right rooms know the right things, files stay short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fedsparse_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms, from the ground up. A room imports from the floors below it, never from its own floor or above.
FLOORS = [
    ["core"],
    ["sparsity", "models", "data", "communication", "attacks"],
    ["federated"],
    ["runs"],
    ["config", "reporting"],
    ["studies"],
    ["cli"],
]
CORE = ["core", "sparsity", "models", "communication", "federated"]  # runs without files, figures and scans
MAPS_OVER_CLIENTS = {"federated/client_step.py"}
MAPS_OVER_EXAMPLES = {"attacks/features.py"}
JITS = {
    "runs/loop.py",
    "config/build.py",
    "data/batching.py",
    "attacks/features.py",
    "attacks/feature_classifier.py",
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(path: Path) -> str:
    return name_of(path).partition("/")[0]


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
    return {parts[1] for parts in own} & {name for floor in FLOORS for name in floor}


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def test_every_folder_is_a_room():
    folders = {room(path) for path in MODULES if path.parent != PACKAGE}
    assert folders == {name for rooms in FLOORS for name in rooms}
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent != PACKAGE], ids=name_of)
def test_imports_point_down(path):
    for other in rooms_used(path) - {room(path)}:
        assert floor(other) < floor(room(path)), f"{name_of(path)} imports {other}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_laws(path):
    text, name, libraries = path.read_text(), name_of(path), {n.split(".")[0] for n in imported(path)}
    if room(path) not in {"config", "cli"}:
        assert "ml_collections" not in libraries, "only config/ reads configs (and cli/ the flags)"
    if room(path) != "reporting":
        assert "matplotlib" not in libraries, "only reporting/ draws"
    if room(path) != "models":
        assert "flax" not in libraries, "only models/ knows Flax"
    if name not in MAPS_OVER_CLIENTS | MAPS_OVER_EXAMPLES and room(path) != "models":
        assert "jax.vmap" not in text and "lax.map" not in text, (
            "only the client map decides how clients are executed"
        )
    if name not in JITS:
        assert "jax.jit(" not in text and "@jax.jit" not in text, "jit is applied at the edge"
    assert path.name != "utils.py"


def test_the_core_loads_neither_checkpoints_nor_figures_nor_scans():
    modules = [name_of(path).removesuffix(".py").replace("/", ".") for path in MODULES if room(path) in CORE]
    program = (
        "import sys\n"
        + "".join(f"import fedsparse_jax.{name.removesuffix('.__init__')}\n" for name in modules)
        + "print(*sorted({'orbax', 'matplotlib', 'nibabel', 'ml_collections'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_stay_short(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 500
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 80, f"{path.name}: {node.name} is too long"
