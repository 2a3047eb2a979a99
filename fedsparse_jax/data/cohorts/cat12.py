"""Outputs of CAT12 and SPM: ``mri/mwp1<name>.nii`` and their kin, with a table of ages."""

from pathlib import Path

from fedsparse_jax.data.cohorts import joining
from fedsparse_jax.data.tables import Drop, Listing


def read_cat12(
    root: str | Path,
    *,
    participants: str | None = None,
    image: str = "mwp1",
    id_pattern: str | None = None,
    id_col: str | None = None,
    age_col: str | None = None,
    site_col: str | None = None,
    cap_89: bool = False,
    strict: bool = False,
    need_age: bool = True,
) -> Listing:
    """The normalised images below a folder.

    Args:
        root: the folder.
        participants: the table of ages; None for ``participants.tsv`` or ``.csv`` in the folder.
        image: what the wanted files begin with: ``mwp1`` (grey matter, modulated), ``mwp2`` (white matter), ``wm`` (the
            normalised image), SPM's ``mwc1``, or another. Joined by a comma, such as ``mwp1,mwp2``, they are the
            channels.
        id_pattern: a regular expression whose group is the id in the rest of the name; None for the ids of BIDS, or the
            whole rest.
        id_col, age_col, site_col: columns of the table, if not found by their usual names.
        cap_89, strict, need_age: as in `scan_tables.read_table`.

    Raises:
        UsageError: no such folder or table, or no such file.
    """
    root = joining.check_folder(Path(root), "folder of CAT12's or SPM's outputs")
    table = joining.read_ages(root, participants, need_age)
    first, *others = (name.strip() for name in image.split(","))
    found, dropped = [], []
    for path in joining.files_below(root):
        if not path.name.startswith(first):
            continue
        rest = path.name[len(first) :]
        who = joining.person_and_session(joining.stem_of(rest), id_pattern)
        channels = tuple(path.with_name(other + rest) for other in others)
        lacking = [channel.name for channel in channels if not channel.is_file()]
        if who is None:
            dropped.append(Drop(str(path), "name without an id", f"id_pattern is {id_pattern}"))
        elif lacking:
            dropped.append(Drop(str(path), "an image of it is missing", lacking[0]))
        else:
            found.append(joining.Found(path, *who, channels=channels))
    roles = joining.usual_roles(table, id_col, age_col, site_col)
    how = dict(names=f"{first}*.nii", cap_89=cap_89, strict=strict, need_age=need_age, dropped=dropped)
    return joining.join_table(root, found, table, roles, **how)  # type: ignore[arg-type]
