"""Read sections of the olfactory bulb: those with layers, in the layout of Splotch, and those with counts, in that of STUtility."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from spatialwhisperer._messages import listing
from spatialwhisperer.datasets._files import jpeg
from spatialwhisperer.datasets._her2st_read import SPOT_DIAMETER_UM, SPOT_PITCH_UM
from spatialwhisperer.datasets._sections.section import Section, check_inside
from spatialwhisperer.datasets._sections.spots import totals, whole_numbers

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = (
    "olfactory nerve layer",
    "glomerular layer",
    "outer plexiform layer",
    "mitral cell layer",
    "granular cell layer",
)
"""From the surface of the bulb to its core."""

STEPS = (32, 34)
"""Pitches between the first and the last column, and row, of the array of 33 × 35 spots, which spans the image."""

_READING = (OSError, EOFError, ValueError, zlib.error)


def read_layers(root: Path, name: str, counts: Path | None, *, with_image: bool) -> Section:
    """Read an annotated section.

    Parameters
    ----------
    root
        Folder with ``images``, ``annotations`` and ``metadata.tsv``.
    name
        Two digits.
    counts
        File with the counts of the section; ``None`` where there is none.
    with_image
        Keep the image. Its size is read in any case, since it gives the positions of the spots.
    """
    image = _there(root / "images" / f"{name}.jpg")
    labels = _labels(_there(root / "annotations" / f"{name}_01.tsv"))
    animal = _animal(_there(root / "metadata.tsv"), name)
    pitch = np.array(jpeg.size(image)) / STEPS
    spots = np.array([[int(v) for v in spot.split("_")] for spot in labels.index])
    mpp = float(SPOT_PITCH_UM / pitch.mean())
    obs = _obs(name, animal, spots)
    obs["layer"] = labels.to_numpy()
    matrix, genes = sp.csr_matrix((len(obs), 0), dtype=np.int32), pd.DataFrame(index=pd.Index([], dtype=object))
    if counts is not None:
        matrix, genes = _counts_of(counts, spots)
    section = Section(
        name=name,
        counts=matrix,
        genes=genes,
        obs=obs.assign(**totals(matrix)) if counts is not None else obs,
        spatial_px=((spots - 1) * pitch).astype(np.float32),
        obsm={},
        mpp=mpp,
        spot_diameter_um=SPOT_DIAMETER_UM,
        image=image,
        meta={"section": name, "animal": animal, "um_per_px": mpp, "genes": "" if counts is None else "symbol"}
        | {"source": "github.com/tare/Splotch", "license": "BSD-3-Clause"}
        | ({"counts": "github.com/almaan/sepal, MIT"} if counts is not None else {}),
    )
    check_inside(section)
    return section if with_image else _without_image(section)


def read_counts(root: Path, name: str, *, with_image: bool) -> Section:
    """Read a section of 1,000 genes from ``MOB*.jpg``, ``MOB*.tsv`` (or ``.tsv.gz``) and ``alignment_table_MOB*.tsv``."""
    spots = _read(_there(root / f"alignment_table_{name}.tsv"))
    _require(spots, ("x", "y", "new_y", "pixel_x", "pixel_y", "selected"), root / f"alignment_table_{name}.tsv")
    packed = root / f"{name}.tsv.gz"
    path = packed if packed.is_file() else _there(root / f"{name}.tsv")
    counts = _read(path, index_col=0)
    # much signal lies beside the tissue: the authors' selection is what is under it
    spots = spots[spots["selected"] == 1]
    spots.index = spots["x"].astype(str) + "x" + spots["y"].astype(str)
    spots = spots[spots.index.isin(counts.index)]
    if len(spots) < 2:
        raise ValueError(f"{len(spots)} selected spots of {name} have counts in {path}; get the file again.")
    # two steps of the row index are one pitch
    mpp = float(SPOT_PITCH_UM / 2 / np.polyfit(spots["new_y"], spots["pixel_y"], 1)[0])
    matrix = whole_numbers(counts.loc[spots.index], path)
    ids = [str(gene).split(".")[0] for gene in counts.columns]
    # sections 1 and 2 are of one animal, 3 and 4 of another
    animal = "MOB-1" if name in ("MOB1", "MOB2") else "MOB-2"
    obs = _obs(name, animal, spots[["x", "y"]].to_numpy().astype(int))
    obs["layer"] = np.full(len(obs), None, dtype=object)
    section = Section(
        name=name,
        counts=matrix,
        genes=pd.DataFrame({"ensembl_id": ids}, index=ids),
        obs=obs.assign(**totals(matrix)),
        spatial_px=spots[["pixel_x", "pixel_y"]].to_numpy(dtype=np.float32),
        obsm={},
        mpp=mpp,
        spot_diameter_um=SPOT_DIAMETER_UM,
        image=_there(root / f"{name}.jpg", hint=" Or pass with_image=False.") if with_image else None,
        meta={"section": name, "animal": animal, "um_per_px": mpp, "genes": "ensembl"}
        | {"source": "github.com/jbergenstrahle/STUtility", "license": "MIT"},
    )
    check_inside(section)
    return section


def _obs(name: str, animal: str, spots: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {"array_row": spots[:, 1], "array_col": spots[:, 0], "section": name, "patient": animal},
        index=[f"{name}_{x}x{y}" for x, y in spots],
    )


def _without_image(section: Section) -> Section:
    from dataclasses import replace

    return replace(section, image=None)


def _labels(path: Path) -> pd.Series:
    """Layer of each spot ``x_y``; missing where the annotators chose none or several."""
    table = _read(path, index_col=0)
    names = [str(name).strip().lower() for name in table.index]
    unknown = [name for name in names if name not in LAYERS]
    values = table.to_numpy()
    spots = table.columns.astype(str)
    odd = [spot for spot in spots if not all(v.isdigit() for v in spot.split("_")) or spot.count("_") != 1]
    if unknown or odd or not len(spots) or not np.isin(values, (0, 1)).all():
        found = f"layers {listing(names)}, spots {listing(odd or list(spots))}"
        raise ValueError(
            f"{path} must hold one row of 0 and 1 per layer ({listing(LAYERS)}) and one column x_y per spot; found {found}. "
            "Get the file again."
        )
    one = values.sum(axis=0) == 1
    chosen = np.array(names, dtype=object)[values.argmax(axis=0)]
    chosen[~one] = None
    return pd.Series(chosen, index=spots)


def _animal(path: Path, name: str) -> str:
    table = _read(path)
    _require(table, ("sample_number", "level_1"), path)
    own = table.loc[table["sample_number"] == int(name), "level_1"]
    if len(own) != 1:
        raise ValueError(f"{path} must have one line for sample {int(name)}; it has {len(own)}. Get the file again.")
    return str(own.iloc[0])


def _counts_of(path: Path, spots: np.ndarray) -> tuple[sp.csr_matrix, pd.DataFrame]:
    """Counts of spots ``X<x>x<y>``, whose coordinates are those of the array as they were measured."""
    table = _read(_there(path), index_col=0)
    try:
        measured = np.array([[float(v) for v in str(i).removeprefix("X").split("x")] for i in table.index])
        table.index = [f"{x}_{y}" for x, y in np.rint(measured).astype(int)]
    except ValueError as error:
        raise ValueError(f"{path} must name its spots X<x>x<y> ({error}). Get the file again.") from error
    wanted = [f"{x}_{y}" for x, y in spots]
    absent = sorted(set(wanted) - set(table.index))
    if absent or not table.index.is_unique:
        raise ValueError(f"{path} must hold every annotated spot once; missing: {listing(absent)}. Get the file again.")
    return whole_numbers(table.loc[wanted], path), pd.DataFrame(index=table.columns.astype(str))


def _there(path: Path, hint: str = "") -> Path:
    if not path.is_file():
        folder = path.parent
        there = f"it holds {listing(sorted(p.name for p in folder.iterdir()))}" if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"{path} is missing ({there}).{hint}")
    return path


def _read(path: Path, index_col: int | None = None) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", index_col=index_col)
    except _READING as error:
        raise ValueError(f"{path} cannot be read ({error}). Get the file again.") from error


def _require(table: pd.DataFrame, columns: tuple[str, ...], path: Path) -> None:
    absent = [c for c in columns if c not in table]
    if absent:
        raise ValueError(f"{path} has no column {listing(absent)}; it has {listing(map(str, table.columns))}.")
