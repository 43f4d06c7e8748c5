"""Mouse olfactory bulb by Spatial Transcriptomics: nine sections with expert layers, four with counts."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing, warn
from spatialwhisperer._settings import settings
from spatialwhisperer.datasets._sections.names import checked_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from spatialwhisperer.datasets._sections.section import Section

URL = "https://raw.githubusercontent.com"
WITH_LAYERS = ("01", "03", "04", "05", "06", "08", "09", "10", "11")
WITH_GENES = ("MOB1", "MOB2", "MOB3", "MOB4")
NAMES = (*WITH_LAYERS, *WITH_GENES)
_COUNTS = "11"
_PAGE = "https://github.com/jbergenstrahle/STUtility (inst/extdata/counts)"


@checked
def olfactory_bulb(
    sections: str | Sequence[str] = "11",
    *,
    data_dir: str | Path | None = None,
    with_image: bool = True,
    base_url: str = URL,
) -> SpatialData:
    """Read H&E sections of the mouse olfactory bulb (Spatial Transcriptomics, 100 µm spots at 200 µm pitch).

    Sections 01 to 11 have layers by an expert, section 11 also counts. Sections MOB1 to MOB4 have counts of 1,000 genes and no layers.
    Section ``S`` becomes the image ``S_image`` and the circles ``S_spots``, as in :func:`her2st`.

    Parameters
    ----------
    sections
        One name or several of 01, 03, 04, 05, 06, 08, 09, 10, 11, MOB1, MOB2, MOB3, MOB4.
    data_dir
        Folder with ``images``, ``annotations`` and ``metadata.tsv``, and for section 11 ``counts_11.tsv.gz`` beside them; or one that
        holds this folder as ``mob_regions``, or a clone of Splotch. MOB1 to MOB4 are read from it, from ``mob`` in it, or from a clone of
        STUtility. ``None`` downloads 01 to 11 once into ``settings.cache_dir / "olfactory_bulb"`` and checks each file, at every call,
        against its known SHA-256.
    with_image
        Keep the images. Files of images are needed in any case for 01 to 11, since their size gives the positions of the spots.
    base_url
        Where the authors' files are downloaded from.

    Returns
    -------
    SpatialData whose ``table`` has

    - ``X``: raw counts, CSR int32 (n_spots, n_genes). There are genes only where every section that was asked for has counts, and names its
      genes in the same way: by symbol (11) or by Ensembl id without version (MOB1 to MOB4). Otherwise there is no gene, and a
      warning where counts were left out;
    - ``obs``: ``region``, ``instance_id``, ``section``, ``patient`` (the animal: A to E, MOB-1, MOB-2), ``array_row``, ``array_col``,
      ``layer`` (categories from the surface to the core; missing where the expert chose none), and with counts
      ``total_counts`` and ``n_genes``;
    - ``obsm["spatial"]``: x, y in pixels of the image;
    - ``uns["olfactory_bulb"]``: one JSON string per section with its source, licence, animal and microns per pixel.

    Raises
    ------
    ValueError
        Unknown or repeated section names, a damaged file, spots outside the image, a download that is not the known file.
    FileNotFoundError
        A folder or file is missing, or ``settings.offline`` forbids to download it.
    ConnectionError
        The download failed.

    Notes
    -----
    The array of 33 × 35 spots spans the images of 01 to 11, so that their width is 32 pitches of 200 µm and their height 34. In MOB1 to MOB4, two
    steps of the row index count as one pitch. Sections 01 and 05 have bubbles and printing artefacts.

    References
    ----------
    Ståhl et al., Science 353, 78 (2016). Layers and images: github.com/tare/Splotch (BSD-3-Clause; Äijö et al., bioRxiv 757096). Counts
    of section 11: github.com/almaan/sepal (MIT). MOB1 to MOB4: github.com/jbergenstrahle/STUtility (MIT).

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sdata = sw.datasets.olfactory_bulb(["08", "09"])  # doctest: +SKIP
    """
    from spatialwhisperer.datasets._sections.section import assemble

    names = checked_names(sections, NAMES)
    read = _downloaded(names, with_image, base_url) if data_dir is None else _local(Path(data_dir), names, with_image)
    out = assemble(_with_common_genes(read), record="olfactory_bulb")
    _order_layers(out)
    return out


@lru_cache(maxsize=1)
def _registry() -> dict[str, str]:
    """Repository, commit and path -> SHA-256."""
    lines = (files("spatialwhisperer.datasets") / "olfactory_bulb_files.tsv").read_text().splitlines()[1:]
    return dict(line.split("\t") for line in lines)


def _wanted(names: Sequence[str]) -> dict[str, str]:
    ends = ["/metadata.tsv", *(f"/images/{n}.jpg" for n in names), *(f"/annotations/{n}_01.tsv" for n in names)]
    if _COUNTS in names:
        ends.append("/mob.tsv.gz")
    return {path: sha256 for path, sha256 in _registry().items() if path.endswith(tuple(ends))}


def _downloaded(names: list[str], with_image: bool, base_url: str) -> list[Section]:
    from spatialwhisperer.datasets._files.download import fetch
    from spatialwhisperer.datasets._olfactory_bulb_read import read_layers

    local = [n for n in names if n in WITH_GENES]
    if local:
        raise ValueError(f"{listing(local)} cannot be downloaded here: get {_PAGE} and pass data_dir=….")
    root = settings.cache_dir / "olfactory_bulb"
    fetch(_wanted(names), base_url=base_url, folder=root)
    (folder,) = {(root / path).parent for path in _registry() if path.endswith("/metadata.tsv")}
    counts = next((root / path for path in _registry() if path.endswith("/mob.tsv.gz")), None)
    return [read_layers(folder, n, counts if n == _COUNTS else None, with_image=with_image) for n in names]


def _local(data_dir: Path, names: list[str], with_image: bool) -> list[Section]:
    from spatialwhisperer.datasets._olfactory_bulb_read import read_counts, read_layers

    folder = data_dir.expanduser()
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder} is not a folder. Pass data_dir=None to download the sections.")
    out = []
    for name in names:
        if name in WITH_GENES:
            root = _place(folder, f"alignment_table_{name}.tsv", ("", "mob", "inst/extdata/counts"), name)
            out.append(read_counts(root, name, with_image=with_image))
        else:
            places = ("", "mob_regions", "olfactory_bulb_st", "tutorials/olfactory_bulb_st")
            root = _place(folder, f"annotations/{name}_01.tsv", places, name)
            counts = [p for p in (root / f"counts_{name}.tsv.gz", root / f"counts_{name}.tsv") if p.is_file()]
            out.append(read_layers(root, name, counts[0] if counts else None, with_image=with_image))
    return out


def _place(folder: Path, file: str, places: Sequence[str], name: str) -> Path:
    for place in places:
        if os.path.isfile(folder / place / file):
            return folder / place
    how = f"Get {_PAGE}." if name in WITH_GENES else "Pass data_dir=None to download the sections."
    raise FileNotFoundError(
        f"Section {name} needs {file} in {folder}, or in {listing(p for p in places if p)} in it; it holds "
        f"{listing(sorted(p.name for p in folder.iterdir()))}. {how}"
    )


def _with_common_genes(sections: list[Section]) -> list[Section]:
    """The sections, without counts where some section has none or names its genes otherwise: a 0 there would be no count."""
    kinds = {s.name: s.meta["genes"] for s in sections}
    counted = [name for name, kind in kinds.items() if kind]
    if len(set(kinds.values())) == 1 or not counted:
        return sections
    warn(
        f"The counts of {listing(counted)} are left out: not all sections have counts with the same gene names. "
        "Read sections with the same gene names by a call of their own to get them."
    )
    return [
        replace(s, counts=s.counts[:, :0], genes=s.genes.iloc[:0, :0], obs=s.obs.drop(columns=_TOTALS, errors="ignore"))
        for s in sections
    ]


_TOTALS = ["total_counts", "n_genes"]


def _order_layers(data: SpatialData) -> None:
    import pandas as pd

    from spatialwhisperer.datasets._olfactory_bulb_read import LAYERS

    obs = data["table"].obs
    obs["layer"] = pd.Categorical(obs["layer"].astype(object), categories=LAYERS)
