from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

import spatialwhisperer as sw
from tests.datasets.papers import files

if TYPE_CHECKING:
    from pathlib import Path


def test_sections_are_a_mapping_that_a_corpus_takes(tmp_path: Path) -> None:
    files.write_cscc(tmp_path, "P2_ST_rep1", "GSM4284316")
    files.write_cscc(tmp_path, "P5_ST_rep1", "GSM4284319", seed=1)
    sections = sw.datasets.cscc(tmp_path, with_image=False)
    assert list(sections) == ["P2_ST_rep1", "P5_ST_rep1"]
    assert repr(sections) == "PublishedSections(cscc: 2 sections of 2 patients: P2_ST_rep1, P5_ST_rep1)"
    with pytest.raises(KeyError, match="no section 'P9_ST_rep1' of cscc"):
        sections["P9_ST_rep1"]
    source = sw.pp.CorpusSource("cscc", pickle.loads(pickle.dumps(sections)), licence="not stated")
    assert source.names == ["P2_ST_rep1", "P5_ST_rep1"]
    assert source.peek("P5_ST_rep1")["table"].obs["patient"].iloc[0] == "P5"
