"""How a result was computed is stored beside it, and survives every storage format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from spatialwhisperer import _keys
from spatialwhisperer._provenance import entry, record, recorded, recorded_as
from spatialwhisperer._storage.schema import Stored


@dataclass(frozen=True)
class Note(Stored):
    text: str
    sizes: tuple[float, ...] = ()


@pytest.fixture
def adata() -> ad.AnnData:
    return ad.AnnData(np.zeros((3, 2), dtype=np.float32))


def test_record_and_recorded(adata: ad.AnnData) -> None:
    parameters = {
        "encoder": "B/plasma",
        "seed": np.int64(3),
        "mpp": np.float64(0.5),
        "scale": np.array([1, 2]),
        "genes": {"b", "a"},
    }
    record(adata, "sw_label", parameters)
    record(adata, "sw_query", {"text": "glands", "folder": Path("a")})
    assert recorded(adata, "sw_label") == {
        "encoder": "B/plasma",
        "seed": 3,
        "mpp": 0.5,
        "scale": [1, 2],
        "genes": ["a", "b"],
    }
    assert recorded(adata, "sw_query") == {"text": "glands", "folder": "a"}
    assert recorded(adata, "absent") is None
    assert adata.uns[_keys.UNS]["sw_label"]["version"]


def test_record_overwrites_one_key_only(adata: ad.AnnData) -> None:
    record(adata, "a", {"x": 1})
    record(adata, "b", {"x": 2})
    record(adata, "a", {"x": 3})
    assert (recorded(adata, "a"), recorded(adata, "b")) == ({"x": 3}, {"x": 2})


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_record_survives_storage(adata: ad.AnnData, tmp_path: Path, suffix: str) -> None:
    record(adata, "sw_label", {"classes": ["B/plasma cell", "T cell"], "threshold": None})
    path = tmp_path / f"a.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    loaded = ad.read_h5ad(path) if suffix == "h5ad" else ad.read_zarr(path)
    assert recorded(loaded, "sw_label") == {"classes": ["B/plasma cell", "T cell"], "threshold": None}


def test_a_record_comes_back_as_its_class(adata: ad.AnnData) -> None:
    record(adata, "a", Note("größer", (1.5, 2.0)))
    assert recorded(adata, "a") == {"text": "größer", "sizes": [1.5, 2.0]}
    assert recorded_as(adata, "a", Note) == Note("größer", (1.5, 2.0))


def test_a_record_of_another_version_counts_as_none(adata: ad.AnnData) -> None:
    for parameters in ({"text": 3}, {"text": "a", "more": 1}, {}):
        record(adata, "a", parameters)
        assert recorded_as(adata, "a", Note) is None
    assert recorded_as(adata, "absent", Note) is None
    assert recorded_as(adata, None, Note) is None


def test_what_joining_leaves_of_an_entry_counts_as_none(adata: ad.AnnData) -> None:
    adata.uns[_keys.UNS] = {"a": {"version": "1"}}
    assert recorded(adata, "a") is None


def test_an_entry_is_two_strings() -> None:
    stored = entry({"a": 1})
    assert stored.keys() == {"version", "parameters"}
    assert all(isinstance(value, str) for value in stored.values())
