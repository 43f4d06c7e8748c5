from __future__ import annotations

import subprocess
import sys
from typing import Any

import anndata as ad
import numpy as np
import pytest

from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.tables import add_annotating_table, check_free, check_name, is_spatialdata, table_name
from spatialwhisperer._provenance import record


def test_table_is_found_by_name_or_because_it_is_the_only_one(build: Any) -> None:
    annotation = build.table({"spots": ["i0"]})
    assert table_name(build.one()) == "table"
    assert table_name(build.sdata(tables={"other": annotation})) == "other"
    assert table_name(build.one(tables={"a": annotation, "table": annotation.copy()})) == "table"
    two = build.one(tables={"a": annotation, "b": annotation.copy()})
    assert Slide.open(two, table_key="b").table is two.tables["b"]
    with pytest.raises(KeyError, match="several tables"):
        table_name(two)
    with pytest.raises(KeyError, match="at='grid'"):
        table_name(build.sdata())
    with pytest.raises(KeyError, match="table_key='x'"):
        table_name(two, "x")


def test_predicted_expression_is_left_out_unless_there_is_no_other_table(build: Any) -> None:
    tables = {name: build.table({"spots": ["i0"]}) for name in ("bins", "predicted", "table", "more")}
    for name in ("predicted", "table"):
        record(tables[name], "sw_expression", {})
    data = build.one(tables={name: tables[name] for name in ("bins", "predicted")})
    assert table_name(data) == "bins"
    assert table_name(data, "predicted") == "predicted"
    data.tables["table"] = tables["table"]
    assert table_name(data) == "bins"
    data.tables["more"] = tables["more"]
    with pytest.raises(KeyError, match=r"several tables \(.*bins.*choose one"):
        table_name(data)
    assert table_name(build.one(tables={"predicted": tables["predicted"]})) == "predicted"


def test_an_anndata_is_its_own_table() -> None:
    adata = ad.AnnData(np.zeros((2, 1), np.float32))
    assert table_name(adata) is None
    assert Slide.open(adata).table is adata


def test_what_is_no_data_is_refused_by_its_type() -> None:
    for wrong, text in (({}, r"not dict\. .*sections\.values\(\)"), ([], r"not list\. .*in sections:"), (3, "not int")):
        with pytest.raises(TypeError, match=text):
            is_spatialdata(wrong)


def test_telling_the_types_apart_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom spatialwhisperer._access import slide\n"
        "assert not {'torch', 'spatialdata', 'anndata', 'dask', 'squidpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_is_free_or_belongs_to_an_earlier_result_of_the_same_key(build: Any) -> None:
    data = build.one()
    check_name(data, "new", key="new")
    data.shapes["both"] = data.shapes["spots"]
    with pytest.raises(
        ValueError, match=r"elements named 'spots', 'both'\. Delete them \(del sdata\['spots'\], sdata\['both'\]\)"
    ):
        check_free(data, ["spots", "free", "both"])
    for taken in ("he", "spots", "table"):
        with pytest.raises(ValueError, match=f"already has an element named '{taken}'"):
            check_name(data, taken, key="mine")
    # the features of a measured table do not make it a result
    record(data.tables["table"], "X_stain_texture", {})
    with pytest.raises(ValueError, match="already has"):
        check_name(data, "table", key="mine")
    made = build.table({"spots": ["i0"]})
    record(made, "mine", {})
    data.tables["made"] = made
    check_name(data, "made", key="mine")


def test_an_added_table_annotates_what_the_other_one_does(build: Any) -> None:
    data = build.one(tables={"table": build.table({"spots": ["i2", "i0"]})})
    add_annotating_table(data, data.tables["table"], ad.AnnData(np.zeros((2, 5), np.float32)), "predicted")
    got = data.tables["predicted"]
    assert got.shape == (2, 5)
    assert got.obs["which"].tolist() == ["i2", "i0"]
    assert got.uns["spatialdata_attrs"] == data.tables["table"].uns["spatialdata_attrs"]
    assert np.array_equal(Slide.open(data, table_key="predicted").frames[0].xy_px, build.XY[[2, 0]])
    # one of that name is replaced
    add_annotating_table(data, data.tables["table"], ad.AnnData(np.zeros((2, 1), np.float32)), "predicted")
    assert data.tables["predicted"].n_vars == 1
