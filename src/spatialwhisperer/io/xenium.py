"""The alignment of an H&E image with a Xenium section, as Xenium Explorer exports it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._access.contract import check_affine
from spatialwhisperer._access.elements.pyramid import set_systems
from spatialwhisperer._access.sections.choice import the_image
from spatialwhisperer._access.sections.regions import image_scales
from spatialwhisperer._access.sections.scale import differ, unit_scale
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_text, positive
from spatialwhisperer._messages import inform

if TYPE_CHECKING:
    from spatialdata import SpatialData

PIXEL_UM = 0.2125
_KEYPOINTS = "fixedX"


def read_xenium_alignment(path: str | os.PathLike[str]) -> np.ndarray:
    r"""Read the alignment matrix that Xenium Explorer exports for an image (``matrix.csv``, ``*_he_imagealignment.csv``).

    Parameters
    ----------
    path
        The file: three rows of three numbers, separated by commas.

    Returns
    -------
    Affine map, float64, shape (3, 3), from x and y in pixels of the H&E image to x and y in pixels of the Xenium image (of 0.2125 µm).
    :func:`align_xenium` applies it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it does not hold such a matrix.

    Examples
    --------
    >>> import tempfile
    >>> import spatialwhisperer as sw
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("0,1.29,-1108\n-1.29,0,26722\n0,0,1\n")
    ...     file.flush()
    ...     sw.io.read_xenium_alignment(file.name)[0].tolist()
    [0.0, 1.29, -1108.0]
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be the path of a csv file, not {type(path).__name__}.")
    place = Path(path).expanduser()
    if not place.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        text = place.read_text(encoding="utf-8-sig")
        rows = [[float(v) for v in line.split(",")] for line in text.splitlines() if line.strip()]
        matrix = np.array(rows, float)
    except ValueError as error:
        remedy = (
            "Export the matrix, not the keypoints"
            if _KEYPOINTS in place.read_text(errors="replace")
            else "Export it again"
        )
        raise ValueError(
            f"{place} does not hold three rows of three numbers: {error}. {remedy}: Xenium Explorer, Image alignment, Download."
        ) from error
    return _checked(matrix, place.name)


@checked
def align_xenium(
    data: SpatialData,
    alignment: str | os.PathLike[str] | np.ndarray,
    *,
    image_key: str | None = None,
    pixel_um: float = PIXEL_UM,
    coordinate_system: str = "global",
) -> None:
    """Register an H&E image to the coordinates of a Xenium section, by the matrix of Xenium Explorer.

    Afterwards the image can be put into the object of the section, where its cells lie on it:
    ``xenium.images["he"] = slide["he"]``.

    Parameters
    ----------
    data
        A SpatialData with the H&E image, as :func:`read_slide` reads it. It is changed in place.
    alignment
        The file, or the matrix of :func:`read_xenium_alignment`.
    image_key
        The image; ``None`` takes the only one.
    pixel_um
        Microns per pixel of the Xenium image (``pixel_size`` in ``experiment.xenium``).
    coordinate_system
        Coordinate system of the Xenium pixels; ``"global"`` is that of spatialdata-io.

    Returns
    -------
    ``None``. The image is registered to

    ``coordinate_system``
        Pixels of the Xenium image.
    ``"microns"``
        The same in microns, in which Xenium states cells and transcripts.

    Its other coordinate systems are removed.

    Raises
    ------
    KeyError
        If the image is not there, or ambiguous.
    TypeError
        If ``data`` is no SpatialData.
    ValueError
        If there is no such matrix, it cannot be inverted, or the scale that follows from it differs by more than 5 % from that of the
        image.

    Examples
    --------
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=20, n_reference_cells=20, random_state=0).sections["P1"]
    >>> slide = section.subset(["P1_image"])
    >>> sw.io.align_xenium(slide, np.array([[0, 2.353, 0], [-2.353, 0, 4000], [0, 0, 1]]))
    >>> sorted(slide.coordinate_systems)
    ['global', 'microns']
    """
    if not is_spatialdata(data):
        raise TypeError("data must be a SpatialData with the H&E image. Read it: sw.io.read_slide(path).")
    pixel = positive("pixel_um", pixel_um)
    check_text("coordinate_system", coordinate_system)
    image = the_image(data, image_key)
    matrix = (
        _checked(np.asarray(alignment, float), "alignment")
        if isinstance(alignment, np.ndarray)
        else read_xenium_alignment(alignment)
    )
    mpp = unit_scale(matrix) * pixel
    for scale in image_scales(data, image):
        if differ(mpp, scale.mpp):
            inverse = pixel / unit_scale(matrix)
            hint = (
                ""
                if differ(inverse, scale.mpp)
                else " The inverse fits: pass np.linalg.inv(sw.io.read_xenium_alignment(path))."
            )
            raise ValueError(
                f"By the alignment, image {image!r} has {mpp:.4g} µm per pixel; {scale.rule} states {scale.mpp:.4g}. The matrix belongs to "
                f"another image, or to one of another resolution.{hint}"
            )
    micron = np.diag([pixel, pixel, 1.0]) @ matrix
    set_systems(data, image, {coordinate_system: matrix, "microns": micron})
    inform(f"Image {image!r} was aligned with the Xenium section: {mpp:.4g} µm per pixel.")


def _checked(matrix: Any, name: str) -> np.ndarray:
    """An affine map of the plane."""
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or not np.allclose(matrix[2], [0, 0, 1], atol=1e-9):
        raise ValueError(
            f"{name} must be a matrix of shape (3, 3) whose last row is 0, 0, 1; found shape {matrix.shape}."
        )
    check_affine(name, "the pixels of Xenium", matrix)
    return matrix
