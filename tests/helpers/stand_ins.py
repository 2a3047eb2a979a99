"""Open cohorts in small: six people each, in exactly the layout in which the cohort is published.

Every image is a bright ball of its own in the middle of the head. Arrays of a real size are sparse files. Ages are told
by `AGES`, in the order of the people; what else a table holds is as in the cohort.
"""

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import nibabel as nib
import numpy as np

AGES = (23.5, 31.0, 44.25, 52.0, 67.5, 80.0)
LAS_1 = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
LAS_15 = np.array([[-1.5, 0, 0, 90], [0, 1.5, 0, -126], [0, 0, 1.5, -72], [0, 0, 0, 1]])
LAS_2 = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
RADIUS = 36  # mm


def ball(shape, affine, seed, out=None):
    """A ball around the centre of the brain, of values that only this seed has; brighter on the right."""
    data = np.zeros(shape, np.float32) if out is None else out
    centre = np.linalg.inv(affine) @ [0, -24, 12, 1]
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    low = np.maximum((centre[:3] - RADIUS / steps).astype(int), 0)
    high = np.minimum((centre[:3] + RADIUS / steps).astype(int) + 1, shape)
    box = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high)], indexing="ij"), -1)
    world = box @ affine[:3, :3].T + affine[:3, 3]
    inside = ((world - [0, -24, 12]) ** 2).sum(-1) < RADIUS**2
    values = np.random.default_rng(seed).uniform(0.3, 0.5, box.shape[:3]) + 0.2 * (world[..., 0] > 0)
    data[tuple(slice(a, b) for a, b in zip(low, high))] = np.where(inside, values, 0)
    return data


def save_image(path, seed, shape=(46, 55, 46), affine=None, cls=nib.Nifti1Image):
    """A ball as an image on a coarse grid over the MNI box, unless another is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.array([[-4.0, 0, 0, 90], [0, 4, 0, -126], [0, 0, 4, -72], [0, 0, 0, 1]]) if affine is None else affine
    nib.save(cls(ball(shape, affine, seed), affine), path)
    return path


def save_array(path, seed, shape, affine, dtype=np.float64):
    """A ball as a sparse ``.npy`` file with two axes of length 1 before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.lib.format.open_memmap(path, "w+", dtype, (1, 1, *shape))
    ball(shape, affine, seed, array[0, 0])
    array.flush()
    return path


def write_text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


OPENBHB_PEOPLE = ("100353385424", "101114848648", "131127574354", "203188014591", "274918262831", "319283112654")
OPENBHB_SPLITS = ("train", "train", "train", "train", "internal_test", "external_test")


def write_openbhb(root: Path, spaces=("quasiraw", "vbm")) -> Path:
    head = "participant_id study sex age site diagnosis tiv csfv gmv wmv magnetic_field_strength acquisition_setting"
    rows = ["\t".join([*head.split(), "siteXacq", "split"])]
    for i, (name, split) in enumerate(zip(OPENBHB_PEOPLE, OPENBHB_SPLITS)):
        sex, site = ("male", "female")[i % 2], (0, 0, 3, 3, 0, 61)[i]
        volumes = "1510.2\t300.1\t700.5\t509.6"
        rows.append(f"{name}\t{i % 3}\t{sex}\t{AGES[i]}\t{site}\tcontrol\t{volumes}\t3.0\t1\t{site + 1}\t{split}")
        folder = root / ("train" if split == "train" else "val") / f"derivatives/sub-{name}/ses-1"
        for space, shape, affine in (
            ("quasiraw", (182, 218, 182), LAS_1),
            ("cat12vbm_desc-gm", (121, 145, 121), LAS_15),
        ):
            if (space[-2:] == "gm" and "vbm" in spaces) or space in spaces:
                save_array(folder / f"sub-{name}_preproc-{space}_T1w.npy", i, shape, affine)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"sub-{name}_preproc-freesurfer_desc-xhemi_T1w.npy", np.zeros((1, 8, 20)))
    write_text(root / "participants.tsv", *rows)
    write_text(root / "qc.tsv", "participant_id\treconall-euler\tcat12vbm-ncr\tcat12vbm-iqr\tquasiraw-corr")
    for name, shape, affine in (
        ("quasiraw_space-MNI152_desc-brain_T1w", (182, 218, 182), LAS_1),
        ("cat12vbm_space-MNI152_desc-gm_TPM", (121, 145, 121), LAS_15),
    ):
        (root / "resource").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), affine), root / f"resource/{name}.nii.gz")
    return root


def write_radiata(root: Path) -> Path:
    head = (
        "t1_local_path,split,study,participant_id,session_id,age,sex,clinical_diagnosis,scanner_manufacturer,scanner_model,"
        "field_strength,image_quality_rating,total_intracranial_volume,radiata_id"
    )
    affine = np.array([[-1.5, 0, 0, 84], [0, 1.5, 0, -120], [0, 0, 1.5, -72], [0, 0, 0, 1]])
    rows = [head]
    people = ("IXI/IXI002", "DLBS/4001", "NKI-RS/A00028185", "OASIS-1/OAS10001", "OASIS-2/OAS20001", "IXI/IXI012")
    splits = ("train", "train", "train", "validation", "train", "test")
    for i, (name, split) in enumerate(zip(people, splits)):
        study, person = name.split("/")
        path = f"{study}/sub-{person}/ses-01/anat/msub-{person}_ses-01_T1w_brain_affine_mni.nii.gz"
        save_image(root / path, i, (113, 137, 113), affine)
        write_text((root / path).parent / f"sub-{person}_ses-01_scandata.json", "{}")
        sex = ("male", "female")[i % 2]
        rows.append(
            f"{path},{split},{study},sub-{person},ses-01,{AGES[i]},{sex},cognitively_normal,Philips,,1.5,2.1,1.4,{i}"
        )
    write_text(root / "metadata.csv", *rows)
    return root


IXI_NAMES = (
    "IXI002-Guys-0828", "IXI012-HH-1211", "IXI013-HH-1212", "IXI035-IOP-0873", "IXI219-Guys-0894", "IXI300-IOP-0893",
)  # fmt: skip
IXI_HEAD = (
    "IXI_ID", "SEX_ID (1=m, 2=f)", "HEIGHT", "WEIGHT", "ETHNIC_ID", "MARITAL_ID", "OCCUPATION_ID", "QUALIFICATION_ID",
    "DOB", "DATE_AVAILABLE", "STUDY_DATE", "AGE",
)  # fmt: skip


def ixi_rows(ages=AGES):
    """The rows of the sheet: somebody twice, once with zeros; 300 with a missing age where ``ages`` have a 0."""
    cell = lambda i, number, age: (number, 1 + i % 2, 170, 70, 1, 2, 1, 5, "1960-02-20", 1, "2005-11-25", age)
    rows = [cell(i, int(name[3:6]), age) for i, (name, age) in enumerate(zip(IXI_NAMES, ages))]
    return [*rows, (12, 0, 0, 0, 0, 0, 0, 0, "", 0, "", 0), (999, *rows[0][1:])]


def write_ixi(root: Path, ages=AGES) -> Path:
    for i, name in enumerate(IXI_NAMES):
        save_image(root / f"{name}-T1.nii.gz", i)
    write_xlsx(root / "IXI.xlsx", {"ETHNIC": [("ID", "ETHNIC"), (1, "White")], "Table": [IXI_HEAD, *ixi_rows(ages)]})
    return root


def write_oasis1(root: Path) -> Path:
    rows = ["ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"]
    for i, age in enumerate(AGES):
        name, cdr = f"OAS1_{i + 1:04d}_MR1", ("", "", "0", "0", "0", "0.5")[i]
        rows.append(f"{name},{'FM'[i % 2]},R,{age},2,3,29,{cdr},1344,0.743,1.306,N/A")
        for tissue in (1, 2):
            file = f"{name}/mwrc{tissue}{name}_mpr_anon_fslswapdim_bet.nii.gz"
            save_image(root / "oasis1" / file, 10 * tissue + i, (91, 109, 91), LAS_2)
    write_text(root / "oasis1/oasis_cross-sectional.csv", *rows)
    return root / "oasis1"


def write_oasis_discs(root: Path) -> Path:
    """The project's own discs: pairs of .hdr and .img."""
    rows = ["ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"]
    for i, age in enumerate(AGES):
        name = f"OAS1_{i + 1:04d}_MR1"
        rows.append(f"{name},{'FM'[i % 2]},R,{age},2,3,29,,1344,0.743,1.306,N/A")
        folder = root / f"disc1/{name}/PROCESSED/MPRAGE/T88_111"
        for kind in ("masked_gfc", "gfc"):
            path = folder / f"{name}_mpr_n4_anon_111_t88_{kind}.img"
            save_image(path, i, (44, 52, 44), np.diag([4.0, 4, 4, 1]), cls=nib.Spm2AnalyzeImage)
            path.with_suffix(".mat").unlink(missing_ok=True)
    write_text(root / "oasis_cross-sectional.csv", *rows)
    return root


def write_abide(root: Path) -> Path:
    rows = [",Unnamed: 0,SUB_ID,X,subject,SITE_ID,FILE_ID,DX_GROUP,DSM_IV_TR,AGE_AT_SCAN,SEX"]
    for i, age in enumerate(AGES):
        number, site, group = 50952 + i, ("NYU", "PITT")[i % 2], 1 if i == 5 else 2
        rows.append(f"{i},{i},{number},{i},{number},{site},{site}_00{number},{group},0,{age},{1 + i % 2}")
        save_image(root / f"{site}/00{number}/session_1/anat_1/mprage.nii.gz", i)
    write_text(root / "Phenotypic_V1_0b_preprocessed1.csv", *rows)
    return root


def write_camcan(root: Path) -> Path:
    rows = ["participant_id\tage\thand\tgender_code\ttiv_cubicmm"]
    for i, age in enumerate(AGES):
        rows.append(f"CC11{i:04d}\t{age}\t96\t{1 + i % 2}\t1450000")
        save_image(root / f"sub-CC11{i:04d}/anat/sub-CC11{i:04d}_T1w.nii.gz", i)
    write_text(root / "participants.tsv", *rows)
    return root


def write_freesurfer(root: Path) -> Path:
    """As recon-all and FastSurfer write: conformed to 256 voxels a side, here coarser."""
    conformed = np.array([[-5.0, 0, 0, 128], [0, 0, 5, -150], [0, -5, 0, 150], [0, 0, 0, 1]])
    rows = ["participant_id,age,sex,site"]
    for i, age in enumerate(AGES):
        rows.append(f"sub-{i + 1:02d},{age},{'FM'[i % 2]},{'ab'[i % 2]}")
        for name, seed in (("norm", i), ("orig_nu", 20 + i), ("mask", i)):
            save_image(root / f"sub-{i + 1:02d}/mri/{name}.mgz", seed, (51, 51, 51), conformed, nib.MGHImage)
    save_image(root / "fsaverage/mri/norm.mgz", 99, (51, 51, 51), conformed, nib.MGHImage)
    (root / "sub-07/scripts").mkdir(parents=True)
    write_text(root / "participants.csv", *rows)
    return root


def write_cat12(root: Path) -> Path:
    rows = ["participant_id,age,sex"]
    for i, age in enumerate(AGES):
        rows.append(f"{i + 1:02d},{age},{'FM'[i % 2]}")
        for tissue in (1, 2):
            save_image(root / f"mri/mwp{tissue}sub-{i + 1:02d}_T1w.nii", 10 * tissue + i, (121, 145, 121), LAS_15)
    write_text(root / "participants.csv", *rows)
    return root


def write_files(root: Path) -> Path:
    rows = ["id,age,sex,site"]
    for i, age in enumerate(AGES):
        rows.append(f"scan{i + 1},{age},{'FM'[i % 2]},{'ab'[i % 2]}")
        save_image(root / f"scan{i + 1}.nii.gz", i)
    write_text(root / "participants.csv", *rows)
    return root


def write_fmriprep(root: Path) -> Path:
    """A BIDS folder with the derivatives of fMRIPrep inside; returns the folder of the derivatives."""
    affine = np.array([[4.0, 0, 0, -96], [0, 4, 0, -132], [0, 0, 4, -78], [0, 0, 0, 1]])
    rows = ["participant_id\tage\tsex"]
    for i, age in enumerate(AGES):
        rows.append(f"sub-{i + 1:02d}\t{age}\t{'FM'[i % 2]}")
        name = f"sub-{i + 1:02d}_space-MNI152NLin2009cAsym"
        folder = root / f"derivatives/fmriprep/sub-{i + 1:02d}/anat"
        for kind, seed in (("desc-preproc_T1w", i), ("desc-brain_mask", i), ("label-GM_probseg", 10 + i)):
            save_image(folder / f"{name}_{kind}.nii.gz", seed, (49, 58, 49), affine)
        mask = nib.load(folder / f"{name}_desc-brain_mask.nii.gz")
        nib.save(nib.Nifti1Image((mask.get_fdata() > 0).astype(np.uint8), affine), mask.get_filename())
        save_image(folder / f"sub-{i + 1:02d}_desc-preproc_T1w.nii.gz", 20 + i, (49, 58, 49), affine)
    write_text(root / "participants.tsv", *rows)
    return root / "derivatives/fmriprep"


def write_medmnist3d(path: Path, counts=(20, 6, 8), classes=11, side=28) -> Path:
    rng, arrays = np.random.default_rng(0), {}
    for part, count in zip(("train", "val", "test"), counts):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, side, side, side), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    np.savez_compressed(path, **arrays)
    return path


def write_cifar10(path: Path, counts=(20, 8)) -> Path:
    rng, arrays = np.random.default_rng(0), {}
    for part, count in zip(("train", "test"), counts):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        arrays[f"y_{part}"] = (np.arange(count) % 10).astype(np.uint8)[:, None]
    np.savez_compressed(path, **arrays)
    return path


def write_xlsx(path: Path, sheets: dict) -> Path:
    """A spreadsheet of Office Open XML with as little as it needs: rows of numbers and text by sheet."""
    main, package = (
        f"http://schemas.openxmlformats.org/{kind}/2006/{name}"
        for kind, name in (("spreadsheetml", "main"), ("package", "relationships"))
    )
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    names, numbers = list(sheets), range(1, len(sheets) + 1)
    types = "".join(
        f'<Override PartName="/xl/{part}.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        f'spreadsheetml.{kind}+xml"/>'
        for part, kind in [("workbook", "sheet.main"), *((f"worksheets/sheet{n}", "worksheet") for n in numbers)]
    )
    listed = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}"/>' for n, name in zip(numbers, names))
    links = "".join(
        f'<Relationship Id="rId{n}" Type="{office}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in numbers
    )
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f"{types}</Types>",
        "_rels/.rels": f'<Relationships xmlns="{package}"><Relationship Id="rId1" Type="{office}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}">{links}</Relationships>',
    }
    for n, name in zip(numbers, names):
        rows = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in sheets[name])
        parts[f"xl/worksheets/sheet{n}.xml"] = f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>'
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for part, text in parts.items():
            file.writestr(part, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return path


def _cell(value) -> str:
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    return f"<c><v>{value}</v></c>"


STAND_INS = {
    "openbhb": write_openbhb,
    "radiata": write_radiata,
    "ixi": write_ixi,
    "oasis1": write_oasis1,
    "abide": write_abide,
    "camcan": write_camcan,
    "freesurfer": write_freesurfer,
    "cat12": write_cat12,
    "files": write_files,
    "fmriprep": write_fmriprep,
}
