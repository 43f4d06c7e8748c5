"""Read one HER2-positive section from either layout."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd

from spatialwhisperer._messages import listing
from spatialwhisperer.datasets._sections.section import Section, check_inside
from spatialwhisperer.datasets._sections.spots import array_obs, selected, whole_numbers

if TYPE_CHECKING:
    from pathlib import Path

SPOT_PITCH_UM = 200.0
SPOT_DIAMETER_UM = 100.0
LABEL_TOLERANCE = 0.1
"""Largest distance, in array units, between a label's coordinates and its spot's: both were rounded to three decimals."""


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
        counts=whole_numbers(adata.X, folder / "counts.h5ad"),
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
    # the counts come with spots beside the tissue, the selection with spots that quality control dropped
    spots = selected(spots)
    spots = spots[spots.index.isin(counts.index)]
    if spots.empty:
        raise ValueError(f"No selected spot of {name} in {data / 'ST-spotfiles'} has counts in {data / 'ST-cnts'}.")
    counts = counts.loc[spots.index]
    matrix = whole_numbers(counts, data / "ST-cnts")
    obs = array_obs(name, name[0], spots, matrix)
    obs["pathologist_label"] = _pathologist_labels(data, name, spots)
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
