"""Captions from metadata: several wordings in the words of ontologies, alike for rows that are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._provenance import recorded
from spatialwhisperer.training.corpus.shards import Corpus
from tests import corpora

if TYPE_CHECKING:
    from pathlib import Path


CELLS = sw.models.Ontology(
    [
        sw.models.Term("CL:0000084", "T cell", ("T lymphocyte", "T-cell")),
        sw.models.Term("CL:0000236", "B cell", ("B lymphocyte",)),
    ]
)
TISSUES = sw.models.Ontology([sw.models.Term("UBERON:0000310", "breast", ("mamma",))])


def table() -> Any:
    out = corpora.slide(0, 12, ["A", "B"], image=False)
    out.obs["cell_type"] = ["t", "b", "macrophage"] * 4
    out.obs["cell_type_ontology_term_id"] = ["CL:0000084", "CL:0000236", "CL:0000235"] * 4
    out.obs["tissue"] = "Breast"
    out.obs["disease"] = ["normal"] * 6 + ["carcinoma"] * 6
    return out


def test_the_first_wording_has_the_names_of_the_ontologies() -> None:
    data = table()
    with pytest.warns(UserWarning, match="values are in no ontology.*macrophage"):
        sw.pp.caption_metadata(data, ontologies=[CELLS, TISSUES])
    assert data.obs["text"].iloc[0] == "T cell of breast from a donor with no known disease"
    assert data.obs["text"].iloc[7] == "B cell of breast from a donor with carcinoma"
    assert data.obs["text"].iloc[2].startswith("macrophage of breast")
    written = set(data.obs[["text", "text_2", "text_3"]].iloc[0])
    assert len(written) == 3
    assert all(any(w in text for w in ("T cell", "T lymphocyte", "T-cell")) for text in written)
    assert set(data.obs["text_origin"]) == {"templated"}


@pytest.mark.filterwarnings("ignore:.*in no ontology")
def test_rows_that_are_alike_have_the_same_captions_in_any_order() -> None:
    how: dict[str, Any] = {"ontologies": CELLS, "inplace": False}
    one: Any = sw.pp.caption_metadata(table(), **how)
    other: Any = sw.pp.caption_metadata(table()[::-1].copy(), **how)
    assert one.astype(str).equals(other.iloc[::-1].astype(str))
    assert one.iloc[0].equals(one.iloc[3])
    changed: Any = sw.pp.caption_metadata(table(), random_state=3, **how)
    assert not changed.astype(str).equals(one.astype(str))


def test_an_id_counts_before_the_value_of_its_row() -> None:
    names = {"CL:0000084": "T cell", "CL:0000624": "CD4-positive T cell", "CL:0000625": "CD8-positive T cell"}
    cells = sw.models.Ontology([sw.models.Term(*pair) for pair in names.items()])
    organs = sw.models.Ontology([sw.models.Term("UBERON:0000084", "thymus")])
    data = table()[:4].copy()
    data.obs["cell_type"] = "T cell"
    data.obs["cell_type_ontology_term_id"] = ["CL:0000624", "CL:0000625", None, "UBERON:0000084"]
    found: Any = sw.pp.caption_metadata(data, ontologies=[cells, organs], templates=["{cell_type}"], inplace=False)
    assert found["text"].tolist() == ["CD4-positive T cell", "CD8-positive T cell", "T cell", "thymus"]


def test_only_a_disease_may_be_none() -> None:
    data = table()[:3].copy()
    data.obs["tissue"] = ["normal", "tumour", "healthy"]
    data.obs["disease"] = ["Normal", "HEALTHY", "carcinoma"]
    found: Any = sw.pp.caption_metadata(data, templates=["{tissue}, {disease}"], inplace=False)
    expected = ["normal, no known disease", "tumour, no known disease", "healthy, carcinoma"]
    assert found["text"].tolist() == expected


def test_nobody_is_healthy_beside_a_disease() -> None:
    data = table()[:5].copy()
    data.obs["disease"] = [
        "normal || asthma",
        "asthma",
        "flu || Healthy || asthma",
        "normal || healthy",
        "normal || n/a",
    ]
    data.obs["tissue"] = ["normal || tumour"] * 5
    how: dict[str, Any] = {"templates": ["{tissue}, {disease}"], "inplace": False}
    found: Any = sw.pp.caption_metadata(data, **how)
    diseases = ["asthma", "asthma", "flu and asthma", "no known disease", "no known disease"]
    assert found["text"].tolist() == [f"normal and tumour, {disease}" for disease in diseases]
    data.obs["disease"] = "well || asthma"
    data.obs["disease_ontology_term_id"] = "PATO:0000461 || MONDO:0004979"
    found = sw.pp.caption_metadata(data, **how)
    assert set(found["text"]) == {"normal and tumour, asthma"}


@pytest.mark.parametrize("missing", ["n/a", "N/A", "NA", "nan", "<NA>", "None", "unknown"])
def test_missing_values_that_became_text_are_not_stated(missing: str) -> None:
    data = table()[:2].copy()
    data.obs["tissue"] = ["lung", f" {missing}"]
    data.obs["note"] = ["by hand", missing]
    found: Any = sw.pp.caption_metadata(data, templates=["{cell_type} of {tissue}", "{cell_type}"], inplace=False)
    assert found["text"].tolist() == ["t of lung", "b"]
    if missing != "unknown":
        found = sw.pp.caption_metadata(data, templates=["{cell_type}"], free_key="note", inplace=False)
        assert found["text"].tolist() == ["by hand", "b"]


def test_what_nobody_knows_is_not_stated() -> None:
    data = table()[:5].copy()
    data.obs["cell_type"] = ["unknown", "Unknown", "na", "t", "b"]
    data.obs["cell_type_ontology_term_id"] = ["unknown", "unknown", "na", "unknown", "CL:0000236"]
    odd = sw.models.Ontology([*CELLS.terms.values(), sw.models.Term("ZFS:0000000", "Unknown")])
    how: dict[str, Any] = {"templates": ["{cell_type} of {tissue}", "{tissue}"], "wordings": 1, "inplace": False}
    with pytest.warns(UserWarning, match="2 of 3 values are in no ontology"):
        found: Any = sw.pp.caption_metadata(data, ontologies=odd, **how)
    assert found["text"].tolist() == ["Breast"] * 3 + ["t of Breast", "B cell of Breast"]
    with pytest.raises(ValueError, match="No row has all fields"):
        sw.pp.caption_metadata(data[:3].copy(), templates=["{cell_type}"])


def test_several_values_of_a_cell_are_looked_up_one_by_one() -> None:
    diseases = [
        sw.models.Term("MONDO:0004989", "breast carcinoma", ("mammary carcinoma", "carcinoma of breast")),
        sw.models.Term("MONDO:0005015", "diabetes mellitus", ("diabetes",)),
    ]
    data = table()[:6].copy()
    both = "carcinoma || sugar sickness"
    data.obs["disease"] = [
        both,
        both,
        "mammary carcinoma||diabetes",
        "normal",
        "unknown || diabetes",
        "rare || diabetes",
    ]
    ids = "MONDO:0004989 || MONDO:0005015"
    data.obs["disease_ontology_term_id"] = [ids, ids, None, "PATO:0000461", None, "MONDO:0005015"]
    how: dict[str, Any] = {"templates": ["{disease}"], "wordings": 6, "inplace": False}
    with pytest.warns(UserWarning, match="1 of 6 values are in no ontology and stay as they are: rare"):
        found: Any = sw.pp.caption_metadata(data, ontologies=sw.models.Ontology(diseases), **how)
    one = "breast carcinoma and diabetes mellitus"
    expected = [one, one, one, "no known disease", "diabetes mellitus", "rare and diabetes mellitus"]
    assert found["text"].tolist() == expected
    words = [(term.name, *term.synonyms) for term in diseases]
    every = {f"{first} and {second}" for first in words[0] for second in words[1]}
    texts = found[[c for c in found if c != "text_origin"]]
    assert texts.iloc[0].equals(texts.iloc[1])
    assert {one} < set(texts.iloc[0].dropna()) <= every


@pytest.mark.parametrize("wordings", [0, -1, 1.5])
def test_there_is_at_least_one_wording(wordings: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="wordings must be a (positive )?whole number"):
        sw.pp.caption_metadata(table(), wordings=wordings)


def test_wordings_of_an_earlier_call_are_removed() -> None:
    data = table()
    data.obs["text_9"] = "the user's own"
    sw.pp.caption_metadata(data, wordings=3)
    sw.pp.caption_metadata(data, wordings=1)
    assert [c for c in data.obs if c.startswith("text")] == ["text_9", "text", "text_origin"]


def test_free_captions_stay_and_are_counted(tmp_path: Path) -> None:
    data = table()
    data.obs["note"] = ["somebody wrote this", *[None] * 11]
    sw.pp.caption_metadata(data, free_key="note")
    assert data.obs["text"].iloc[0] == "somebody wrote this"
    assert data.obs["text_origin"].tolist() == ["free"] + ["templated"] * 11
    stated: Any = recorded(data, "text")
    assert (stated["free_fraction"], stated["templated_fraction"]) == (pytest.approx(1 / 12), pytest.approx(11 / 12))
    source = sw.pp.CorpusSource("cells", data, "CC0", text_key=["text", "text_2", "text_3"])
    corpus = Corpus.open(corpora.build(tmp_path / "c", [source]))
    (slide,) = corpus.manifest.slides
    assert (slide.free, slide.templated) == (1, 11)
    assert slide.shards[0].wordings == 3


def test_fields_may_have_other_columns() -> None:
    data = table()
    data.obs = data.obs.rename(columns={"cell_type": "annotation"})
    found: Any = sw.pp.caption_metadata(
        data, fields={"cell_type": "annotation"}, templates=["{cell_type}"], inplace=False
    )
    assert found["text"].tolist()[:3] == ["t", "b", "macrophage"]
    with pytest.raises(KeyError, match=r"nothing is not in \.obs"):
        sw.pp.caption_metadata(data, fields={"cell_type": "nothing"})


def test_rows_without_a_field_take_a_template_that_has_fewer() -> None:
    data = table()
    data.obs["cell_type"] = data.obs["cell_type"].where(data.obs["cell_type"] != "t")
    found: Any = sw.pp.caption_metadata(data, templates=["{cell_type} of {tissue}"], inplace=False)
    assert pd.isna(found["text"].iloc[0])
    assert pd.isna(found["text_origin"].iloc[0])
    assert found["text"].iloc[1] == "b of Breast"
    with pytest.raises(ValueError, match="No row has all fields"):
        sw.pp.caption_metadata(data, templates=["{assay}"])
    with pytest.raises(ValueError, match="must name a field in braces"):
        sw.pp.caption_metadata(data, templates=["a cell"])


def test_a_table_without_rows_gets_no_captions() -> None:
    data = table()[:0].copy()
    sw.pp.caption_metadata(data, templates=["{cell_type}"])
    assert data.obs["text"].tolist() == []
    stated: Any = recorded(data, "text")
    assert (stated["free_fraction"], stated["templated_fraction"]) == (0, 0)


def test_the_cell_ontology_gives_names_and_synonyms(data_folder: Path) -> None:
    data = table()
    path = data_folder / "text" / "cell_ontology_2022-09-15.tsv.gz"
    sw.pp.caption_metadata(data, ontologies=path, templates=["{cell_type}"], wordings=4)
    assert data.obs["text"].tolist()[:3] == ["T cell", "B cell", "macrophage"]
    said = set(data.obs[[c for c in data.obs if c.startswith("text") and c != "text_origin"]].iloc[0].dropna())
    assert {"T cell"} < said <= {"T cell", "T lymphocyte", "T-cell", "T-lymphocyte"}
