"""Labels and scores of an annotation that belong together, and those that a join has mixed."""

from __future__ import annotations

import warnings
from typing import Any

import anndata as ad
import pytest

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.tl._annotation import consistency

LABELS = ["fat cell", "T cell", "fibroblast", "tumour"]


@pytest.fixture
def joined(adata: Any, model: Any) -> Any:
    """Two parts of a section, the second annotated with labels in another order; the record is that of the first."""

    def join(second: list[str], cut: int = 60, **arguments: Any) -> ad.AnnData:
        parts = adata[:cut].copy(), adata[cut:].copy()
        for part, labels in zip(parts, (LABELS, second), strict=True):
            sw.tl.zero_shot_annotate(part, labels, model=model, unknown="label", **arguments)
        return ad.concat(parts, uns_merge="first")

    return join


@pytest.mark.parametrize("normalize", ["centre", "none", "softmax"])
def test_labels_of_another_order_are_refused(joined: Any, normalize: str) -> None:
    both = joined(LABELS[::-1], normalize=normalize)
    for call in (sw.tl.top_labels, lambda data: sw.tl.evaluate_annotation(data, "cell_type")):
        with pytest.raises(
            ValueError, match=r"of the labels in \.obs\['sw_label'\] are not what the scores say.*Annotate all"
        ):
            call(both)


def test_labels_of_one_order_belong_together(joined: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        both = joined(LABELS)
        assert sw.tl.top_labels(both, 1)["label_1"].tolist() == both.obs["sw_label"].tolist()


def test_a_few_labels_that_were_changed_by_hand_are_said(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    both = joined(LABELS)
    edited = both.obs["sw_label"].astype(object)
    best = sw.tl.top_labels(both, 4)
    edited.iloc[[3, 70]] = best["label_4"].iloc[[3, 70]]
    both.obs["sw_label"] = edited
    with pytest.warns(UserWarning, match=r"Where they were changed by hand, ignore this"):
        assert sw.tl.top_labels(both, 4).equals(best)
    # names that are no labels say nothing
    both.obs["sw_label"] = edited.map(lambda name: f"my {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialWhispererWarning)
        sw.tl.top_labels(both)
    # of many rows some are compared
    monkeypatch.setattr(consistency, "_ROWS", 10)
    with pytest.raises(ValueError, match="are not what the scores say"):
        sw.tl.top_labels(joined(LABELS[::-1]))
