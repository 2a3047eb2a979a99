"""JSON beside a table, of whatever shape: units in the words people use, and codes that it explains."""

import json

import pytest

from fedsparse_jax.core.errors import UsageError
from fedsparse_jax.data.sidecars import levels_of, unit_years

DAY = 1 / 365.25


def beside(tmp_path, content):
    (tmp_path / "t.json").write_text(json.dumps(content))
    return tmp_path / "t.tsv"


@pytest.mark.parametrize(("entry", "years"), [
    ({"Units": "years"}, 1), ({"Units": "Year"}, 1), ({"Units": "year(s)"}, 1), ({"Units": "years old"}, 1),
    ({"Units": "yrs"}, 1), ({"Units": "y"}, 1), ({"Units": None}, 1), ({"units": "months"}, 1 / 12),
    ({"Units": "Month(s)"}, 1 / 12), ({"Units": "days"}, DAY), ({"Units": "weeks"}, 7 * DAY),
    ({"Description": "age at the day of the scan"}, 1), ("Age in years", 1), ("age", 1), (3, 1), ({}, 1), (None, 1),
])  # fmt: skip
def test_units_in_the_words_people_use(tmp_path, entry, years):
    assert unit_years(beside(tmp_path, {"AGE": entry}), "age") == pytest.approx(years)


@pytest.mark.parametrize(("content", "message"), [
    ([{"name": "age", "units": "years"}], "t.json holds no object with an entry for each column; mend or remove it"),
    (7, "holds no object"),
    ({"age": "Age in months"}, 'describes age as .Age in months. without its unit; add "Units": "months", or years'),
    ({"age": {"Description": "age (days)"}}, 'add "Units": "days"'),
    ({"age": {"Units": "decades"}}, "gives age in 'decades'; use years, months, weeks or days"),
    ({"age": {"Units": ["years"]}}, r"gives age in \['years'\]; use years"),
])  # fmt: skip
def test_other_shapes_and_units_are_refused_in_a_sentence(tmp_path, content, message):
    with pytest.raises(UsageError, match=message):
        unit_years(beside(tmp_path, content), "age")


def test_codes_are_explained_by_the_levels(tmp_path):
    assert levels_of(beside(tmp_path, {"sex": {"Levels": {"0": "female", "1": "male"}}}), "sex") == {
        "0": "female",
        "1": "male",
    }
    assert levels_of(beside(tmp_path, {"sex": {"Levels": ["female"]}}), "sex") == {}
    assert levels_of(tmp_path / "other.tsv", "sex") == {}
