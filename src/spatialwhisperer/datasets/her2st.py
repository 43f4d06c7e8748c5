"""HER2-positive breast cancer by Spatial Transcriptomics: 36 sections of 8 patients."""

from __future__ import annotations

import os
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

URL = "https://raw.githubusercontent.com/almaan/her2st/master"


@checked
def her2st(
    sections: str | Sequence[str] = "C2",
    *,
    data_dir: str | Path | None = None,
    with_image: bool = True,
    base_url: str = URL,
) -> SpatialData:
    """Read sections of HER2-positive breast cancer (Spatial Transcriptomics, 100 µm spots at 200 µm pitch).

    Section ``S`` becomes the image ``S_image`` (c, y, x uint8 pyramid, decoded when pixels are asked for) and the circles ``S_spots`` (radius in
    pixels), both registered to the coordinate systems ``S`` (full-resolution pixels of the image) and ``microns``. One ``table`` covers all
    sections: genes are the union over sections, and a gene that a section did not report counts 0 there.

    Parameters
    ----------
    sections
        One name or several: a patient, ``A`` to ``H``, and a section number.
    data_dir
        Folder that holds either a clone of the authors' repository (``data/ST-cnts``, ``data/ST-imgs``, ``data/ST-spotfiles``,
        ``data/ST-pat/lbl``) or one folder per section with ``counts.h5ad``, ``meta.json`` and, for some, an image. ``None`` downloads the
        authors' files once into ``settings.cache_dir / "her2st"`` and checks each, at every call, against its published git blob SHA-1.
    with_image
        Read images. A section whose ``meta.json`` names no image comes as circles and table only, with a warning.
    base_url
        Where the authors' files are downloaded from.

    Returns
    -------
    SpatialData whose ``table`` has

    - ``X``: raw UMI counts, CSR int32 (n_spots, n_genes);
    - ``obs``: ``region``, ``instance_id``, ``section``, ``patient``, ``array_row``, ``array_col`` (and ``*_adj``), ``total_counts``,
      ``n_genes``, ``pathologist_label`` (missing where there is none), and every further column of ``counts.h5ad``;
    - ``obsm["spatial"]``: x, y in full-resolution pixels; ``obsm["deconv_*"]``: cell-type proportions, float32, only from ``counts.h5ad``, with
      the class names in ``uns[<same key>]["classes"]``;
    - ``uns["her2st"]``: one JSON string per section with its source, licence, microns per pixel and clinical data where known.

    Raises
    ------
    ValueError
        Unknown or repeated section names, spots outside the image, a download that is not the published file.
    FileNotFoundError
        A folder or file is missing, or ``settings.offline`` forbids to download it.
    ConnectionError
        The download failed.

    Notes
    -----
    Microns per pixel come from ``meta.json``, else from the 200 µm pitch: 200 divided by the slope of pixel against array coordinates.
    The authors' expression clusters and deconvolution are not read from a clone of their repository. A JPEG is decoded as a whole when the first
    pixel is asked for; the two decoded last stay in memory.

    References
    ----------
    Andersson et al., Nat Commun 12, 6012 (2021). Data: CC BY 4.0, https://doi.org/10.5281/zenodo.4751624.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> sdata = sw.datasets.her2st(["C2", "C3"])  # doctest: +SKIP
    """
    names = checked_names(sections, _known())
    if data_dir is None:
        from spatialwhisperer.datasets._files.download import fetch

        root = settings.cache_dir / "her2st"
        fetch({p: h for name in names for p, h in _wanted(name, with_image).items()}, base_url=base_url, folder=root)
        read = [_upstream(root / "data", name, with_image) for name in names]
    else:
        read = _from_folder(Path(data_dir).expanduser(), names, with_image)
    without = [s.name for s in read if with_image and s.image is None]
    if without:
        warn(f"No image of {listing(without)} in {data_dir}: circles and table only.")

    from spatialwhisperer.datasets._sections.section import assemble

    return assemble(read)


def _known() -> list[str]:
    return sorted(Path(p).name.split(".")[0] for p in _registry() if p.startswith("data/ST-cnts/"))


@lru_cache(maxsize=1)
def _registry() -> dict[str, str]:
    """Path in the authors' repository -> git blob SHA-1."""
    lines = (files("spatialwhisperer.datasets") / "her2st_files.tsv").read_text().splitlines()[1:]
    return dict(line.split("\t") for line in lines)


def _wanted(name: str, with_image: bool) -> dict[str, str]:
    starts = [f"data/ST-cnts/{name}.", f"data/ST-spotfiles/{name}_", f"data/ST-pat/lbl/{name}_"]
    if with_image:
        starts.append(f"data/ST-imgs/{name[0]}/{name}/")
    return {path: sha1 for path, sha1 in _registry().items() if path.startswith(tuple(starts))}


def _from_folder(folder: Path, names: list[str], with_image: bool) -> list[Section]:
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{folder} is not a folder. Pass data_dir=None to download the sections.")
    roots = [folder, folder / "her2st"]
    for root in roots:
        for data in (root / "data", root):
            if os.path.isdir(data / "ST-cnts"):
                return [_upstream(data, name, with_image) for name in names]
    for root in roots:
        present = sorted(p.parent.name for p in root.glob("*/counts.h5ad"))
        if present:
            absent = [n for n in names if n not in present]
            if absent:
                raise FileNotFoundError(
                    f"{root} has no section {listing(absent)}; it has {listing(present, limit=36)}."
                )
            from spatialwhisperer.datasets._her2st_read import read_folder

            return [read_folder(root / name, with_image=with_image) for name in names]
    raise FileNotFoundError(
        f"{folder} holds neither data/ST-cnts (a clone of the authors' repository) nor <section>/counts.h5ad; it holds "
        f"{listing(sorted(p.name for p in folder.iterdir()))}. Pass data_dir=None to download the sections."
    )


def _upstream(data: Path, name: str, with_image: bool) -> Section:
    from spatialwhisperer.datasets._her2st_read import read_upstream

    return read_upstream(data, name, with_image=with_image)
