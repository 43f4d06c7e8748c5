"""Regions and cells of QuPath in, labels and scores out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import check_label_column
from spatialwhisperer._access.elements.colours import classes_of, colours_of, lost_classes
from spatialwhisperer._access.elements.outlines import Outlines, shapes_on_image
from spatialwhisperer._access.images import find_image
from spatialwhisperer._access.sections.choice import the_image
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.slide_options import SlideOptions, check_options, check_values
from spatialwhisperer._access.table.groups import group_name
from spatialwhisperer._access.tables import check_free, is_spatialdata, obs_of
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_flag, check_key_added, check_text, check_texts, one_of
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import inform, listing, warn
from spatialwhisperer._storage.permissions import check_writable
from spatialwhisperer.io._qupath.pixels import Pixels
from spatialwhisperer.io._qupath.regions import areas_of, check_slide, labels_in
from spatialwhisperer.io._qupath.writing import Content, write_features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

    from spatialwhisperer._access.images import RasterImage
    from spatialwhisperer._access.sections.section import Section

ObjectType = Literal["tile", "detection", "cell", "annotation"]
_KEY = "qupath"
_FILES = (".geojson", ".json", ".geojson.gz", ".json.gz")


@shared
@checked
def read_qupath(
    path: str | os.PathLike[str],
    data: AnnData | SpatialData,
    *,
    section: str | None = None,
    key_added: str = _KEY,
    pixel_system: str | None = None,
    inplace: bool = True,
    **slide: Unpack[SlideOptions],
) -> GeoDataFrame | None:
    """Read regions and cells that were drawn or detected in QuPath, and label the rows whose centre lies in a region.

    The labels serve as ground truth (:func:`spatialwhisperer.tl.evaluate_annotation`), as a few examples
    (``zero_shot_annotate(examples="qupath")``) or to choose rows. Cells become shapes, on which
    :func:`spatialwhisperer.pp.tiles` puts tiles with ``shapes_key="qupath_cells"``.

    Parameters
    ----------
    path
        A GeoJSON file as QuPath exports it, plain or compressed (``.gz``). Its coordinates are pixels of the full resolution. An outline
        that crosses itself keeps all that it encloses.
    %(data)s
    section
        Section to which the file belongs; ``None`` takes the only one.
    key_added
        Column of ``.obs`` and name of the shapes.
    pixel_system
        Coordinate system of a SpatialData whose unit is a pixel of the slide that QuPath opened. ``None`` takes the pixels of the image; of
        a smaller copy that spatialdata-io read for Visium, those of the full resolution. A remark says which.
    %(inplace)s
    %(slide)s

    Returns
    -------
    ``None``, or with ``inplace=False`` a GeoDataFrame of all objects in pixels of the image, with the columns ``geometry``, ``object_type``,
    ``classification``, ``name`` and ``color``. In place it writes:

    ``.obs[key_added]`` : :class:`pandas.Series` (dtype ``category``)
        Class of the smallest region that holds the centre of the row (of equally large ones, the class whose name comes first); NaN
        where there is none, and in other sections. Not written where a SpatialData has no table. Their colours are written to ``.uns['<key_added>_colors']``.
    ``shapes[key_added]``
        The regions of a SpatialData (annotations of QuPath), with the columns named above.
    ``shapes['<key_added>_cells']``
        Cells, detections and tiles of QuPath.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If there is no image or section of a name.
    ValueError
        If this is not GeoJSON of QuPath, holds no area, belongs to another slide (most of its objects lie outside the image), a name
        is taken, the section is ambiguous, or the image is not in ``pixel_system``. Nothing is written then.

    Examples
    --------
    >>> import json, tempfile
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=20, n_reference_cells=20, random_state=0).sections["P1"]
    >>> corners = [[0, 0], [1000, 0], [1000, 800], [0, 800], [0, 0]]
    >>> tumour = {
    ...     "type": "Feature",
    ...     "geometry": {"type": "Polygon", "coordinates": [corners]},
    ...     "properties": {"objectType": "annotation", "classification": {"name": "Tumour", "color": [200, 0, 0]}},
    ... }
    >>> with tempfile.NamedTemporaryFile("w", suffix=".geojson") as file:
    ...     _ = file.write(json.dumps({"type": "FeatureCollection", "features": [tumour]}))
    ...     file.flush()
    ...     sw.io.read_qupath(file.name, section)
    >>> int(section["table"].obs["qupath"].notna().sum()) > 0
    True
    """
    check_key_added(key_added)
    place = _existing(path)
    check_options(slide)
    check_values(slide)
    # what names a table or a section asks for one
    tables = not is_spatialdata(data) or bool(data.tables) or section is not None or slide.get("table_key") is not None
    opened = Slide.open(data, **slide) if tables else None
    image: RasterImage | None
    if opened is None:
        key = slide.get("image_key")
        image = find_image(data, the_image(data, key if isinstance(key, str) else None))
        one, size = None, image.size_px
    else:
        if inplace:
            opened.check_column(key_added)
        one = _section(opened, section)
        image, size = one.image, _extent(one)
    pixels = Pixels.of(data, image, pixel_system)
    objects = areas_of(place, pixels)
    check_slide(objects, size, place, pixels)
    if not inplace:
        return objects
    regions = objects[objects["object_type"] == "annotation"].reset_index(drop=True)
    cells = objects[objects["object_type"] != "annotation"].reset_index(drop=True)
    result = None if opened is None or one is None else labels_in(opened, one, regions, key_added, place)
    added = _add_shapes(data, image, {key_added: regions, f"{key_added}_cells": cells})
    try:
        if opened is not None and result is not None:
            opened.put(result)
    except BaseException:
        for name in added:
            del data.shapes[name]  # type: ignore[union-attr]
        raise
    n_labelled = 0 if result is None else int((result.obs[key_added].codes >= 0).sum())
    inform(
        f"Read {len(regions)} regions and {len(cells)} cells of {place.name}, whose coordinates are {pixels.words}; {n_labelled} rows lie in "
        "a region of a class."
    )
    return None


@shared
@checked
def write_qupath(
    data: AnnData | SpatialData,
    path: str | os.PathLike[str],
    *,
    key: str = _keys.LABEL,
    measurements: str | Sequence[str] = (),
    section: str | None = None,
    pixel_system: str | None = None,
    object_type: ObjectType | None = None,
    overwrite: bool = False,
    **slide: Unpack[SlideOptions],
) -> None:
    """Write labels and scores of the rows as a GeoJSON file that QuPath opens (drag it onto the slide).

    Each row is one object: the square of a grid, the outline of a cell or the circle of a spot, in pixels of the full resolution
    (rounded to a hundredth), with its label as class, in the colour that pictures of the package use. The scores of all labels are its
    measurements, by which QuPath colours maps and filters.

    Parameters
    ----------
    %(data)s
    path
        The file: ``.geojson`` or ``.json``, compressed where ``.gz`` follows.
    key
        Column of ``.obs`` with labels.
    measurements
        More columns of ``.obs`` with numbers, which are written as they are.
    section
        Which section; ``None`` takes the only one. A file of QuPath belongs to one slide.
    pixel_system
        Coordinate system of a SpatialData whose unit is a pixel of the slide that QuPath opens. ``None`` takes the pixels of the image; of a
        smaller copy that spatialdata-io read for Visium, those of the full resolution. A remark says which.
    object_type
        How QuPath treats the objects; ``None`` takes ``"tile"`` for a grid and ``"detection"`` for spots and cells.
    overwrite
        Replace a file that exists.
    %(slide)s

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is off.
    KeyError
        If a column or section does not exist, or there is no image.
    PermissionError
        If the file or its folder is read-only.
    ValueError
        If the name of the file has another ending, the section is ambiguous, ``key`` holds measured numbers, a column of ``measurements``
        holds no numbers, a coordinate is NaN, or the image is not in ``pixel_system``.

    Notes
    -----
    The file is written beside its place and moved there when it is finished. Memory does not depend on the number of rows. Rows without
    a label are written without a class.

    Examples
    --------
    >>> import json, tempfile
    >>> import spatialwhisperer as sw
    >>> section = sw.datasets.simulate_sections(1, 40, n_genes=20, n_reference_cells=20, random_state=0).sections["P1"]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sw.io.write_qupath(section, f"{folder}/cells.geojson", key="cell_type")
    ...     features = json.load(open(f"{folder}/cells.geojson"))["features"]
    >>> len(features), features[0]["properties"]["objectType"]
    (40, 'detection')
    """
    place = Path(path).expanduser()
    if not place.name.endswith(_FILES):
        raise ValueError(f"path must end with {' or '.join(_FILES)}, which QuPath opens; found {place.name!r}.")
    check_flag("overwrite", overwrite)
    check_text("key", key)
    check_texts("measurements", measurements)
    if object_type is not None:
        one_of("object_type", object_type, ObjectType)
    if place.exists() and not overwrite:
        raise FileExistsError(f"{place} exists. Pass overwrite=True to replace it.")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(place.parent)!r}. Make it first.")
    check_writable(place.resolve().parent, place, remedy="Choose another path.")
    write_objects(
        data,
        place,
        key=key,
        measurements=measurements,
        section=section,
        pixel_system=pixel_system,
        object_type=object_type,
        **slide,
    )


def write_objects(
    data: AnnData | SpatialData,
    place: Path,
    *,
    key: str,
    measurements: str | Sequence[str] = (),
    section: str | None = None,
    pixel_system: str | None = None,
    object_type: ObjectType | None = None,
    stated: Mapping[str, Any] | None = None,
    **slide: Unpack[SlideOptions],
) -> None:
    """Write a file as `write_qupath` does, with ``stated`` as further members; a file that is there is replaced."""
    opened = Slide.open(data, **slide)
    one = _section(opened, section)
    pixels = Pixels.of(data, one.image, pixel_system)
    more = [measurements] if isinstance(measurements, str) else list(measurements)
    write_features(_content(opened, one, pixels, key, more, object_type), place, stated=stated or {})
    inform(f"Wrote {len(one.rows)} objects to {place.name}. Their coordinates are {pixels.words}.")


# ------------------------------------------------------------------------------------------------- reading


def _existing(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be the path of a GeoJSON file, not {type(path).__name__}.")
    place = Path(path).expanduser()
    if not place.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    return place


def _section(slide: Slide, name: str | None) -> Section:
    """The section that is meant, with finite centres."""
    sections = {one.name: one for one in slide.frames}
    if name is not None:
        if name not in sections:
            raise KeyError(f"There is no section {name!r} (found: {listing(sections)}).")
        found = sections[name]
    elif len(sections) == 1:
        found = next(iter(sections.values()))
    else:
        raise ValueError(
            f"There are {len(sections)} sections ({listing(sections)}), and a file of QuPath belongs to one. Pass section=…."
        )
    if slide.is_spatialdata and found.image is None:
        raise KeyError(
            f"Section {found.name!r} has no H&E image, to whose pixels the coordinates of QuPath refer. Read it with "
            "sw.io.read_slide, and add it to the object."
        )
    if not np.isfinite(found.xy_px).all():
        raise ValueError(f"Rows of section {found.name!r} have NaN coordinates. Drop them first.")
    return found


def _extent(section: Section) -> tuple[float, float]:
    """Size of the image, else of the area of the rows."""
    if section.image is not None:
        return section.image.size_px
    width, height = section.xy_px.max(axis=0) * 1.1
    return float(width), float(height)


def _add_shapes(data: AnnData | SpatialData, image: RasterImage | None, frames: dict[str, GeoDataFrame]) -> list[str]:
    """Add the frames that hold something to a SpatialData: all of them, or none."""
    if not is_spatialdata(data) or image is None:
        return []
    frames = {name: frame for name, frame in frames.items() if len(frame)}
    check_free(data, frames)
    shapes = {name: shapes_on_image(data, image.name, frame) for name, frame in frames.items()}
    for name, element in shapes.items():
        data.shapes[name] = element
    return list(shapes)


# ------------------------------------------------------------------------------------------------- writing


def _content(
    slide: Slide,
    section: Section,
    pixels: Pixels,
    key: str,
    measurements: list[str],
    object_type: ObjectType | None,
) -> Content:
    table, obs = slide.table, obs_of(slide.table)
    for name in (key, *measurements):
        if name not in obs:
            raise KeyError(
                f"{name!r} not in .obs (found: {listing(obs.columns)}). sw.tl.zero_shot_annotate(data) writes {_keys.LABEL!r}."
            )
    check_label_column(
        obs[key], f".obs[{key!r}]", f"Pass it as measurements=[{key!r}], by which QuPath colours the objects."
    )
    labels = obs[key].astype("category").cat
    classes = [group_name(c) for c in labels.categories]
    kind = object_type or ("tile" if slide.tiles is not None and slide.tiles.at == "grid" else "detection")
    return Content(
        outlines=Outlines(slide, section),
        pixels=pixels,
        names=np.asarray(table.obs_names)[section.rows],
        codes=labels.codes.to_numpy()[section.rows],
        classes=classes,
        colours=colours_of(table, key, classes),
        measurements=_measurements(slide, section, key, measurements),
        kind=kind,
    )


def _measurements(slide: Slide, section: Section, key: str, columns: list[str]) -> dict[str, np.ndarray]:
    """The scores of all labels, confidence and margin where they exist, and the columns that are named."""
    table, obs, rows = slide.table, obs_of(slide.table), section.rows
    out: dict[str, np.ndarray] = {}
    classes, scores = classes_of(table, key), table.obsm.get(_keys.scores(key))
    if lost := lost_classes(table, key):
        warn(f"The file gets no scores of the labels. {lost}")
    if scores is not None and np.shape(scores) == (slide.n_rows, len(classes)):
        out |= {name: np.asarray(scores)[rows, i] for i, name in enumerate(classes)}
    own = [name for name in (_keys.confidence(key), _keys.margin(key)) if name in obs and name not in columns]
    for name in (*own, *columns):
        out[name] = _numbers(obs[name])[rows]
    return out


def _numbers(column: pd.Series) -> np.ndarray:
    """The numbers of a column, whole ones as such."""
    kind = column.dtype
    if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_complex_dtype(kind):
        raise ValueError(f"measurements must be columns of numbers; .obs[{column.name!r}] is {kind}.")
    if not isinstance(kind, np.dtype):  # one of pandas, with NA
        return column.to_numpy(dtype=float, na_value=np.nan)
    values = column.to_numpy()
    return values.astype(np.uint8) if kind.kind == "b" else values
