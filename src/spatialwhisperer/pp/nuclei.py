"""Nuclei on the H&E image of a slide that has no cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Unpack

import numpy as np

from spatialwhisperer._access.elements.cells import (
    add_cells,
    cell_shapes,
    cell_table,
    cell_table_name,
    check_cell_names,
)
from spatialwhisperer._access.records import Where
from spatialwhisperer._access.sections.section import missing_mpp, say_scales
from spatialwhisperer._access.slide_options import SlideOptions, check_options, check_values
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._access.tiles.intensity import check_intensity
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_flag, check_key_added, one_of, positive
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import inform, listing
from spatialwhisperer._provenance import record
from spatialwhisperer._storage.schema import Stored
from spatialwhisperer.pp.grid import image_frames, image_names

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

    from spatialwhisperer._access.sections.section import Section
    from spatialwhisperer.pp._nuclei.finding import Finder
    from spatialwhisperer.pp._nuclei.outlines import Nuclei

NucleiMethod = Literal["watershed", "instanseg"]
_PLACES = np.array([1, 3, 5]) / 6
_REFUSED = ("table_key", "library_key", "spot_pitch_um")


@dataclass(frozen=True)
class NucleiRecord(Stored):
    """How nuclei were found: the arguments, and scale and image of each region."""

    method: NucleiMethod
    min_area_um2: float
    max_area_um2: float
    where: Where


@shared
@checked
def nuclei(
    data: AnnData | SpatialData,
    *,
    method: NucleiMethod = "watershed",
    min_area_um2: float = 16.0,
    max_area_um2: float = 400.0,
    polygons: bool = True,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    key_added: str = "nuclei",
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
) -> GeoDataFrame | None:
    """Find the nuclei on the H&E image of a slide that has no cells, so that each can be labelled.

    ``"watershed"`` needs no weights. It floods the image from its darkest nuclei on, and gives each nucleus the level at which its
    outline is sharpest and its shape is most like an ellipse; a watershed divides nuclei that touch. The image is read part by part,
    so that memory does not grow with it. The nuclei do not depend on these parts, on the chunks of the image, or on the number of
    threads.

    Parameters
    ----------
    %(data)s
    method
        ``"watershed"``, or ``"instanseg"`` for a network that is trained on nuclei in brightfield images (Goldsborough et al. 2024; its
        weights are downloaded once). It needs ``pip install 'spatialwhisperer[nuclei]'``.
    min_area_um2, max_area_um2
        Smallest and largest area of a nucleus in square microns.
    polygons
        Write outlines. Otherwise circles with the area of each nucleus, which take less memory.
    weights
        For ``"instanseg"``: the TorchScript file of a model, instead of the download. Such a file can hold code; open those you trust.
    %(device)s
        For ``"instanseg"``.
    key_added
        Name of the shapes. The table is named ``<key_added>_table``.
    %(inplace)s
    **slide
        ``mpp`` (microns per full-resolution pixel, one for all or by image; where a SpatialData does not tell the full resolution of its
        image, per pixel of the image), ``image_key`` (which image; all by default) and ``coordinate_system``. What is left out is taken
        from the object.

    Returns
    -------
    ``None``, or with ``inplace=False`` a GeoDataFrame of the nuclei in full-resolution pixels with the columns ``geometry``, ``image``
    and those below. In place it writes to a SpatialData:

    ``shapes[key_added]``
        The nuclei, in pixels of the full resolution and registered like their image; ``shapes["<image>_<key_added>"]`` where there are
        several images.
    ``tables["<key_added>_table"]``
        One row for each nucleus, which annotates its shape, without genes. ``.obs`` holds ``area_um2``, ``eccentricity`` (0 for a circle),
        ``solidity`` (area over that of the convex hull) and ``haematoxylin`` (mean optical density of the stain by colour
        deconvolution); ``.obsm["spatial"]`` the centroids in pixels; ``.uns["spatialwhisperer"][key_added]`` the arguments and the scale.

    Raises
    ------
    ImportError
        If the package of a method is not installed.
    KeyError
        If there is no image, or none of a name.
    TypeError
        If there is no argument of a name.
    ValueError
        If the scale is not known or coarser than 0.75 µm per pixel, the image holds nothing or 12-bit values, a name is taken, an
        argument does not apply, or there is no nucleus. Nothing is written then, nor where the call is interrupted.

    See Also
    --------
    spatialwhisperer.tl.zero_shot_annotate : Label each nucleus, with ``table_key="nuclei_table"``.

    Notes
    -----
    The measure is haematoxylin relative to the slide: the optical density in red, which haematoxylin absorbs and eosin hardly does, in
    units of what 1 % of the tissue exceeds. Nuclei are at most 40 µm long. Images finer than 0.5 µm per pixel are averaged to about that.
    ``python -m spatialwhisperer.protocols nuclei`` measures the agreement with nuclei that people drew.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> slide = sw.datasets.simulate_sections(1, 20, n_genes=20, n_reference_cells=20, random_state=0).sections["P1"]
    >>> sw.pp.nuclei(slide)
    >>> list(slide["nuclei_table"].obs.columns)
    ['region', 'instance_id', 'area_um2', 'eccentricity', 'solidity', 'haematoxylin']
    >>> len(slide["nuclei"]) == slide["nuclei_table"].n_obs
    True
    """
    one_of("method", method, NucleiMethod)
    check_key_added(key_added)
    check_flag("polygons", polygons)
    check_flag("inplace", inplace)
    _check_areas(min_area_um2, max_area_um2)
    _check_slide(slide)
    if weights is not None and method == "watershed":
        raise ValueError("weights belongs to method='instanseg'; method='watershed' has none. Leave it out.")
    if inplace and not is_spatialdata(data):
        raise ValueError(
            "The rows of an AnnData are its spots, so nuclei cannot be added to it. Take them as a GeoDataFrame: "
            "sw.pp.nuclei(adata, mpp=…, inplace=False)."
        )
    names = image_names(data, slide.get("image_key"))
    if inplace:
        check_cell_names(data, names, key_added)
    frames = image_frames(data, names, slide.get("mpp"), slide.get("coordinate_system"))
    scales = _scales(frames)
    finder = _finder(method, min_area_um2, max_area_um2, weights, device)
    found = {frame.name: _frame_of(_found(frame, finder), polygons) for frame in frames}
    found = {name: frame for name, frame in found.items() if len(frame)}
    if not found:
        raise ValueError(
            f"There is no nucleus of {min_area_um2:g} to {max_area_um2:g} µm² on {listing(names)}, at "
            f"{listing(f'{scales[name]:.3g}' for name in names)} µm per pixel. Check mpp=…, and that this is an H&E image."
        )
    if not inplace:
        return _together(found)
    shapes = {cell_shapes(name, found, key_added): name for name in found}
    table = cell_table({shape: found[name] for shape, name in shapes.items()})
    rules = {frame.name: frame.scale.rule for frame in frames if frame.scale is not None}
    where = Where(
        mpp={shape: scales[name] for shape, name in shapes.items()},
        rule={shape: rules[name] for shape, name in shapes.items()},
        image=shapes,
        coordinate_system=slide.get("coordinate_system"),
    )
    record(table, key_added, NucleiRecord(method, float(min_area_um2), float(max_area_um2), where))
    bare = {name: frame[[c for c in frame.columns if c in ("geometry", "radius")]] for name, frame in found.items()}
    pixels_um = {frame.name: frame.pixel_um(scales[frame.name]) for frame in frames}
    add_cells(data, bare, table, key_added, pixels_um=pixels_um)
    inform(
        f"Found {table.n_obs} nuclei. They are the rows of sdata[{cell_table_name(key_added)!r}]: pass "
        f"table_key={cell_table_name(key_added)!r} to label them."
    )
    return None


def _check_areas(least: float, most: float) -> None:
    positive("min_area_um2", least)
    if positive("max_area_um2", most) <= least:
        raise ValueError(f"max_area_um2 must be above min_area_um2; found {most:g} and {least:g}.")


def _check_slide(slide: SlideOptions) -> None:
    check_options(slide)
    check_values(slide)
    given = [name for name in _REFUSED if slide.get(name) is not None]
    if given:
        raise ValueError(
            f"{listing(given)} is about the rows of a table, and nuclei are found on an image alone. Leave it out; mpp=… states the "
            "scale."
        )


def _scales(frames: list[Section]) -> dict[str, float]:
    """Microns per pixel of each image, all of them fine enough."""
    from spatialwhisperer.pp._nuclei.canvas import Canvas

    say_scales(frames)
    out = {}
    for frame in frames:
        if frame.scale is None or frame.image is None:
            raise ValueError(missing_mpp(frame))
        Canvas(frame.image, frame.scale.mpp, frame.scale.stretch)
        width, height = frame.image.size_px
        # a large image is looked at around places, which a slide without rows has not
        x, y = np.meshgrid(width * _PLACES, height * _PLACES)
        check_intensity(replace(frame, xy_px=np.column_stack([x.ravel(), y.ravel()])))
        out[frame.name] = frame.scale.mpp
    return out


def _finder(
    method: NucleiMethod, least: float, most: float, weights: str | os.PathLike[str] | None, device: str | None
) -> Finder:
    if method == "watershed":
        from spatialwhisperer.pp._nuclei.finding import Flooding

        return Flooding(float(least), float(most))
    from spatialwhisperer.pp._nuclei.instanseg import open_instanseg

    return open_instanseg(float(least), float(most), weights=weights, device=device)


def _found(frame: Section, finder: Finder) -> Nuclei:
    from spatialwhisperer.pp._nuclei.canvas import Canvas
    from spatialwhisperer.pp._nuclei.finding import find_nuclei

    if frame.image is None or frame.scale is None:
        raise ValueError(missing_mpp(frame))
    return find_nuclei(Canvas(frame.image, frame.scale.mpp, frame.scale.stretch), finder)


def _frame_of(found: Nuclei, polygons: bool) -> GeoDataFrame:
    """Shapes and measures; circles have a radius in pixels."""
    import geopandas as gpd
    import shapely

    if polygons:
        return gpd.GeoDataFrame(found.measures, geometry=found.outlines)
    radius = np.sqrt(shapely.area(found.outlines) / np.pi)
    return gpd.GeoDataFrame({**found.measures, "radius": radius}, geometry=shapely.points(found.centres))


def _together(found: Mapping[str, GeoDataFrame]) -> GeoDataFrame:
    import pandas as pd
    from geopandas import GeoDataFrame

    frames = [frame.assign(image=name) for name, frame in found.items()]
    return GeoDataFrame(pd.concat(frames, ignore_index=True))
