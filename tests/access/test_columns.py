from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer._access.columns import as_list, column, columns, matrix, stacked, tables_of


@pytest.fixture
def table() -> Any:
    adata = ad.AnnData(np.zeros((3, 1), np.float32))
    adata.obs["label"] = pd.Categorical(["a", None, "b"])
    adata.obsm["X_sw_image"] = np.arange(6, dtype=np.float32).reshape(3, 2)
    adata.obsm["sparse"] = sp.csr_matrix(np.eye(3, 2))
    adata.obsm["frame"] = pd.DataFrame({"x": [1, 2, 3]}, index=adata.obs_names)
    adata.obsm["words"] = pd.DataFrame({"x": ["a", "b", "c"]}, index=adata.obs_names)
    return adata


def test_one_object_or_several_are_a_list(build: Any, table: Any) -> None:
    assert as_list(table) == [table]
    assert as_list([table, table]) == [table, table]
    with pytest.raises(ValueError, match="sections is an empty list"):
        as_list([], "sections")
    data = build.one()
    assert tables_of([data, table], None)[0] is data.tables["table"]


def test_a_matrix_is_numbers_of_any_storage(table: Any) -> None:
    for key, first in (("X_sw_image", [0, 1]), ("sparse", [1, 0]), ("frame", [1])):
        got = matrix(table, key)
        assert got.dtype == np.float64
        assert got[0].tolist() == first
    with pytest.raises(ValueError, match=r"\.obsm\['words'\] must be a matrix of numbers"):
        matrix(table, "words")


@pytest.mark.parametrize(
    ("key", "call"),
    [
        ("X_sw_gene", r"sw\.tl\.embed\(data, model=model\)"),
        ("X_scvi", r"sw\.pp\.embed_genes\(data, 'scvi'\)"),
        ("X_resnet18", r"sw\.pp\.embed_images\(data, encoder\)"),
    ],
)
def test_a_matrix_that_is_missing_names_the_call_that_writes_it(table: Any, key: str, call: str) -> None:
    with pytest.raises(KeyError, match=rf"'{key}' is not in \.obsm of object 1 \(found: X_sw_image, .*Run {call}"):
        matrix(table, key, " of object 1")


def test_matrices_of_several_tables_stand_one_below_the_other(table: Any) -> None:
    assert stacked([table, table], "X_sw_image").shape == (6, 2)
    other = table.copy()
    other.obsm["X_sw_image"] = np.zeros((3, 5), np.float32)
    with pytest.raises(ValueError, match=r"has 2, 5 columns in different objects"):
        stacked([table, other], "X_sw_image")
    del other.obsm["X_sw_image"]
    with pytest.raises(KeyError, match="of object 1"):
        stacked([table, other], "X_sw_image")


def test_a_column_is_text_with_none_where_it_is_missing(table: Any) -> None:
    assert column(table, "label", "labels_key").tolist() == ["a", None, "b"]
    assert columns([table, table], "label", "labels_key").tolist() == ["a", None, "b"] * 2
    table.obs["code"] = [1, np.nan, 2.5]
    assert column(table, "code", "labels_key").tolist() == ["1", None, "2.5"]
    with pytest.raises(KeyError, match=r"labels_key='type' is not in \.obs \(found: label, code\)\. Make one"):
        column(table, "type", "labels_key", remedy="Make one.")
    other = table.copy()
    del other.obs["label"]
    with pytest.raises(KeyError, match=r"labels_key='label' is not in \.obs of object 1 \(found: code\)\."):
        columns([table, other], "label", "labels_key")
