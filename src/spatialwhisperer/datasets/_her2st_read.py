"""Read one HER2-positive section from either layout, and join sections into one SpatialData."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._messages import listing
from spatialwhisperer.datasets._files import jpeg

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

SPOT_PITCH_UM = 200.0
SPOT_DIAMETER_UM = 100.0
LABEL_TOLERANCE = 0.1
"""Largest distance, in array units, between a label's coordinates and its spot's: both were rounded to three decimals."""


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


def read_folder(folder: Path, *, with_image: bool) -> Section:
    """Read ``counts.h5ad``, ``meta.json`` and the image that it names."""
    import anndata as ad

    meta_file = folder / "meta.json"
    if not meta_file.is_file():
        raise FileNotFoundError(f"{folder} has no meta.json, which gives the microns per pixel.")
    meta = json.loads(meta_file.read_text())
    image = None
    if with_image and meta.get("image"):
        image = folder / meta["image"]
        if not image.is_file():
            raise FileNotFoundError(
                f"{image} is missing though meta.json names it. Put it there, or pass with_image=False."
            )
    adata = ad.read_h5ad(folder / "counts.h5ad")
    # without an image of its own, positions are in pixels of the original one
    mpp = meta.get("um_per_px") or meta["um_per_px_orig_image"]
    section = Section(
        name=folder.name,
        counts=sp.csr_matrix(adata.X, dtype=np.int32),
        genes=cast("pd.DataFrame", adata.var),
        obs=cast("pd.DataFrame", adata.obs),
        spatial_px=np.asarray(adata.obsm["spatial"], dtype=np.float32),
        obsm={k: v for k, v in adata.obsm.items() if isinstance(v, pd.DataFrame)},
        mpp=float(mpp),
        spot_diameter_um=float(meta.get("spot_diameter_um", SPOT_DIAMETER_UM)),
        image=image,
        meta=meta,
    )
    check_inside(section)
    return section


def read_upstream(data: Path, name: str, *, with_image: bool) -> Section:
    """Read one section of a clone of the authors' repository; ``data`` is its ``data`` folder."""
    counts = pd.read_csv(_one(data / "ST-cnts", f"{name}.tsv*"), sep="\t", index_col=0)
    spots = pd.read_csv(_one(data / "ST-spotfiles", f"{name}_selection.tsv*"), sep="\t")
    spots = spots[spots["selected"] == 1]
    spots.index = spots["x"].astype(int).astype(str) + "x" + spots["y"].astype(int).astype(str)
    # the counts come with spots beside the tissue, the selection with spots that quality control dropped
    spots = spots[spots.index.isin(counts.index)]
    if spots.empty:
        raise ValueError(f"No selected spot of {name} in {data / 'ST-spotfiles'} has counts in {data / 'ST-cnts'}.")
    counts = counts.loc[spots.index]
    matrix = sp.csr_matrix(counts.to_numpy().astype(np.int32))
    obs = pd.DataFrame(
        {
            "array_row": spots["y"].astype("int64"),
            "array_col": spots["x"].astype("int64"),
            "array_row_adj": spots["new_y"].astype(float),
            "array_col_adj": spots["new_x"].astype(float),
            "section": name,
            "patient": name[0],
            "total_counts": np.asarray(matrix.sum(axis=1)).ravel().astype(np.int32),
            "n_genes": np.diff(matrix.indptr).astype(np.int32),
            "pathologist_label": _pathologist_labels(data, name, spots),
        }
    )
    obs.index = [f"{name}_{spot}" for spot in spots.index]
    image = _one(data / "ST-imgs" / name[0] / name, "*.jpg", hint=" Or pass with_image=False.") if with_image else None
    mpp = _mpp_from_pitch(spots)
    section = Section(
        name=name,
        counts=matrix,
        genes=pd.DataFrame(index=counts.columns.astype(str)),
        obs=obs,
        spatial_px=spots[["pixel_x", "pixel_y"]].to_numpy(dtype=np.float32),
        obsm={},
        mpp=mpp,
        spot_diameter_um=SPOT_DIAMETER_UM,
        image=image,
        meta={"section": name, "patient": name[0], "um_per_px": mpp, "license": "CC BY 4.0"},
    )
    check_inside(section)
    return section


def _one(folder: Path, pattern: str, hint: str = "") -> Path:
    paths = sorted(folder.glob(pattern))
    if len(paths) != 1:
        there = (
            f"it holds {listing(sorted(p.name for p in folder.iterdir()))}"
            if os.path.isdir(folder)
            else "no such folder"
        )
        raise FileNotFoundError(f"{folder} must hold one file {pattern} ({len(paths)} found; {there}).{hint}")
    return paths[0]


def _mpp_from_pitch(spots: pd.DataFrame) -> float:
    if spots["x"].nunique() < 2 or spots["y"].nunique() < 2:
        raise ValueError("Microns per pixel come from the spot pitch, which needs spots in two rows and two columns.")
    px_per_pitch = [np.polyfit(spots[f"new_{axis}"], spots[f"pixel_{axis}"], 1)[0] for axis in "xy"]
    return float(SPOT_PITCH_UM / np.mean(px_per_pitch))


def _pathologist_labels(data: Path, name: str, spots: pd.DataFrame) -> np.ndarray:
    labels = np.full(len(spots), None, dtype=object)
    file = data / "ST-pat" / "lbl" / f"{name}_labeled_coordinates.tsv"
    if os.path.isfile(file):  # one section per patient was annotated
        from scipy.spatial import cKDTree

        table = pd.read_csv(file, sep="\t").dropna(subset=["x", "y", "label"])
        distance, nearest = cKDTree(table[["x", "y"]].to_numpy()).query(spots[["new_x", "new_y"]].to_numpy())
        near = distance < LABEL_TOLERANCE
        labels[near] = table["label"].to_numpy(dtype=object)[nearest[near]]
    return labels


def check_inside(section: Section) -> None:
    """Refuse spots that lie outside the image of their section."""
    if section.image is None:
        return
    size = np.array(jpeg.size(section.image))
    outside = int(((section.spatial_px < 0) | (section.spatial_px >= size)).any(axis=1).sum())
    if outside:
        raise ValueError(
            f"{outside} of {len(section.spatial_px)} spots of {section.name} lie outside {section.image} "
            f"({size[0]} x {size[1]} px): it is not the image that the spot positions refer to."
        )


def assemble(sections: list[Section], *, record: str = "her2st") -> SpatialData:
    """Join sections: images and circles side by side, one table over the union of genes; ``record`` names the key of ``.uns``."""
    from spatialdata import SpatialData

    from spatialwhisperer.datasets._elements import CHUNK_PX, circles, image_element, n_levels

    images, shapes = {}, {}
    for s in sections:
        if s.image is not None:
            levels = jpeg.pyramid(s.image, chunk_px=CHUNK_PX, n=n_levels((3, *jpeg.size(s.image))))
            images[f"{s.name}_image"] = image_element(levels, section=s.name, mpp=s.mpp)
        radius_px = s.spot_diameter_um / 2 / s.mpp
        shapes[f"{s.name}_spots"] = circles(s.spatial_px, radius_px, section=s.name, mpp=s.mpp)
    return SpatialData(images=images, shapes=shapes, tables={"table": _table(sections, record)})


def _table(sections: list[Section], record: str) -> AnnData:
    import anndata as ad

    from spatialwhisperer.datasets._elements import table_element

    var = _union_of_genes(sections)
    adata = ad.AnnData(
        X=sp.vstack([_in_columns(s, var.index) for s in sections], format="csr"),
        obs=_stack_obs(sections),
        var=var,
    )
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
    out.sort_indices()
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
