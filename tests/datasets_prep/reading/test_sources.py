"""Which columns of a file a source uses, and the error when one is missing."""

import pickle

import pytest

from datasets_prep.reading.sources import SOURCES, MissingColumn, choose_columns


def test_a_missing_column_can_be_raised_in_a_worker():
    with pytest.raises(MissingColumn) as missing:
        choose_columns(SOURCES["lmsys"], ["conversation"], "rows.jsonl")
    error = missing.value
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == error.reason + error.rest
    assert str(copy).startswith("rows.jsonl has no column language; it has conversation.")
    assert (copy.reason, copy.rest) == (error.reason, error.rest)
