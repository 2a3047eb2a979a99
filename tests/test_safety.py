"""Nothing is unpickled, written elsewhere, interpreted, inflated without end, or sent: docs/reference/safety.md."""

import ast
import csv
import gzip
import io
import json
import socket
import struct
import tracemalloc
import zipfile

import nibabel as nib
import numpy as np
import psutil
import pytest

from fedsparse_jax.communication.transport import has_records, load_records
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.core.files import read_npz, read_tsv, tsv_text, write_tsv
from fedsparse_jax.data import nifti, scan_cache, scan_tables
from fedsparse_jax.data.image_sources import read_idx
from fedsparse_jax.data.roster import read_roster, roster_of
from fedsparse_jax.reporting import html, plots_classes, plots_people, plots_scans, report, style, write_report
from fedsparse_jax.runs import run_experiment
from tests.helpers import toy_federation

# --- the source ---------------------------------------------------------------------------------

UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
INTERPRETERS = {"eval", "exec", "compile", "__import__"}
PYTHON_FILES = {  # who runs a file that the user names on the command line: a config, a tracker, a study
    "fedsparse_jax/config/build.py",
    "fedsparse_jax/runs/trackers.py",
    "fedsparse_jax/studies/grid.py",
}


def forbidden(source: str) -> list[str]:
    """What of a module's source could run what stands in a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [name for name in names if name.split(".")[0] in UNPICKLERS]
        if isinstance(node, ast.Call):
            called, keys = ast.unparse(node.func), {key.arg: ast.unparse(key.value) for key in node.keywords}
            if called in INTERPRETERS | {"torch.load", "runpy.run_path", "runpy.run_module", "os.system"}:
                found.append(called)
            if keys.get("allow_pickle", "False") != "False" or keys.get("shell", "False") != "False":
                found.append(f"{called}({keys})")
            if called.endswith("Environment") and keys.get("autoescape") != "True":
                found.append("a template engine that does not escape")
            if called.split(".")[-1] == "Markup":
                found.append(called)
    return found


def test_no_module_runs_what_stands_in_a_file(repository):
    modules = [path for room in ("fedsparse_jax", "scripts") for path in sorted((repository / room).rglob("*.py"))]
    found = {path.relative_to(repository).as_posix(): forbidden(path.read_text()) for path in modules}
    assert {name: what for name, what in found.items() if what} == {key: ["runpy.run_path"] for key in PYTHON_FILES}
    for template in (repository / "fedsparse_jax").rglob("*.html"):
        assert "safe" not in template.read_text() and "autoescape" not in template.read_text()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from joblib import load", "import yaml.loader", "np.load(path, allow_pickle=True)",
        "torch.load(path)", "eval(text)", "exec(text)", "jinja2.Environment(loader=loader)", "markupsafe.Markup(text)",
        "subprocess.run(text, shell=True)",
    ],
)  # fmt: skip
def test_what_is_forbidden_is_found(source):
    assert forbidden(source)


# --- names --------------------------------------------------------------------------------------

HOSTILE = [
    "../../../outside", "/etc/outside", "~/outside", "=1+1", "+1", "-cmd|' /C calc'!A0", "@SUM(A1)", "'=x", "''@y",
    '<script>alert("1")</script>', "'><img src=x>", r"$\frac{$", "$x^2$", "tab\there", "line\nbreak", "nul\0here",
    "-1.5", "+inf", "-", "{{ 7*7 }}", "脑", "a\u202eb", "https://example.org/",
]  # fmt: skip


def test_hostile_cells_come_back_and_begin_no_formula(tmp_path):
    write_tsv(tmp_path / "a.tsv", ("id", "site"), [(name, name) for name in HOSTILE])
    assert [row["site"] for row in read_tsv(tmp_path / "a.tsv")] == HOSTILE
    with open(tmp_path / "a.tsv", encoding="utf-8", newline="") as file:
        cells = [row[1] for row in csv.reader(file, delimiter="\t")][1:]
    begins = [cell for cell in cells if cell[:1] in ("=", "+", "-", "@")]
    assert begins == ["+1", "-1.5", "+inf", "-"]  # numbers, and a dash


def test_bytes_of_a_name_that_are_no_text_are_written_as_escapes():
    assert tsv_text(["path"], [["scan\udcff.nii"]]).encode() == b"path\nscan\\udcff.nii\n"


def test_names_in_figures_are_no_formulas():
    names = [r"$\frac{$", "$x^2$", "a\u202eb"]
    ages = [(name, [50.0, 60.0]) for name in names]
    labels = [(name, [0, 1]) for name in names]
    volumes = np.random.default_rng(0).normal(size=(len(names), 6, 6, 6)).astype(np.float32)
    for figure in (
        plots_people.federation_overview(ages, [55.0]),
        plots_classes.class_overview(labels, [0, 1], ["0", "$1$"]),
        plots_classes.montage(volumes[..., 0], names),
        plots_scans.contact_sheet(volumes, names),
    ):
        assert style.render_figure(figure, "png", dpi=40).startswith(b"\x89PNG")


def saved_scan(path, seed=0, shape=(12, 14, 12)):
    data = np.zeros(shape, np.float32)
    data[2:-2, 2:-2, 2:-2] = np.random.default_rng(seed).uniform(100, 200, [side - 4 for side in shape])
    nib.save(nib.Nifti1Image(data, nifti.grid_affine(shape)), path)
    return path


def everything_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_table_of_hostile_names_writes_into_the_cache_alone(tmp_path):
    """Ids that are paths stay names; a path of the table may lead anywhere, and is read only."""
    ids = [name for name in HOSTILE if name != "-" and not set(name) & set("\t\n\0")]
    (tmp_path / "scans").mkdir()
    elsewhere = [saved_scan(tmp_path / "scans" / f"{i}.nii.gz", i) for i in range(len(ids))]
    table = tmp_path / "table" / "people.csv"
    table.parent.mkdir()
    with open(table, "w", encoding="utf-8", newline="") as file:
        rows = [(name, 60, f"../scans/{path.name}", name) for name, path in zip(ids, elsewhere, strict=True)]
        csv.writer(file).writerows([("participant_id", "age", "path", "site"), *rows])
    before = everything_below(tmp_path)
    cache = tmp_path / "below" / "cache"
    options = dict(shape=(12, 14, 12), align="affine", normalise="volume", cache_dir=cache)
    scans = scan_cache.ingest(scan_tables.read_table(table), **options)
    scan_cache.write_tables(scans, cache)
    assert [scan.site for scan in scans.scans] == ids
    assert [row["participant_id"] for row in read_tsv(cache / "accepted.tsv")] == [f"sub-{name}" for name in ids]
    after = {path: content for path, content in everything_below(tmp_path).items() if cache not in path.parents}
    assert after == before


def test_a_table_with_the_character_0_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"participant_id,age,path\nsub-1\0,60,a\0.nii\n")
    with pytest.raises(UsageError, match="characters of code 0; save it as UTF-8"):
        scan_tables.read_table(tmp_path / "a.csv")


# --- a run --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run with hostile names; what it did to sockets; the folder around it."""
    root, touched, ports = tmp_path_factory.mktemp("root"), [], []
    workdir = root / "deep" / "down" / "run"

    def refuse(*args):
        touched.append(args)
        raise AssertionError("a socket was used")

    def look(line):
        ports.extend(psutil.Process().net_connections("inet"))

    experiment = toy_federation.experiment(rounds=2, tensorboard=True, mode="transmit")
    data = experiment.federation
    names = [HOSTILE[i % len(HOSTILE)] + (str(i) if i >= len(HOSTILE) else "") for i in range(len(data.people))]
    people = [{"participant_id": name, "session": name, "site": name} for name in names]
    experiment = experiment._replace(federation=data._replace(people=people))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "bind", "listen", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "create_connection", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setattr(report, "render_figure", lambda *args, **kwargs: b"")  # drawing takes most of the time
        patch.setattr(html, "render_figure", lambda *args, **kwargs: b"")
        run_experiment(experiment, workdir, look)
        write_report(workdir)
    return root, workdir, experiment, touched, ports


def test_a_run_opens_no_port_and_sends_nothing(run):
    *_, touched, ports = run
    assert touched == [] and ports == []


def test_a_run_writes_into_its_folder_alone(run):
    root, workdir, *_ = run
    assert all(workdir in path.parents for path in everything_below(root))


def test_people_with_hostile_names_come_back(run):
    _, workdir, experiment, *_ = run
    expected = [(e.participant_id, e.session, e.set) for e in roster_of(experiment.federation)]
    assert [(e.participant_id, e.session, e.set) for e in read_roster(workdir / "people.tsv")] == expected


def test_a_report_escapes_names_and_writes_into_its_folder_alone(run, tmp_path, undrawn):
    root, workdir = tmp_path / "root", tmp_path / "root" / "deep" / "run"
    workdir.mkdir(parents=True)
    script = '<script>alert("1")</script>'
    for name in ("metrics.jsonl", "predictions.tsv", "slices.npz"):
        (workdir / name).write_bytes((run[1] / name).read_bytes())
    federation = json.loads((run[1] / "federation.json").read_text())
    for client in federation["clients"]:
        client["name"] = script
    federation["dropped"], federation["method"] = {script: 1}, script
    finding = {"refused": script}
    audit = {"threats": {script: {script: finding}}, "controls": {}, "threat": script, "round": 2, "train_mae": 1.0,
             "test_mae": 2.0, "gap": 1.0, "roc": {script: {"fpr": [0.1], "tpr": [0.5]}}}  # fmt: skip
    for name, value in (("federation", federation), ("config", {"config": {"method": script, script: script}}),
                        ("environment", {"versions": {script: script}, "seed": script}),
                        ("attack", {f"../../{script}": audit})):  # fmt: skip
        (workdir / f"{name}.json").write_text(json.dumps(value))
    page = write_report(workdir).read_text()
    assert script not in page and "&lt;script&gt;" in page and page.count("<script") == 0
    assert all(workdir in path.parents for path in everything_below(root))


# --- files that are larger than they look -------------------------------------------------------

ZEROS = 64 * 2**20


def peak_of(read, *args) -> int:
    """Bytes that Python and NumPy held at most while a file was refused, in one sentence."""
    tracemalloc.start()
    try:
        with pytest.raises(UsageError) as refusal:
            read(*args)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400


def with_header(path, tail=b"", zipped=True, **changes):
    """A scan whose header was changed and behind whose voxels something more stands."""
    plain = saved_scan(path.with_name("plain.nii"))
    raw = bytearray(plain.read_bytes())
    for form, at, *values in changes.values():
        struct.pack_into(form, raw, at, *values)
    plain.unlink()
    path.write_bytes(gzip.compress(bytes(raw) + tail, 9) if zipped else bytes(raw) + tail)
    return path


def test_a_scan_that_inflates_without_end_is_refused(tmp_path):
    path = with_header(tmp_path / "a.nii.gz", bytes(ZEROS))
    assert path.stat().st_size < 200_000
    assert peak_of(nifti.load_image, path) < 0.7 * ZEROS


def test_a_scan_whose_header_claims_more_than_its_file_can_hold_is_refused(tmp_path):
    path = with_header(tmp_path / "a.nii.gz", shape=("<3h", 42, 800, 800, 800))
    assert peak_of(nifti.load_image, path) < 2**20


@pytest.mark.parametrize("offset", [2.0**30, -1.0, float("nan"), float("inf")])
def test_a_scan_whose_voxels_begin_far_behind_its_header_is_refused(tmp_path, offset):
    extension = ("<4b2i", 348, 1, 0, 0, 0, 2**23, 4)  # of 8 MiB, which nibabel would read with the header
    path = with_header(tmp_path / "a.nii.gz", bytes(2**23), offset=("<f", 108, offset), extension=extension)
    assert peak_of(nifti.load_image, path) < 2**20


def test_a_few_bytes_behind_the_voxels_are_no_harm(tmp_path):
    path = with_header(tmp_path / "a.nii.gz", bytes(4096))
    assert nifti.load_image(path).data.shape == (12, 14, 12)


def idx(shape, body=b""):
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + body


@pytest.mark.parametrize(
    ("name", "content", "held"),
    [
        ("a.gz", gzip.compress(idx((10, 28, 28), bytes(ZEROS)), 9), "holds more"),
        ("a.gz", gzip.compress(idx((2**31, 28, 28), bytes(784)), 9), "holds at most"),
        ("a", idx((2**31, 28, 28), bytes(784)), "holds 784"),
        ("a.gz", gzip.compress(idx((2, 28, 28), bytes(784)), 9), "holds 784"),
    ],
    ids=["a bomb", "a claim", "a claim of a plain file", "cut"],
)
def test_images_that_are_more_or_less_than_they_claim_are_refused(tmp_path, name, content, held):
    (tmp_path / name).write_bytes(content)
    assert peak_of(read_idx, tmp_path / name, 3) < 2**20
    with pytest.raises(UsageError, match=held):
        read_idx(tmp_path / name, 3)


def npy(shape, body=b"", kind="|u1"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": kind, "fortran_order": False, "shape": shape})
    return stream.getvalue() + body


def zipped(path, kind=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (zipfile.ZIP_DEFLATED, npy((ZEROS,), bytes(ZEROS))),
        (zipfile.ZIP_STORED, npy((2**40,))),
        (zipfile.ZIP_STORED, npy((4,), b"\x80\x04N.", "|O")),
        (zipfile.ZIP_STORED, b"no array"),
        (zipfile.ZIP_STORED, npy((3,), b"12")),
    ],
    ids=["compressed", "huge", "pickled", "no array", "cut"],
)
def test_records_that_announce_more_than_they_hold_are_refused(tmp_path, kind, content):
    path = zipped(tmp_path / "1.npz", kind, masks=content)
    assert peak_of(read_npz, path) < 2**20 and not has_records(tmp_path, 1)


def test_records_of_another_model_are_refused(tmp_path):
    """A million masks of no bit would be a million masks of the model."""
    numbers = np.zeros(0, np.int64)
    np.savez(tmp_path / "1.npz", masks=np.zeros((10**6, 0), np.uint8), clients=numbers, which=numbers)
    assert peak_of(load_records, tmp_path, 1, {"w": np.ones(1000, bool)}) < 2**20
    with pytest.raises(UsageError, match="the masks of another model"):
        load_records(tmp_path, 1, {"w": np.ones(1000, bool)})


def test_arrays_come_back_as_numpy_wrote_them(tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.asfortranarray(np.eye(3, dtype="f4")), "c": np.array(2.5),
              "d": np.zeros((0, 4), bool)}  # fmt: skip
    np.savez(tmp_path / "a.npz", **arrays)
    for name, array in read_npz(tmp_path / "a.npz").items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])
