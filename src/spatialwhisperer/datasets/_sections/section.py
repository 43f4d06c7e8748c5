"""One section of published data before it becomes a SpatialData, and joining sections into one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer.datasets._files import images

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Section:
    """One section, before it is joined with others."""

    name: str
    counts: sp.csr_matrix
    genes: pd.DataFrame
    obs: pd.DataFrame
    spatial_px: np.ndarray
    obsm: dict[str, pd.DataFrame]
    mpp: float
    spot_diameter_um: float
    image: Path | None
    meta: dict[str, Any]


def check_inside(section: Section) -> None:
    """Refuse spots that lie outside the image of their section."""
    if section.image is None:
        return
    size = np.array(images.size(section.image))
    outside = int(((section.spatial_px < 0) | (section.spatial_px >= size)).any(axis=1).sum())
    if outside:
        raise ValueError(
            f"{outside} of {len(section.spatial_px)} spots of {section.name} lie outside {section.image} "
            f"({size[0]} x {size[1]} px): it is not the image that the spot positions refer to."
        )


def assemble(sections: list[Section], *, record: str = "her2st") -> SpatialData:
    """Join sections: images and circles side by side, one table over the union of genes; ``record`` names the key of ``.uns``."""
    from spatialdata import SpatialData

    from spatialwhisperer.datasets._sections.elements import circles, image_element

    pictures, shapes = {}, {}
    for s in sections:
        if s.image is not None:
            pictures[f"{s.name}_image"] = image_element(images.levels(s.image), section=s.name, mpp=s.mpp)
        radius_px = s.spot_diameter_um / 2 / s.mpp
        shapes[f"{s.name}_spots"] = circles(s.spatial_px, radius_px, section=s.name, mpp=s.mpp)
    return SpatialData(images=pictures, shapes=shapes, tables={"table": _table(sections, record)})


def _table(sections: list[Section], record: str) -> AnnData:
    import anndata as ad

    from spatialwhisperer.datasets._sections.elements import table_element

    var = _union_of_genes(sections)
    counts = sp.vstack([_in_columns(s, var.index) for s in sections], format="csr")
    adata = ad.AnnData(
        X=counts,
        obs=_stack_obs(sections),
        var=var,
    )
    if any(s.genes.index.has_duplicates for s in sections) and "n_genes" in adata.obs:
        adata.obs["n_genes"] = counts.getnnz(axis=1).astype(np.int32)
    adata.obsm["spatial"] = np.vstack([s.spatial_px for s in sections])
    for key in dict.fromkeys(k for s in sections for k in s.obsm):
        stacked = pd.concat([s.obsm.get(key, pd.DataFrame(index=s.obs.index)) for s in sections])
        adata.obsm[key] = stacked.to_numpy(dtype=np.float32)
        adata.uns[key] = {"classes": np.array(stacked.columns, dtype=object)}
    adata.uns[record] = {s.name: json.dumps(s.meta) for s in sections}
    return table_element(adata, regions=[f"{s.name}_spots" for s in sections])


def _union_of_genes(sections: list[Section]) -> pd.DataFrame:
    var = pd.concat([s.genes for s in sections])
    var = var[~var.index.duplicated()]
    for column in var.columns:
        var[column] = var[column].fillna("").astype(str).astype(object)
    return var


def _in_columns(section: Section, genes: pd.Index) -> sp.csr_matrix:
    counts = section.counts
    columns = genes.get_indexer(section.genes.index)
    out = sp.csr_matrix((counts.data, columns[counts.indices], counts.indptr), shape=(counts.shape[0], len(genes)))
    # of genes with one name the counts are added
    out.sum_duplicates()
    return out


def _stack_obs(sections: list[Section]) -> pd.DataFrame:
    frames = []
    for s in sections:
        frame = s.obs.copy()
        for column in frame.columns[frame.dtypes == "category"]:
            frame[column] = frame[column].astype(object)
        frame["region"] = f"{s.name}_spots"
        frame["instance_id"] = np.arange(len(frame))
        frames.append(frame)
    obs = pd.concat(frames)
    for column in obs.columns:
        if not pd.api.types.is_numeric_dtype(obs[column]):
            obs[column] = pd.Categorical(obs[column])
    return obs
