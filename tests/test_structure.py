"""The house holds: rooms import one way, only the right rooms know the right things, files stay short."""

import ast
import collections
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "fedsparse_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms, from the ground up. A room imports from the floors below it, never from its own floor or above.
FLOORS = [
    ["core"],
    ["sparsity", "models", "data", "communication", "attacks"],
    ["federated", "export"],
    ["runs"],
    ["config", "reporting"],
    ["studies", "deploy"],
    ["cli"],
]
CORE = ["core", "sparsity", "models", "communication", "federated", "export"]  # runs without files, figures and scans
MAPS_OVER_CLIENTS = {"federated/client_map.py", "federated/client_step.py"}
MAPS_OVER_EXAMPLES = {"attacks/features.py", "data/augmentation.py"}
JITS = {
    *("data/loading.py", "runs/round.py", "studies/evaluate_run.py", "studies/run_measures.py"),
    *("attacks/features.py", "attacks/feature_classifier.py"),
    "runs/hosts.py",
    *("export/formats.py", "export/stablehlo_file.py", "studies/export_run.py"),
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


def public_names(path: Path) -> set[str]:
    """What a module defines, by its own statements, without an underscore."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {part.id for target in targets if target for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_a_name_means_one_thing():
    homes = collections.defaultdict(list)
    for path in MODULES:
        if path.name != "__init__.py":
            homes[path.stem].append(name_of(path))  # a module may share its name with the function that it is about
            for name in public_names(path) - {path.stem}:
                homes[name].append(name_of(path))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_the_tests_are_laid_out_as_the_rooms_and_import_no_other_test():
    folders = {path.parent.name for path in TESTS.rglob("test_*.py") if path.parent != TESTS}
    assert folders - {"phantom", "benchmarks"} == {name for rooms in FLOORS for name in rooms}
    for path in TESTS.rglob("*.py"):
        others = {name for name in imported(path) if name.startswith("tests")}
        assert {name for name in others if not name.startswith("tests.helpers")} <= {"tests"}, path.name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_laws(path):
    text, name, libraries = path.read_text(), name_of(path), {n.split(".")[0] for n in imported(path)}
    if room(path) != "config":
        assert "ml_collections" not in libraries, "only config/ reads configs"
    if room(path) != "reporting":
        assert "matplotlib" not in libraries, "only reporting/ draws"
    if room(path) != "models":
        assert "flax" not in libraries, "only models/ knows Flax"
    if name not in MAPS_OVER_CLIENTS | MAPS_OVER_EXAMPLES and room(path) != "models":
        assert "jax.vmap" not in text and "lax.map" not in text, "only the client map decides how clients are executed"
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
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 80, f"{path.name}: {node.name} is too long"
