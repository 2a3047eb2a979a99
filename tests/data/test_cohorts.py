"""Open cohorts by name: each stand-in is read with its people, ages, sites and test sets; what is odd is said."""

import inspect
import shutil

import nibabel as nib
import numpy as np
import pytest

from fedsparse_jax.config import experiment_from_config, load_config, read_scans
from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.cohorts import joining
from fedsparse_jax.data.roster import roster_of, write_roster
from fedsparse_jax.data.scan_sources import SCAN_SOURCES
from fedsparse_jax.data.tables import Rows
from fedsparse_jax.runs.run_dir import recorded_people
from tests.helpers import stand_ins
from tests.helpers.stand_ins import AGES, STAND_INS, write_text

SOURCE = {"fmriprep": "bids"}
LEFT_OUT = {"abide": 1}  # of the six, by the config's options


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """The folder of a stand-in, written once."""
    written = {}

    def folder(name):
        if name not in written:
            written[name] = STAND_INS[name](tmp_path_factory.mktemp(name))
        return written[name]

    return folder


def list_scans(name, root, **options):
    return SCAN_SOURCES[name].list_scans(str(root), None, None, **options)


def configured(repository, name, root, cache, **options):
    config = load_config(f"{repository}/configs/cohorts/{name}.py:smoke")
    config.data.root, config.data.cache_dir = str(root), str(cache)
    config.data.options.update(options)
    return config


@pytest.mark.parametrize("name", STAND_INS)
def test_the_config_of_a_cohort_reads_its_layout(name, cohort, repository, tmp_path):
    """Everybody with their own age, in the order of the ages; every image differs and none is dropped as unreadable."""
    options = dict(test="both") if name == "openbhb" else {}
    scan_set = read_scans(configured(repository, name, cohort(name), tmp_path, **options))
    count = len(AGES) - LEFT_OUT.get(name, 0)
    assert sorted(scan.age for scan in scan_set.scans) == list(AGES[:count])
    assert len({scan.participant for scan in scan_set.scans}) == count
    assert {scan.sex for scan in scan_set.scans} == {"F", "M"}
    assert scan_set.inputs.shape == (count, 16, 18, 16, 1)
    assert not any("MNI" in text or "orientation" in text for of in scan_set.quality for text in of.warnings)


@pytest.mark.parametrize("name", STAND_INS)
def test_every_option_of_a_config_is_one_of_its_source(name, repository):
    config = load_config(f"{repository}/configs/cohorts/{name}.py")
    assert config.data.source == SOURCE.get(name, name)
    assert set(config.data.options) <= set(inspect.signature(SCAN_SOURCES[config.data.source].options_of).parameters)


@pytest.mark.parametrize("name", sorted(set(SCAN_SOURCES) - {"phantom", "bids", "table"}))
def test_a_folder_that_is_not_there_or_holds_nothing_is_one_sentence(name, tmp_path):
    with pytest.raises(UsageError, match="root is .*(no such folder|holds? metadata.csv).*"):
        list_scans(name, tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"^(root|participants) is "):
        list_scans(name, tmp_path)


# --- OpenBHB -------------------------------------------------------------------------------------


def test_openbhb_has_the_test_set_that_is_asked_for(cohort):
    root = cohort("openbhb")
    sets = {test: list_scans("openbhb", root, space="vbm", test=test) for test in ("internal", "external", "both")}
    names = {test: [scan.test_set for scan in listing.scans if scan.test_set] for test, listing in sets.items()}
    assert names == {"internal": ["internal"], "external": ["external"], "both": ["internal", "external"]}
    assert [len(listing.scans) for listing in sets.values()] == [5, 5, 6]
    (drop,) = sets["internal"].dropped
    assert drop.reason == "of the external test set" and stand_ins.OPENBHB_PEOPLE[5] in drop.what
    assert {scan.site for scan in sets["both"].scans} == {"0", "3", "61"}
    by_protocol = list_scans("openbhb", root, space="vbm", site_col="siteXacq")
    assert {scan.site for scan in by_protocol.scans} == {"1", "4", "62"}


def test_a_quasiraw_array_of_openbhb_is_flipped_onto_the_grid_and_nothing_else(cohort, repository, tmp_path):
    config = configured(repository, "openbhb", cohort("openbhb"), tmp_path)
    config.data.shape, config.data.normalise = (182, 218, 182), "percentile"
    scan_set = read_scans(config)
    for volume, scan in zip(scan_set.volumes[:2], scan_set.scans):
        raw = np.load(scan.path)[0, 0, ::-1].astype(np.float32)
        np.testing.assert_array_equal(volume, raw / np.percentile(raw[raw != 0], 99))


def test_openbhb_lies_as_its_templates_do_and_as_they_would(cohort, tmp_path):
    root = tmp_path / "openbhb"
    shutil.copytree(cohort("openbhb"), root, ignore=shutil.ignore_patterns("*quasiraw_T1w.npy", "*xhemi*"))
    template = root / "resource/cat12vbm_space-MNI152_desc-gm_TPM.nii.gz"
    with_it = list_scans("openbhb", root, space="vbm")
    shutil.rmtree(root / "resource")
    assert with_it.scans == list_scans("openbhb", root, space="vbm").scans
    other = np.diag([1.5, 1.5, 1.5, 1.0])
    template.parent.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((121, 145, 121), np.uint8), other), template)
    np.testing.assert_array_equal(list_scans("openbhb", root, space="vbm").scans[0].grid.affine, other)
    template.write_bytes(b"junk")
    with pytest.raises(UsageError, match="cannot be read .*fetch it again, or remove it"):
        list_scans("openbhb", root, space="vbm")


def test_the_run_folder_says_which_test_set_a_person_is_in(cohort, repository, tmp_path):
    config = configured(repository, "openbhb", cohort("openbhb"), tmp_path / "cache", space="vbm", test="both")
    federation = experiment_from_config(config).federation
    assert sorted(federation.targets[federation.test]) == [67.5, 80.0] and sum(map(len, federation.members)) == 4
    (tmp_path / "config.json").write_text("{}")
    write_roster(tmp_path / "people.tsv", roster_of(federation))
    told = {entry.target: (entry.set[0], entry.test_set) for entry in recorded_people(tmp_path)}
    assert told[67.5] == ("t", "internal") and told[80.0] == ("t", "external") and told[23.5] == ("L", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(space="raw"), "^space is 'raw': it must be one of quasiraw, vbm"),
        (dict(test="none"), "^test is 'none': it must be one of internal, external, both"),
        (dict(site_col="centre"), "^site_col is 'centre': it must be one of site, sitexacq, study"),
    ],
)
def test_openbhb_refuses_other_options(cohort, options, message):
    with pytest.raises(UsageError, match=message):
        list_scans("openbhb", cohort("openbhb"), **options)


def test_openbhb_refuses_another_table(tmp_path):
    write_text(tmp_path / "participants.tsv", "participant_id\tage\tsite", "1\t20\t0")
    with pytest.raises(UsageError, match="has no column 'split'; it has: participant_id, age, site"):
        list_scans("openbhb", tmp_path)
    write_text(tmp_path / "participants.tsv", "participant_id\tage\tsite\tsplit", "1\t20\t0\tprivate")
    with pytest.raises(UsageError, match="has 'private' in its column split; it must be one of train, internal_test"):
        list_scans("openbhb", tmp_path)
    write_text(tmp_path / "participants.tsv", "participant_id\tage\tsite\tsplit", "1\t20\t0\ttrain")
    with pytest.raises(UsageError, match=r"it holds no sub-\*_preproc-\*_T1w.npy of quasiraw that could be read"):
        list_scans("openbhb", tmp_path)


# --- the others ----------------------------------------------------------------------------------


def test_radiata_has_its_own_test_people_or_a_share(cohort):
    own, share = (list_scans("radiata", cohort("radiata"), test=test) for test in ("own", "share"))
    assert [scan.test_set for scan in own.scans] == [""] * 5 + ["test"] and {scan.test_set for scan in share.scans} == {
        ""
    }
    assert {scan.site for scan in own.scans} == {"IXI", "DLBS", "NKI-RS", "OASIS-1", "OASIS-2"}
    assert own.notes == ("metadata.csv: scans of the validation part that are trained on, 1",) and share.notes == ()


def test_every_study_of_radiata_may_be_a_client(cohort, repository, tmp_path):
    config = configured(repository, "radiata", cohort("radiata"), tmp_path)
    with config.unlocked():
        config.partition = dict(name="site", num_clients="auto")
    federation = experiment_from_config(config).federation
    assert sorted(federation.people[rows[0]]["site"] for rows in federation.members) == sorted(
        {"IXI", "DLBS", "NKI-RS", "OASIS-1", "OASIS-2"}
    )
    assert [federation.people[row]["participant_id"] for row in federation.test] == ["sub-IXI012"]


def test_one_id_in_two_studies_is_two_people(tmp_path):
    head = "t1_local_path,split,study,participant_id,session_id,age"
    write_text(tmp_path / "metadata.csv", head, "a.nii,train,A,sub-1,ses-1,20", "b.nii,test,B,sub-1,ses-1,30")
    scans = list_scans("radiata", tmp_path).scans
    assert [(scan.participant, scan.test_set) for scan in scans] == [("sub-A-1", ""), ("sub-B-1", "test")]
    write_text(tmp_path / "metadata.csv", head, "a.nii,holdout,A,sub-1,ses-1,20")
    with pytest.raises(UsageError, match="has 'holdout' in its column split; it must be train, validation or test"):
        list_scans("radiata", tmp_path)


def test_ixi_tells_sites_by_names_and_leaves_out_whose_age_is_missing_or_told_in_two_ways(tmp_path):
    root = stand_ins.write_ixi(tmp_path, ages=(*AGES[:5], 0))  # the last one has no age
    rows = [*stand_ins.ixi_rows((*AGES[:5], 0)), (219, 1, 170, 70, 1, 2, 1, 5, "", 1, "", 29.0)]  # another age
    stand_ins.write_xlsx(root / "IXI.xlsx", {"Table": [stand_ins.IXI_HEAD, *rows]})
    listing = list_scans("ixi", root)
    assert [(scan.participant, scan.site, scan.sex) for scan in listing.scans] == [
        ("sub-IXI002", "Guys", "M"),
        ("sub-IXI012", "HH", "F"),  # whose second row is of zeros
        ("sub-IXI013", "HH", "M"),
        ("sub-IXI035", "IOP", "F"),
    ]
    reasons = {drop.what.rpartition("/")[2]: drop.reason for drop in listing.dropped}
    assert reasons == {
        "IXI219-Guys-0894-T1.nii.gz": "age differs between the rows of one person",
        "IXI300-IOP-0893-T1.nii.gz": "age is missing",
        "sub-IXI999": "no image",
    }
    assert listing.notes == (
        "IXI.xlsx: sex 1 was taken for M and 2 for F (ISO/IEC 5218)",
        "IXI.xlsx: sex 0 is not known, and taken for n/a",
        "IXI.xlsx: 2 people have more than one row",
    )
    with pytest.raises(UsageError, match="age differs between the rows of one person"):
        list_scans("ixi", root, strict=True)


def test_ixi_reads_an_exported_sheet_and_what_a_pipeline_has_made(tmp_path):
    lines = [",".join(f'"{cell}"' for cell in row) for row in [stand_ins.IXI_HEAD, *stand_ins.ixi_rows()]]
    table = write_text(tmp_path / "ages/sheet.csv", *lines)
    for ending in ("T1", "T1_brain_mni", "T2"):
        (tmp_path / f"IXI002-Guys-0828-{ending}.nii.gz").touch()
    options = dict(participants=str(table))
    (raw,) = list_scans("ixi", tmp_path, **options).scans
    (made,) = list_scans("ixi", tmp_path, ending="T1_brain_mni", **options).scans
    assert raw.path.name == "IXI002-Guys-0828-T1.nii.gz" and made.path.name == "IXI002-Guys-0828-T1_brain_mni.nii.gz"
    assert next(drop.reason for drop in list_scans("ixi", tmp_path, **options).dropped) == "extra run or image"


def test_oasis_leaves_out_dementia_and_reads_two_tissues(cohort, repository, tmp_path):
    root = cohort("oasis1")
    assert [scan.age for scan in list_scans("oasis1", root, healthy=True).scans] == list(AGES[:5])
    assert [drop[1:] for drop in list_scans("oasis1", root, healthy=True).dropped] == [("dementia", "CDR 0.5")]
    config = configured(repository, "oasis1", root, tmp_path, images="grey,white")
    with pytest.raises(UsageError, match=r"^data.channels is 1, but each head has 2 channels; set it to 2\."):
        read_scans(config)
    config.data.channels = 2
    both = read_scans(config)
    for i, kind in enumerate(("grey", "white")):
        alone = read_scans(configured(repository, "oasis1", root, tmp_path, images=kind))
        np.testing.assert_array_equal(both.inputs[..., i], alone.inputs[..., 0])


def test_sessions_of_oasis_have_their_own_rows(tmp_path):
    for name in ("OAS1_0061_MR1", "OAS1_0061_MR2"):
        stand_ins.save_image(tmp_path / f"{name}/mwc1{name}_mpr_anon_fslswapdim_bet.nii.gz", 0)
    head = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"
    rows = [f"OAS1_0061_MR{i},F,R,{20 + i},3,3,30,,1,1,1," for i in (1, 2)]
    write_text(tmp_path / "oasis_cross-sectional.csv", head, *rows)
    scans = list_scans("oasis1", tmp_path).scans
    assert [(scan.participant, scan.session, scan.age) for scan in scans] == [
        ("sub-OAS1_0061", "ses-MR1", 21.0),
        ("sub-OAS1_0061", "ses-MR2", 22.0),
    ]


def test_oasis_discs_are_pairs(tmp_path):
    root = stand_ins.write_oasis_discs(tmp_path)
    for images, ending in (("brain", "masked_gfc.hdr"), ("head", "t88_gfc.hdr")):
        listing = list_scans("oasis1", root, images=images)
        assert len(listing.scans) == 6 and all(scan.path.name.endswith(ending) for scan in listing.scans)
    with pytest.raises(UsageError, match="^images is 'grey,brain': tissue maps and images lie in different spaces"):
        list_scans("oasis1", root, images="grey,brain")
    with pytest.raises(UsageError, match="^images is 'csf': it must be one of grey, white, brain, head"):
        list_scans("oasis1", root, images="csf")


def test_abide_finds_people_by_their_numbers_and_may_leave_out_autism(cohort):
    listing = list_scans("abide", cohort("abide"))
    assert [scan.participant for scan in listing.scans] == [f"sub-00{50952 + i}" for i in range(6)]
    assert [scan.site for scan in listing.scans] == ["NYU", "PITT"] * 3 and listing.scans[0].sex == "M"
    assert [drop.reason for drop in list_scans("abide", cohort("abide"), controls=True).dropped] == ["not a control"]
    with pytest.raises(UsageError, match=r"it holds no image with the number of a person in its path"):
        list_scans("abide", cohort("abide"), contains="brain")


def test_abide_s_code_of_a_missing_age(tmp_path):
    write_text(
        tmp_path / "Phenotypic_V1_0b.csv", "SITE_ID,SUB_ID,AGE_AT_SCAN,SEX", "NYU,50952,-9999,1", "NYU,50953,9,2"
    )
    for number in (50952, 50953):
        (tmp_path / f"sub-00{number}_T1w.nii.gz").touch()
    listing = list_scans("abide", tmp_path)
    assert [scan.age for scan in listing.scans] == [9.0] and [drop.reason for drop in listing.dropped] == [
        "age is missing"
    ]


def test_freesurfer_images_with_the_skull_come_with_their_mask(cohort, tmp_path):
    root = cohort("freesurfer")
    norm, whole = (list_scans("freesurfer", root, image=image) for image in ("norm", "orig_nu"))
    assert {scan.mask for scan in norm.scans} == {None}
    assert {scan.mask.name for scan in whole.scans} == {"mask.mgz"}
    assert [drop.reason for drop in norm.dropped] == ["no folder mri"]  # and fsaverage is nobody
    with pytest.raises(
        UsageError, match="^image is 'brain': no subject of .* has mri/brain.mgz; there is: norm, orig_nu"
    ):
        list_scans("freesurfer", root, image="brain")
    with pytest.raises(UsageError, match="^image is 'aseg': it must be one of norm, brain, brainmask, orig_nu, nu"):
        list_scans("freesurfer", root, image="aseg")
    for name in ("sub-01.long.sub-01", "sub-01"):
        stand_ins.save_image(tmp_path / name / "mri/norm.mgz", 0, cls=nib.MGHImage)
    write_text(tmp_path / "participants.tsv", "participant_id\tage", "1\t60")
    listing = list_scans("freesurfer", tmp_path)
    assert [scan.path.parts[-3] for scan in listing.scans] == ["sub-01"]
    assert [drop.reason for drop in listing.dropped] == ["of the longitudinal stream"]


def test_tissues_of_cat12_are_channels(cohort, tmp_path):
    scans = list_scans("cat12", cohort("cat12"), image="mwp1,mwp2").scans
    assert [scan.channels[0].name for scan in scans] == [f"mwp2sub-{i:02d}_T1w.nii" for i in range(1, 7)]
    (tmp_path / "mwp1scan7.nii").touch()
    (tmp_path / "wmscan7.nii").touch()
    write_text(tmp_path / "participants.csv", "id,age", "7,60")
    with pytest.raises(UsageError, match="no mwp1.* left out: 1 x an image of it is missing"):
        list_scans("cat12", tmp_path, image="mwp1,mwp2", id_pattern=r"scan(\d+)")
    (scan,) = list_scans("cat12", tmp_path, image="wm", id_pattern=r"scan(\d+)").scans
    assert (scan.participant, scan.path.name) == ("sub-7", "wmscan7.nii")


def test_files_by_a_pattern_and_ids_by_an_expression(tmp_path):
    for name in ("a/visit_007_brain.nii.gz", "a/visit_007_head.nii.gz", "b/visit_8_brain.npy", "b/other_brain.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    table = str(write_text(tmp_path / "ages.csv", "id,age", "7,60", "8,61", "9,62"))
    options = dict(participants=table, id_pattern=r"visit_(\d+)")
    with pytest.raises(UsageError, match=r"^affine is None: .*visit_8_brain.npy is an array that does not say"):
        list_scans("files", tmp_path / "*/*_brain.*", **options)
    listing = list_scans("files", tmp_path / "*/*_brain.*", affine="mni182", **options)
    assert [(scan.participant, scan.path.name, bool(scan.grid)) for scan in listing.scans] == [
        ("sub-7", "visit_007_brain.nii.gz", False),
        ("sub-8", "visit_8_brain.npy", True),
    ]
    assert sorted(drop.reason for drop in listing.dropped) == ["name without an id", "no image"]
    with pytest.raises(UsageError, match=r"^id_pattern is '\(': it is no regular expression"):
        list_scans("files", tmp_path / "a", participants=table, id_pattern="(")
    with pytest.raises(UsageError, match=r"^root is .*: no image has such a name"):
        list_scans("files", tmp_path / "*.mgz", participants=table)


def test_fmriprep_s_images_come_with_their_masks_and_the_maps_beside_them(cohort):
    root = cohort("fmriprep")
    scans = list_scans("bids", root, space="MNI152NLin2009cAsym", suffixes="T1w,label-GM_probseg").scans
    assert len(scans) == 6
    for scan in scans:
        assert scan.mask.name.endswith("_desc-brain_mask.nii.gz")
        assert scan.channels[0].name == scan.path.name.replace("desc-preproc_T1w", "label-GM_probseg")
    maps = list_scans("bids", root, suffixes=("label-GM_probseg",)).scans
    assert len(maps) == 6 and all("GM_probseg" in scan.path.name for scan in maps)
    with pytest.raises(UsageError, match="6 x no FLAIR image beside it"):
        list_scans("bids", root, space="MNI152NLin2009cAsym", suffixes=("T1w", "FLAIR"))


# --- joining -------------------------------------------------------------------------------------


def join(tmp_path, found, header, *rows, **roles):
    names = header.split(",")
    table = Rows(tmp_path / "t.csv", names, [dict(zip(names, row.split(","))) for row in rows])
    return joining.join_table(tmp_path, found, table, joining.Roles(**roles), names="image")


def found(tmp_path, *people):
    return [joining.Found(tmp_path / f"{person}_{session}.nii", person, session) for person, session in people]


def test_the_age_of_a_table_is_that_of_the_first_session(tmp_path):
    listing = join(
        tmp_path, found(tmp_path, ("1", "2"), ("1", "10"), ("2", "pre"), ("2", "post")), "id,age", "1,60", "2,70"
    )
    assert [(scan.session, scan.age) for scan in listing.scans] == [("ses-2", 60.0)]
    assert sorted(drop.reason for drop in listing.dropped) == [
        "age at a later session is unknown",
        "age at which session is unknown",
        "age at which session is unknown",
    ]


def test_an_age_of_its_own_for_every_session(tmp_path):
    files = found(tmp_path, ("sub-01", "01"), ("sub-01", "02"), ("sub-01", "03"))
    listing = join(tmp_path, files, "id,session,age", "1,ses-1,60", "1,2,61", session="session")
    assert [scan.age for scan in listing.scans] == [60.0, 61.0]
    assert [drop.reason for drop in listing.dropped] == ["no row of its session in t.csv"]


def test_codes_of_sex_are_read_as_in_any_table(tmp_path):
    listing = join(
        tmp_path, found(tmp_path, ("1", ""), ("2", ""), ("3", "")), "id,age,sex", "1,60,2", "2,61,9", "3,62,1"
    )
    assert [scan.sex for scan in listing.scans] == ["F", "n/a", "M"] and "ISO/IEC 5218" in listing.notes[0]


def test_ids_meet_without_prefix_zeros_and_endings(tmp_path):
    listing = join(tmp_path, found(tmp_path, ("007", ""), ("sub-x", "")), "id,age", "sub-7,60", "x.nii.gz,61", "8,62")
    assert [(scan.participant, scan.age) for scan in listing.scans] == [("sub-7", 60.0), ("sub-x", 61.0)]
    assert [(drop.what, drop.reason) for drop in listing.dropped] == [("sub-8", "no image")]


def test_a_file_without_a_row_is_left_out(tmp_path):
    listing = join(tmp_path, found(tmp_path, ("1", ""), ("2", "")), "id,age", "1,60", "n/a,61")
    told = [(drop.reason, drop.detail) for drop in listing.dropped]
    assert told == [("no row in t.csv", "2"), ("id is missing", "n/a, 61")]


def test_tables_are_found_or_asked_for(tmp_path):
    with pytest.raises(
        UsageError, match=r"^participants is None: .* holds no table of ages \(a\*, b\.tsv\); set it to one"
    ):
        joining.find_table(tmp_path, None, "a*", "b.tsv")
    write_text(tmp_path / "a1.csv", "x")
    assert joining.find_table(tmp_path, "", "a*").name == "a1.csv"
    assert joining.find_table(tmp_path, "a1.csv") == joining.find_table(tmp_path, str(tmp_path / "a1.csv"))
    write_text(tmp_path / "a2.csv", "x")
    with pytest.raises(UsageError, match=r"holds several tables \(a1.csv, a2.csv\); set it to one"):
        joining.find_table(tmp_path, None, "a*")
    with pytest.raises(UsageError, match=r"^participants is 'c.csv': there is no such table"):
        joining.find_table(tmp_path, "c.csv", "a*")


def test_linked_folders_are_entered_once(tmp_path):
    (tmp_path / "real/deep").mkdir(parents=True)
    (tmp_path / "real/deep/a.nii").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "real")
    (tmp_path / "real/deep/back").symlink_to(tmp_path / "root")
    assert [path.name for path in joining.files_below(tmp_path / "root")] == ["a.nii"]
