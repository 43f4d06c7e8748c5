"""What an object must hold to be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer._access.contract import (
    Link,
    check_affine,
    check_label_column,
    check_table,
    feature_matrix,
    holds_numbers,
    instances_of,
    libraries_of,
    link_of,
    number_column,
    number_matrix,
)


@pytest.fixture
def linked(build: Any) -> Any:
    return build.table({"spots": ["i0", "i1"]})


def test_a_table_names_its_columns_once(linked: Any) -> None:
    check_table(linked)
    linked._obs = pd.concat([linked.obs, linked.obs[["which"]]], axis=1)
    with pytest.raises(ValueError, match=r"Several columns of \.obs are named which"):
        check_table(linked)


def test_a_table_that_is_read_lazily_has_to_be_loaded(linked: Any, tmp_path: Any) -> None:
    ad = pytest.importorskip("anndata.experimental")
    pytest.importorskip("xarray")
    linked.write_zarr(tmp_path / "table.zarr")
    lazy = ad.read_lazy(tmp_path / "table.zarr")
    with pytest.raises(TypeError, match=r"read lazily.*table = table.to_memory\(\)"):
        check_table(lazy)
    check_table(lazy.to_memory())


def test_a_table_with_damaged_provenance_is_refused(linked: Any) -> None:
    linked.uns["spatialwhisperer"] = "x"
    with pytest.raises(ValueError, match="must be a dictionary with the provenance"):
        check_table(linked)


def test_a_link_names_two_columns(linked: Any) -> None:
    assert link_of(linked) == Link("where", "which")
    assert list(instances_of(linked, Link("where", "which"))) == ["i0", "i1"]
    del linked.uns["spatialdata_attrs"]
    assert link_of(linked) is None


@pytest.mark.parametrize(
    "attrs",
    [
        "x",
        [],
        {},
        {"region": "spots", "region_key": "nope", "instance_key": "which"},
        {"region": "spots", "region_key": "where", "instance_key": 7},
        {"region": None, "region_key": "where", "instance_key": "which"},
        {"region": [7], "region_key": "where", "instance_key": "which"},
        {"region": np.array([["a"]]), "region_key": "where", "instance_key": "which"},
    ],
)
def test_a_damaged_link_names_the_call_that_mends_it(linked: Any, attrs: Any) -> None:
    linked.uns["spatialdata_attrs"] = attrs
    with pytest.raises(
        ValueError, match=r"spatialdata_attrs.*Link the table again: spatialdata\.models\.TableModel\.parse"
    ):
        link_of(linked)


def test_an_instance_is_one_name(linked: Any) -> None:
    linked.obs["which"] = pd.Series([[1], [2]], index=linked.obs_names)
    with pytest.raises(ValueError, match=r"\.obs\['which'\] must name one instance for each row"):
        instances_of(linked, Link("where", "which"))


def test_libraries_are_dictionaries(build: Any) -> None:
    adata = build.library(build.XY)
    adata.uns["spatial"]["is_single"] = True
    assert list(libraries_of(adata)) == ["L"]
    for damaged, message in (
        ("x", "dictionary of libraries"),
        ({"L": {"images": [1]}}, "must be a dictionary, not list"),
    ):
        adata.uns["spatial"] = damaged
        with pytest.raises(ValueError, match=message):
            libraries_of(adata)


def test_a_matrix_is_numbers_of_any_storage() -> None:
    x = np.arange(6).reshape(3, 2)
    for stored in (x, sp.csr_matrix(x), pd.DataFrame(x), x.astype(object), x.astype(">f4")):
        assert np.array_equal(number_matrix(stored, "here"), x)


@pytest.mark.parametrize(
    "values", [np.ones((2, 2)) > 0, np.ones((2, 2), complex), np.full((2, 2), "a"), np.ones(3), np.ones((2, 2, 2))]
)
def test_other_matrices_are_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="here must be a matrix of numbers"):
        number_matrix(values, "here")


def test_a_matrix_has_columns() -> None:
    with pytest.raises(ValueError, match="at least 2 columns"):
        number_matrix(np.ones((3, 1)), "here", least_columns=2)


def test_features_are_finite_in_float32_or_missing() -> None:
    given = np.array([[1, 2], [np.nan, np.nan]])
    for stored in (given, pd.DataFrame(given), given.astype(np.float32), sp.csr_matrix(given)):
        found = feature_matrix(stored, ".obsm['x']")
        assert found.dtype == np.float32
        assert np.array_equal(found, given, equal_nan=True)
    for wrong in (np.inf, -np.inf, 1e300):
        with pytest.raises(
            ValueError, match=r"\.obsm\['x'\] is infinite, or beyond .* in 1 of 3 rows.*set them to NaN"
        ):
            feature_matrix(np.vstack([given, [0, wrong]]), ".obsm['x']")


def test_a_column_is_real_numbers() -> None:
    values = number_column(pd.Series(pd.array([1, None], dtype="Int64")), "here")
    assert values[0] == 1
    assert np.isnan(values[1])
    for series in ([True, False], [1j, 2j], ["a", "b"], pd.date_range("2024", periods=2), [[1], [2]]):
        assert not holds_numbers(pd.Series(series))
        with pytest.raises(ValueError, match="here must be a column of numbers"):
            number_column(pd.Series(series), "here")


def test_a_transformation_can_be_inverted() -> None:
    check_affine("spots", "S", np.array([[0, -2, 5], [2, 0, 7], [0, 0, 1.0]]))
    flat: list[list[list[float]]] = [[[1, 1], [1, 1]], [[0, 0], [0, 0]], [[np.nan, 0], [0, 1]], [[1e12, 0], [0, 1e12]]]
    for part in flat:
        matrix = np.eye(3)
        matrix[:2, :2] = part
        with pytest.raises(
            ValueError, match="The transformation of 'spots' to the coordinate system 'S' cannot be inverted"
        ):
            check_affine("spots", "S", matrix)


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([0.5, 1.0]),
        pd.Series([0.5, None], dtype="Float64"),
        pd.Series(np.arange(101.0)),
    ],
)
def test_decimals_are_no_classes(values: Any) -> None:
    with pytest.raises(ValueError, match=r"\.obs\['x'\] holds \d+ different numbers.* and no classes\. Do this\."):
        check_label_column(values, ".obs['x']", "Do this.")


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1.0, np.nan, 2.0]),
        pd.Series([np.nan, np.nan]),
        pd.Series(np.arange(100.0)),
        pd.Series(np.arange(500)),
        pd.Series([0.5, 1.5]).astype("category"),
        pd.Series(["0.5", None]),
        pd.Series([True, False]),
        pd.Series([1, None], dtype="Int64"),
    ],
)
def test_names_and_whole_numbers_are_classes(values: Any) -> None:
    check_label_column(values, ".obs['x']", "Do this.")
