"""The commands of docs/how-to/cohorts.md, and of the configs of open cohorts, run as they are typed, on stand-ins."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from tests.helpers import stand_ins

pytestmark = pytest.mark.slow  # runs of seconds, and many of them

ROOT = Path(__file__).parent.parent.parent
COMMAND = re.compile(r"^\s*python scripts/(\w+)\.py (.*)$", re.MULTILINE)


def derivatives_elsewhere(folder):
    """Outside of the BIDS folder, whose table lies beside them."""
    inside = stand_ins.write_fmriprep(folder / "bids")
    (folder / "bids/participants.tsv").rename(folder / "people.tsv")
    return inside.rename(folder / "fmriprep")


PLACES = {
    "RADIATA_FOLDER": stand_ins.write_radiata,
    "OPENBHB_FOLDER": stand_ins.write_openbhb,
    "OASIS_FOLDER": stand_ins.write_oasis1,
    "OASIS_DISCS": stand_ins.write_oasis_discs,
    "IXI_FOLDER": stand_ins.write_ixi,
    "ABIDE_FOLDER": stand_ins.write_abide,
    "CAMCAN_FOLDER": stand_ins.write_camcan,
    "DERIVATIVES": stand_ins.write_fmriprep,
    "DERIVATIVES_ELSEWHERE": derivatives_elsewhere,
    "SUBJECTS_DIR": stand_ins.write_freesurfer,
    "CAT12_FOLDER": stand_ins.write_cat12,
    "SCANS_FOLDER": stand_ins.write_files,
    "organmnist3d.npz": stand_ins.write_medmnist3d,
    "cifar10.npz": stand_ins.write_cifar10,
}
FEWER = {"abide": 5, "openbhb": 5}  # of the six, by the options of the config


def commands(text):
    found = COMMAND.findall(re.sub(r"\\\n\s*", "", text))
    return [(script, " ".join(flags.split())) for script, flags in found]


def name_of(flags):
    """The config, and the folder that is written."""
    return f"{Path(flags.split('.py')[0]).name}-{Path(flags.rpartition('=')[2]).name}"


PAGE = commands((ROOT / "docs/how-to/cohorts.md").read_text())
PREPARE, TRAIN = ([flags for script, flags in PAGE if script == wanted] for wanted in ("prepare", "train"))


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """The words of a command, with a stand-in where the page has a placeholder."""
    written = {}

    def words(flags, output):
        for place, write in PLACES.items():
            if re.search(rf"={re.escape(place)}(\s|$)", flags):
                if place not in written:
                    folder = tmp_path_factory.mktemp("stand_in")
                    written[place] = write(folder / place if "." in place else folder)
                flags = re.sub(rf"={re.escape(place)}(?=\s|$)", f"={written[place]}", flags)
                if place == "DERIVATIVES_ELSEWHERE":
                    flags = flags.replace("=PARTICIPANTS_TABLE", f"={written[place].parent / 'people.tsv'}")
        return shlex.split(re.sub(r"(--workdir|--output)=\S+", rf"\1={output}", flags))

    return words


@pytest.mark.parametrize("flags", PREPARE, ids=name_of)
def test_prepare(flags, typed, call, tmp_path):
    done = call("prepare", *typed(flags, tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    name = Path(flags.split("--config=")[1].split(".py")[0]).name
    count = 6 if "test=both" in flags else FEWER.get(name, 6)
    assert f"accepted  {count} scans of {count} people" in done.stdout
    assert ("channels  2 images of each head" in done.stdout) == ("channels=2" in flags)
    assert (tmp_path / "out/contact_sheet.png").stat().st_size > 10_000
    page = (tmp_path / "out/cohort.html").read_text()
    assert ("<td>Philips, 1.5 T</td>" in page) == (name == "radiata") and ("<td>3 T</td>" in page) == (
        name == "openbhb"
    )
    assert ("test set, external" in page) == ("test=both" in flags)


@pytest.mark.parametrize("flags", TRAIN, ids=name_of)
def test_train(flags, typed, call, tmp_path):
    """As typed but for the form of seconds behind the config's name."""
    smoke = re.sub(r"(--config=\S+\.py) ", r"\1:smoke ", flags)
    if "configs/methods/" in flags:
        smoke += " --config.partition.num_clients=2"
    done = call("train", *typed(smoke, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/report.html").exists() and (tmp_path / "run/predictions.tsv").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs/cohorts").glob("*.py")), ids=lambda path: path.stem)
def test_the_commands_of_a_config_are_those_of_the_page(path):
    own = commands(ast.get_docstring(ast.parse(path.read_text())))
    assert own and set(own) <= set(PAGE)
    assert "docs/how-to/cohorts.md" in path.read_text()


def affine_of_arrays(folder):
    root = stand_ins.write_files(folder)
    for i in range(6):
        (root / f"scan{i + 1}.nii.gz").unlink()
        stand_ins.save_array(root / f"scan{i + 1}.npy", i, (91, 109, 91), stand_ins.LAS_2, "float32")
    return root


def table_elsewhere(folder):
    root = stand_ins.write_files(folder / "scans")
    (root / "participants.csv").rename(folder / "ages.csv")
    return root


def another_image(folder):
    root = stand_ins.write_freesurfer(folder)
    for path in root.glob("*/mri/norm.mgz"):
        path.unlink()
    return root


@pytest.mark.parametrize(
    ("name", "write", "said", "remedy"),
    [
        ("files", affine_of_arrays, "data.options.affine is .*: .* set it to one of .*mni91", "affine=mni91"),
        (
            "files",
            table_elsewhere,
            "data.options.participants is .*: .* set it to one with",
            "participants={}/ages.csv",
        ),
        ("freesurfer", another_image, "data.options.image is 'norm': .* there is: orig_nu", "image=orig_nu"),
    ],
)
def test_the_remedy_of_a_refusal_works_as_typed(name, write, said, remedy, call, tmp_path):
    root = write(tmp_path / "in")
    flags = [f"--config=configs/cohorts/{name}.py:smoke", f"--config.data.root={root}", f"--output={tmp_path}/out"]
    done = call("prepare", *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr and re.search(said, done.stderr), done.stderr
    done = call("prepare", *flags, f"--config.data.options.{remedy.format(tmp_path / 'in')}")
    assert done.returncode == 0 and "accepted  6 scans of 6 people" in done.stdout, done.stderr


def test_the_number_of_channels_is_said_as_it_is_typed(call, tmp_path):
    root = stand_ins.write_cat12(tmp_path / "in")
    flags = ["--config=configs/cohorts/cat12.py:smoke", f"--config.data.root={root}", f"--output={tmp_path}/out"]
    done = call("prepare", *flags, "--config.data.options.image=mwp1,mwp2")
    assert done.returncode == 2 and "data.channels is 1, but each head has 2 channels; set it to 2." in done.stderr
    done = call("prepare", *flags, "--config.data.options.image=mwp1,mwp2", "--config.data.channels=2")
    assert done.returncode == 0, done.stderr
