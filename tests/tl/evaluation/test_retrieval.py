from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw


def table(order: list[int], n: int = 20, section: str = "a") -> ad.AnnData:
    """Rows whose image lies at the gene embedding of the row at `order`."""
    adata = ad.AnnData(
        np.zeros((n, 1), np.float32), obs=pd.DataFrame({"part": section}, index=[f"{section}{i}" for i in range(n)])
    )
    adata.obsm["X_sw_gene"] = np.eye(n)
    adata.obsm["X_sw_image"] = np.eye(n)[order]
    adata.obsm["spatial"] = np.column_stack([np.arange(n), np.zeros(n)]).astype(float)
    return adata


def without_image(adata: ad.AnnData) -> ad.AnnData:
    other = adata.copy()
    del other.obsm["X_sw_image"]
    return other


def test_by_hand() -> None:
    """Of 20 rows 15 find their partner first; the others have theirs on one of the ranks 2 to 20."""
    order = [*range(15), 16, 17, 18, 19, 15]
    result = sw.tl.evaluate_retrieval(table(order))
    assert list(result.index) == [(d, c) for d in ("image → gene", "gene → image") for c in ("section", "all")]
    for row in result.itertuples():
        assert row.n == 20
    assert (result["recall@1"] == 0.75).all()
    assert result["recall@10"].tolist() == pytest.approx([0.75 + 0.25 * 9 / 19] * 4)
    assert (result["median_rank"] == 1).all()
    assert result.iloc[0][["chance@1", "chance@5", "chance@10"]].tolist() == [0.05, 0.25, 0.5]
    assert "Recall@k" in result.attrs["convention"]


def test_within_sections_and_over_all_rows_in_both_directions() -> None:
    """Two equal sections: over all rows each partner has a twin in the other one. Directions differ where two images are alike.

    Of the genes of these images one is tied between both images, and the other with all images.
    """
    one, two = table([0, 0, *range(2, 20)]), table(list(range(20)), section="b")
    result = sw.tl.evaluate_retrieval([one, two])
    assert result.loc[("image → gene", "section"), "recall@1"] == pytest.approx((19 / 20 + 1) / 2)
    assert result.loc[("gene → image", "section"), "recall@1"] == pytest.approx(((18 + 1 / 2 + 1 / 20) / 20 + 1) / 2)
    assert result.loc[("image → gene", "all"), "recall@1"] == pytest.approx(39 / 2 / 40)
    # one image has two genes above, and its own tied with 37 others on the ranks from 3
    assert result.loc[("image → gene", "all"), "recall@5"] == pytest.approx((39 + 3 / 38) / 40)
    assert result.loc[("image → gene", "all"), "chance@1"] == 1 / 40


def test_groups_are_a_column_and_rows_without_an_embedding_do_not_count() -> None:
    both = ad.concat([table(list(range(20))), table(list(range(20)), section="b")])
    both.obsm["X_sw_image"][3] = np.nan
    result = sw.tl.evaluate_retrieval(both, group_key="part")
    assert (result["n"] == 39).all()
    assert (result.xs("section", level="candidates")["recall@1"] == 1).all()
    with pytest.raises(KeyError, match="group_key='patient' not in .obs"):
        sw.tl.evaluate_retrieval(both, group_key="patient")


def test_what_is_no_joint_space_is_refused() -> None:
    adata = table(list(range(20)))
    with pytest.raises(KeyError, match="sw.tl.embed"):
        sw.tl.evaluate_retrieval(without_image(adata))
    adata.obsm["X_sw_gene"] = adata.obsm["X_sw_gene"][:, :5]
    with pytest.raises(
        ValueError, match="has 20 columns and .obsm\\['X_sw_gene'\\] 5: they are not of one joint space"
    ):
        sw.tl.evaluate_retrieval(adata)
    adata.obsm["X_sw_gene"] = np.full((20, 20), np.nan)
    with pytest.raises(ValueError, match="0 rows have both embeddings"):
        sw.tl.evaluate_retrieval(adata)


def test_every_row_needs_a_group() -> None:
    one = table(list(range(20)))
    one.obs["part"] = [1.0] * 19 + [np.nan]
    with pytest.raises(ValueError, match=r"1 of 20 rows have no group in .obs\['part'\]"):
        sw.tl.evaluate_retrieval(one, group_key="part")
