from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer._access.result import Result, write_results
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.placing import placing_columns

L = ["fat cell", "T cell"]


def refused(table: Any, key: str, **parts: Any) -> None:
    """A result is refused, and the table is as it was."""
    before = table.obs.copy()
    of = parts.get("of")
    named = f"key_added='{key}'" if of is None else f"A part of the labels '{of}'"
    with pytest.raises(ValueError, match=f"^{named} would replace"):
        write_results(table, (Result("other", {}, obs={"x": [1] * table.n_obs}), Result(key, {}, **parts)))
    pd.testing.assert_frame_equal(table.obs, before)


def test_the_columns_that_link_a_table_to_its_elements_stay(build: Any) -> None:
    table = build.one()["table"]
    for name in ("where", "which"):
        refused(table, name, obs={name: [1, 2, 3]})
    refused(table, "label", obs={"label": [1, 2, 3]}, gone=("where",))
    with pytest.raises(ValueError, match=r"\.obs\['which'\], which names the instance .* such as key_added='sw_which'"):
        Slide.open(build.one()).check_column("which")
    write_results(table, (Result("region", {}, obs={"region": [1, 2, 3]}, obsm={"which": np.ones((3, 1))}),))
    assert table.obs["region"].tolist() == [1, 2, 3]


def test_the_column_with_the_libraries_stays(build: Any) -> None:
    adata = build.library(build.XY)
    refused(adata, "library_id", obs={"library_id": ["a", "b", "a"]})
    adata.uns["spatial"]["M"] = adata.uns["spatial"]["L"]
    adata.obs["sample"] = adata.obs["slide"] = ["L", "M", "L"]
    assert set(placing_columns(adata)) == {"library_id", "sample"}
    refused(adata, "sample", obs={"sample": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"\.obs\['slide'\], which names the library"):
        Slide.open(adata, library_key="slide").put(Result("slide", {}, obs={"slide": [1, 2, 3]}))
    write_results(adata, (Result("slide", {}),))
    Slide.open(adata).put(Result("slide", {}, obs={"slide": [1, 2, 3]}))


def test_a_column_of_the_caller_stays_until_it_is_dropped(build: Any) -> None:
    adata = build.library(build.XY)
    adata.obs["cell_type"] = adata.obs["type_confidence"] = adata.obs["sw_label"] = ["a", "b", "a"]
    refused(adata, "cell_type", obs={"cell_type": [1, 2, 3]})
    refused(adata, "type", obs={"type": [1, 2, 3], "type_confidence": [1, 2, 3]})
    refused(adata, "type", obs={"type": [1, 2, 3]}, gone=("type_confidence",))
    with pytest.raises(
        ValueError, match=r"such as key_added='sw_cell_type', or drop the column first: del adata\.obs\['cell_type'\]"
    ):
        Slide.open(adata).check_column("cell_type")
    # joining tables loses the record, and the name says by itself that the package wrote it
    for key in ("sw_label", "new", "new"):
        Slide.open(adata).put(Result(key, {}, obs={key: [1, 2, 3]}))
    del adata.obs["cell_type"]
    Slide.open(adata).put(Result("cell_type", {}, obs={"cell_type": [1, 2, 3]}))


def test_a_column_that_tells_sections_without_images_apart_stays(build: Any) -> None:
    adata = build.library(build.XY)
    del adata.uns["spatial"]
    assert not placing_columns(adata)
    adata.obs["sample"] = ["a", "b", "a"]
    assert set(placing_columns(adata)) == {"sample"}
    refused(adata, "sample", obs={"sample": [1, 2, 3]})


def test_what_is_damaged_or_missing_places_nothing(build: Any) -> None:
    adata = build.library(build.XY)
    adata.uns["spatial"] = adata.uns["spatialdata_attrs"] = "damaged"
    assert not placing_columns(adata)
    assert set(placing_columns(build.library(build.XY), "nope")) == {"library_id"}


def test_the_record_of_the_tiles_stays(build: Any) -> None:
    refused(build.library(build.XY), "sw_tiles", obsm={"sw_tiles": np.ones((3, 4))})


def labelled(key: str) -> Result:
    """What an annotation writes."""
    return Result(
        key,
        {},
        obs={key: ["a", "b", "a"], f"{key}_confidence": [0.1, 0.2, 0.3]},
        obsm={f"{key}_scores": np.ones((3, 2))},
    )


def test_what_lies_beside_the_labels_of_another_result_stays(build: Any) -> None:
    adata = build.library(build.XY)
    write_results(adata, (labelled("sw_label"), Result("sw_query", {}, obs={"sw_query": [1, 2, 3]})))
    key = "sw_label_confidence"
    refused(adata, key, obs={key: [1, 2, 3]})
    with pytest.raises(ValueError, match=rf"'{key}', which belongs to the result 'sw_label' .* key_added='{key}_2'"):
        Slide.open(adata).check_column(key)
    # a name that no call has written is free
    for key in ("sw_label_gene", "sw_label_agreement", "sw_label_cl"):
        Slide.open(adata).check_column(key)
    refused(adata, "sw_label_scores", obsm={"sw_label_scores": np.ones((3, 4))})
    # the result itself may be replaced, and its agreement written, whose name is no longer free for labels either
    write_results(adata, (labelled("sw_label"), labelled("sw_label_2")))
    parts = {"sw_label_agreement": [1, 2, 3], "sw_label_gene": ["a", "b", "a"]}
    write_results(adata, (Result("sw_label_agreement", {}, obs=parts, of="sw_label"), labelled("sw_label")))
    refused(adata, "sw_label_gene", obs={"sw_label_gene": [1, 2, 3]})
    # a query has nothing beside it
    write_results(adata, (Result("sw_query_gene", {}, obs={"sw_query_gene": [1, 2, 3]}),))


def test_labels_beside_which_another_result_lies_are_refused(build: Any) -> None:
    adata = build.library(build.XY)
    write_results(adata, (labelled("sw_label_gene"), labelled("sw_class_confidence")))
    refused(adata, "sw_class", obs=labelled("sw_class").obs)
    with pytest.raises(ValueError, match="'sw_class_confidence', which is a result of an earlier call"):
        sw.tl.zero_shot_annotate(adata, L, mpp=1.0, key_added="sw_class")
    with pytest.raises(ValueError, match="'sw_class_confidence', which is a result of an earlier call"):
        sw.tl.classify(adata, labels_key="cell_type", use="X_none")


def test_labels_of_the_genes_stay_where_they_are_a_result_of_their_own(build: Any) -> None:
    """As where image and genes are annotated as "img" and "img_gene", in any order and again."""
    adata = build.library(build.XY)
    colours = Result("img_gene", {}, obs={"img_gene": ["a", "b", "a"]}, uns={"img_gene_colors": ["#000000", "#ffffff"]})
    gone = ("img_gene", "img_gene_colors", "img_agreement")
    for _ in range(2):
        write_results(adata, (colours,))
        write_results(adata, (Result("img", {}, obs={"img": ["b", "b", "a"]}, gone=gone),))
        assert list(adata.obs["img_gene"]) == ["a", "b", "a"]
        assert "img_gene_colors" in adata.uns
    # the agreement of the labels would need the name
    refused(adata, "img_agreement", obs={"img_agreement": [1, 2, 3], "img_gene": ["a", "b", "a"]}, of="img")
    # what the agreement wrote goes with the labels
    other = build.library(build.XY)
    parts = {"sw_label_agreement": [1, 2, 3], "sw_label_gene": ["a", "b", "a"]}
    write_results(other, (labelled("sw_label"), Result("sw_label_agreement", {}, obs=parts, of="sw_label")))
    gone = ("sw_label_gene", "sw_label_gene_colors", "sw_label_agreement")
    write_results(other, (replace(labelled("sw_label"), gone=gone),))
    assert not {"sw_label_gene", "sw_label_agreement"} & set(other.obs)


CALLS = [
    lambda data, key: sw.tl.zero_shot_annotate(data, L, key_added=key),
    lambda data, key: sw.tl.query(data, L[0], key_added=key),
    lambda data, key: sw.tl.tissue_range(data, key_added=key),
    lambda data, key: sw.tl.spatial_domains(data, use="observed", n_domains=2, key_added=key),
    lambda data, key: sw.tl.classify(data, labels_key="cell_type", use="X_none", key_added=key),
    lambda data, key: sw.pp.caption_metadata(data, key_added=key),
]


@pytest.mark.parametrize("call", CALLS)
def test_it_is_refused_before_anything_is_computed(call: Any, build: Any) -> None:
    with pytest.raises(ValueError, match="key_added='where' would replace"):
        call(build.one(), "where")
    data = build.one()
    data["table"].obs["mine"] = "a"
    with pytest.raises(ValueError, match=r"would replace \.obs\['mine'\], which is not recorded as a result"):
        call(data, "mine")
    with pytest.raises(ValueError, match="key_added must be another name than 'spatial'"):
        call(build.one(), "spatial")
