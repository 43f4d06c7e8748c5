from __future__ import annotations

from itertools import count
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer._modalities import MODALITIES, Modality, register_modality
from spatialwhisperer.tl._training.sources import Source, describe, item_arrays, observations, stack, summary

_SECTION = count()


def table(n: int = 4, *, image: bool = False, spatial: bool = False, **obs: Any) -> ad.AnnData:
    """Counts of three genes, perhaps with positions and an image."""
    out = ad.AnnData(
        # of another section each time
        np.arange(3.0 * n).reshape(n, 3) + 100 * next(_SECTION),
        obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(n)]),
        var=pd.DataFrame(index=["A", "B", "C"]),
    )
    if spatial or image:
        out.obsm["spatial"] = np.stack([np.arange(n), np.zeros(n)], axis=1) * 10.0
    if image:
        pixels = np.zeros((50, 50, 3), np.uint8)
        out.uns["spatial"] = {"L": {"images": {"fullres": pixels}, "scalefactors": {"microns_per_pixel": 0.5}}}
    return out


def look(
    *objects: Any, keys: Any = None, text_keys: Any = ("text",), group_key: str | None = "patient"
) -> list[Source]:
    return describe(
        objects, modalities=["gene", "text", "image"], keys=keys or {}, text_keys=text_keys, group_key=group_key
    )


# ------------------------------------------------------------------------------------------------- what an object holds


def test_an_object_holds_what_can_be_read_from_it() -> None:
    counts, captioned, imaged = look(table(), table(text="a b"), table(image=True))
    assert counts.has == {"gene"}
    assert captioned.has == {"gene", "text"}
    assert imaged.has == {"gene", "image"}


def test_an_image_without_its_scale_factor_is_said() -> None:
    one = table(image=True)
    library = one.uns["spatial"]["L"]
    library["images"] = {"hires": library["images"]["fullres"]}
    with pytest.warns(SpatialWhispererWarning, match="Library 'L' holds the image 'hires' without a scale factor"):
        (found,) = look(one)
    assert found.has == {"gene"}


def test_empty_captions_are_none() -> None:
    (one,) = look(
        table(text=["a", None, " ", " b "], other=["c", "d", np.nan, None]), text_keys=("text", "other", "no")
    )
    assert one.captions.tolist() == [["a", "c", None], [None, "d", None], [None, None, None], ["b", None, None]]
    (without,) = look(table(text=[None, "", "  ", np.nan]))
    assert "text" not in without.has


def test_a_caption_is_one_text_whatever_its_blanks_and_unicode_form() -> None:
    (one,) = look(table(text=["T  cell", "T\u00a0cell ", "\tT\ncell", "T Cell"]))
    assert one.captions.ravel().tolist() == ["T cell"] * 3 + ["T Cell"]
    (umlauts,) = look(table(text=pd.Categorical(["Gef\u00e4\u00df", "Gefa\u0308\u00df", None, "Fett"])))
    assert umlauts.captions.ravel().tolist() == ["Gef\u00e4\u00df"] * 2 + [None, "Fett"]


def test_what_str_makes_of_a_missing_value_is_no_caption() -> None:
    (one,) = look(table(8, text=["nan", "None", "<NA>", "NaT", "NA", "n/a", np.nan, "none such"]))
    assert one.captions.ravel().tolist() == [None] * 7 + ["none such"]


def test_named_features_stand_for_the_modality() -> None:
    given = table(image=True)
    given.obsm["X_g"] = np.zeros((4, 2))
    (with_key,) = look(given, keys={"gene": "X_g"})
    assert with_key.has == {"gene", "image"}
    # counts are not read where other features are named
    (other,) = look(given, keys={"gene": "X_other"})
    assert other.has == {"image"}
    features = table()
    features.obsm["X_i"] = np.zeros((4, 2))
    assert look(features, keys={"image": "X_i"})[0].has == {"gene", "image"}


def test_an_object_without_variables_holds_no_counts() -> None:
    assert look(ad.AnnData(obs=pd.DataFrame({"text": ["a", "b"]}, index=["0", "1"])))[0].has == {"text"}


def test_a_matrix_is_held_under_its_key() -> None:
    register_modality(Modality("protein", reads="matrix", key="adt"), overwrite=True)
    try:
        with_it, without = table(), table()
        with_it.obsm["adt"] = np.zeros((4, 2))
        found = describe(
            [with_it, without], modalities=["protein"], keys={"protein": "adt"}, text_keys=(), group_key=None
        )
        assert [s.has for s in found] == [{"protein"}, frozenset()]
    finally:
        del MODALITIES["protein"]


def test_groups_are_patients_and_else_the_object() -> None:
    first, second, third = look(table(patient=[1, 1, 2, 2]), table(), table(patient=["a", None, "b", np.nan]))
    assert third.group.tolist() == ["a", "object 2", "b", "object 2"]
    assert first.group.tolist() == ["1", "1", "2", "2"]
    assert second.group.tolist() == ["object 1"] * 4
    assert first.of_groups(["2", "9"]).tolist() == [False, False, True, True]
    assert look(table(patient="x"), group_key=None)[0].group.tolist() == ["object 0"] * 4


def test_sections_of_different_objects_differ() -> None:
    first, second = look(table(image=True), table(image=True))
    assert len(set(first.section)) == len(set(second.section)) == 1
    assert set(first.section).isdisjoint(second.section)


def test_positions_are_those_of_the_object_or_of_the_array() -> None:
    assert look(table())[0].xy is None
    given = table(spatial=True, array_row=[3, 4, 5, 6], array_col=[1, 1, 2, 2])
    assert look(given)[0].xy[:, 0].tolist() == [0, 10, 20, 30]  # type: ignore[index]
    (array,) = describe([given], modalities=["gene"], keys={}, text_keys=(), group_key=None, array_positions=True)
    assert array.xy is not None
    assert sorted(array.xy.ravel().tolist()) == [1, 1, 2, 2, 3, 4, 5, 6]


def test_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="not DataFrame"):
        look(pd.DataFrame())


def test_the_summary_names_what_each_object_holds() -> None:
    assert summary(look(table(), table(2, text="a"))) == "object 0 (4 rows): gene; object 1 (2 rows): gene, text"


# ------------------------------------------------------------------------------------------------- rows and items


def test_inputs_of_several_objects_are_stacked() -> None:
    a, b = np.ones((2, 3)), np.zeros((1, 3))
    assert stack([a]) is a
    assert stack([a, b]).tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    assert stack([["x"], ["y", "z"]]) == ["x", "y", "z"]
    sparse = stack([sp.csr_matrix(a), sp.csr_matrix(b)])
    assert sparse.format == "csr"
    assert sparse.shape == (3, 3)


def test_every_row_knows_its_position_in_the_stacked_inputs() -> None:
    sources = look(table(3, spatial=True), table(2, patient="p"))
    masks: dict[str, list[np.ndarray | None]] = {
        "gene": [np.array([True, True, False]), np.array([True, True])],
        "image": [None, np.array([False, True])],
    }
    rows = observations(sources, masks)
    assert rows["source"].tolist() == [0, 0, 0, 1, 1]
    assert rows["gene"].tolist() == [0, 1, -1, 2, 3]
    assert rows["image"].tolist() == [-1, -1, -1, -1, 0]
    assert rows["group"].tolist() == ["object 0"] * 3 + ["p"] * 2
    assert rows["x"].tolist()[:3] == [0, 10, 20]
    assert rows["x"].isna().tolist() == [False] * 3 + [True] * 2


def test_a_row_gives_one_item_for_each_distinct_caption() -> None:
    sources = look(
        table(3, text=["a", "b", None], other=["a", "c", None]), table(1, text=["a"]), text_keys=("text", "other")
    )
    items = item_arrays(sources, observations(sources, {"gene": [np.ones(3, bool), np.ones(1, bool)]}))
    assert items["row"].tolist() == [0, 1, 1, 2, 3]
    assert items["caption"].tolist() == ["a", "b", "c", None, "a"]
    assert items["gene"].tolist() == [0, 1, 1, 2, 3]


def test_rows_without_any_text_column_have_no_caption() -> None:
    sources = look(table(2), text_keys=())
    items = item_arrays(sources, observations(sources, {"gene": [np.ones(2, bool)]}))
    assert items["caption"].tolist() == [None, None]
