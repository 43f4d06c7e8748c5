"""Names that a caller writes out and no object has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide


@pytest.fixture
def plain(build: Any) -> Any:
    adata = build.library(build.XY)
    adata.obs["batch"] = "a"
    adata.layers["counts"] = adata.X.copy()
    return adata


def test_names_that_are_there_pass(build: Any, plain: Any) -> None:
    check_names([Slide.open(plain, image_key="L", library_key="batch")], layer="counts", batch_key="batch")
    check_names([Slide.open(build.one(), image_key="he", coordinate_system="S")], group_key="where")
    check_names([Slide.open(plain)], layer=None, batch_key=None)
    check_names([], layer="anything")


@pytest.mark.parametrize(
    ("options", "names", "message"),
    [
        ({}, {"layer": "raw"}, r"layer='raw' is not in \.layers \(found: .*counts"),
        ({}, {"batch_key": "bach"}, r"batch_key='bach' is not in \.obs \(found: batch\)"),
        ({"image_key": "M"}, {}, r"image_key='M' is not an image \(found: L\)"),
        ({"image_key": {"L": "M"}}, {}, r"image_key='M' is not an image"),
        ({"library_key": "lib"}, {}, r"library_key='lib' is not in \.obs"),
    ],
)
def test_a_name_that_no_object_has_is_an_error(plain: Any, options: Any, names: Any, message: str) -> None:
    with pytest.raises(KeyError, match=message):
        check_names([Slide.open(plain, **options)], **names)


def test_a_name_that_one_of_several_objects_has_passes(plain: Any) -> None:
    other = plain.copy()
    del other.obs["batch"]
    check_names([Slide.open(other), Slide.open(plain)], batch_key="batch")
    with pytest.raises(KeyError, match="is not in .obs of any of the 2 objects"):
        check_names([Slide.open(other), Slide.open(plain)], batch_key="bach")


def test_a_coordinate_system_needs_an_object_that_has_some(build: Any, plain: Any) -> None:
    with pytest.raises(ValueError, match="coordinate_system"):
        check_names([Slide.open(plain, coordinate_system="S")])
    with pytest.raises(KeyError, match=r"coordinate_system='T' is not a coordinate system \(found: S\)"):
        check_names([Slide.open(build.one(), coordinate_system="T")])


def test_nothing_is_changed(plain: Any) -> None:
    before = plain.obs.copy(), np.asarray(plain.X.toarray())
    with pytest.raises(KeyError):
        check_names([Slide.open(plain)], batch_key="bach")
    assert plain.obs.equals(before[0])
    assert np.array_equal(plain.X.toarray(), before[1])
