"""PathoCell: H&E of colorectal cancer with cell types from multiplexed imaging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing
from spatialwhisperer.datasets._nuclei.assemble import assemble
from spatialwhisperer.datasets._nuclei.layout import Layout, choose, folder_of
from spatialwhisperer.datasets.cells import TILE_PX, CellImages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAGE = "https://huggingface.co/datasets/Kainmueller-Lab/PathoCell"
Level = Literal["coarse", "fine"]
_FILES = {"coarse": ("CT_coarse_mapping.txt", "gt_ct_coarse"), "fine": ("CT_mapping.txt", "gt_ct")}
HOW = (
    f"PathoCell is gated: ask for access at {PAGE}, then run\n"
    "  hf auth login\n"
    "  hf download Kainmueller-Lab/PathoCell --repo-type dataset --include 'pathocell_hdf/*' --local-dir FOLDER\n"
    "and pass data_dir=FOLDER."
)


@checked
def pathocell(
    *,
    data_dir: str | Path | None = None,
    images: str | Sequence[str] | None = None,
    level: Level = "coarse",
    mpp: float = 0.5,
    tile_px: int = TILE_PX,
) -> CellImages:
    """Read PathoCell: H&E images of colorectal cancer with cell types that were measured in the same cells by CODEX.

    Elements and tables are as in :func:`lizard`; the classes are those of the data set's own class list.

    Parameters
    ----------
    data_dir
        Folder with ``pathocell_hdf`` (or its content): ``<image>.hdf``, ``CT_mapping.txt`` and ``CT_coarse_mapping.txt``. The data
        set is gated, so nothing is downloaded; ``None`` raises an error that says how to get the files.
    images
        Names such as ``"reg001_A"``; ``None`` takes all.
    level
        "coarse": the classes that the published benchmark scores; "fine": all classes.
    mpp
        Microns per pixel.
    tile_px
        Edge of the tiles.

    Returns
    -------
    Mapping from name to SpatialData, read when asked for; see :func:`lizard`.

    Raises
    ------
    FileNotFoundError
        The folder, the images or the class list are missing.
    KeyError
        A file lacks an array.
    ValueError
        Unknown image or level, or masks that do not fit the image.

    Notes
    -----
    Established from public readers: ``img`` (3, h, w), ``gt_inst``, ``gt_ct`` and ``gt_ct_coarse`` (1, h, w) of a file, and pairs of code
    and quoted name in the class lists. Public readers disagree about the codes of the coarse classes, so they are always taken
    from the list that comes with the files. Assumed: 0.5 microns per pixel, which the published benchmark states for all its
    images; and the range of ``img`` (bytes as they are, 16 bits divided by 256, values up to 1 multiplied by 255).

    A cell has the class of its first pixel and belongs to the tile that its centroid is in; cells in the last occupied row and
    column of the grid are left out, as in the published benchmark. The multiplexed image ``ifl`` is not read.

    References
    ----------
    Schürch et al., Cell 182, 1341 (2020), for the cell types. Files: https://huggingface.co/datasets/Kainmueller-Lab/PathoCell.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> images = sw.datasets.pathocell(data_dir="PathoCell")  # doctest: +SKIP
    """
    from spatialwhisperer.datasets._nuclei.hdf import hdf_files, read_classes, read_hdf

    if level not in get_args(Level):
        raise ValueError(f"level must be one of {listing(get_args(Level))}, not {level!r}.")
    if data_dir is None:
        raise FileNotFoundError(HOW)
    root = folder_of(data_dir)
    files = hdf_files(root / "pathocell_hdf", root)
    if not files:
        raise FileNotFoundError(
            f"{root} holds no pathocell_hdf/*.hdf; it holds {listing(sorted(p.name for p in root.iterdir()))}. {HOW}"
        )
    names = choose(images, list(files), str(root))
    list_name, key = _FILES[level]
    coded = read_classes(files[names[0]].parent / list_name)
    classes = tuple(coded.get(code, f"(code {code})") for code in range(max(coded) + 1))
    layout = Layout("pathocell", PAGE, "gated, see the source", classes, mpp, tile_px, always_drop=True)
    return CellImages(names, lambda name: assemble(name, read_hdf(files[name], [key]), layout), classes)
