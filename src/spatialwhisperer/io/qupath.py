"""Regions and cells of QuPath in, labels and scores out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.colours import classes_of, colours_of
from spatialwhisperer._access.elements.outlines import Outlines, shapes_on_image
from spatialwhisperer._access.images import find_image
from spatialwhisperer._access.result import Result
from spatialwhisperer._access.sections.choice import the_image
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.slide_options import SlideOptions, check_options, check_values
from spatialwhisperer._access.table.groups import group_name
from spatialwhisperer._access.tables import is_spatialdata, obs_of
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._checks.values import check_flag, check_key_added, check_text, check_texts, one_of
from spatialwhisperer._docs import shared
from spatialwhisperer._messages import inform, listing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

    from spatialwhisperer._access.sections.section import Section
    from spatialwhisperer.io._qupath.writing import Content

ObjectType = Literal["tile", "detection", "cell", "annotation"]
_KEY = "qupath"
_FILES = (".geojson", ".json", ".geojson.gz", ".json.gz")
_AREAS = ("Polygon", "MultiPolygon")
_LEAST_ON_IMAGE = 0.5


@shared
@checked
def read_qupath(
    path: str | os.PathLike[str],
    data: AnnData | SpatialData,
    *,
    section: str | None = None,
    key_added: str = _KEY,
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
        A GeoJSON file as QuPath exports it, plain or compressed (``.gz``). Its coordinates are pixels of the full resolution.
    %(data)s
    section
        Section to which the file belongs; ``None`` takes the only one.
    key_added
        Column of ``.obs`` and name of the shapes.
    %(inplace)s
    %(slide)s

    Returns
    -------
    ``None``, or with ``inplace=False`` a GeoDataFrame of all objects in pixels, with the columns ``geometry``, ``object_type``,
    ``classification``, ``name`` and ``color``. In place it writes:

    ``.obs[key_added]`` : :class:`pandas.Series` (dtype ``category``)
        Class of the smallest region that holds the centre of the row; NaN where there is none, and in other sections. Not written
        where a SpatialData has no table. Their colours are written to ``.uns['<key_added>_colors']``.
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
        is taken, or the section is ambiguous. Nothing is written then.

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
    if opened is None:
        key = slide.get("image_key")
        image = the_image(data, key if isinstance(key, str) else None)
        one, size = None, find_image(data, image).size_px
    else:
        if inplace:
            opened.check_column(key_added)
        one = _section(opened, section)
        image = "" if one.image is None else one.image.name
        size = _extent(one)
    objects = _objects(place)
    _check_slide(objects, size, place)
    if not inplace:
        return objects
    regions = objects[objects["object_type"] == "annotation"].reset_index(drop=True)
    cells = objects[objects["object_type"] != "annotation"].reset_index(drop=True)
    result = None if opened is None or one is None else _labels(opened, one, regions, key_added, place)
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
        f"Read {len(regions)} regions and {len(cells)} cells of {place.name}; {n_labelled} rows lie in a region of a class."
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
    object_type: ObjectType | None = None,
    overwrite: bool = False,
    **slide: Unpack[SlideOptions],
) -> None:
    """Write labels and scores of the rows as a GeoJSON file that QuPath opens (drag it onto the slide).

    Each row is one object: the square of a grid, the outline of a cell or the circle of a spot, in pixels of the full resolution, with
    its label as class, in the colour that pictures of the package use. The scores of all labels are its measurements, by which QuPath
    colours maps and filters.

    Parameters
    ----------
    %(data)s
    path
        The file: ``.geojson`` or ``.json``, compressed where ``.gz`` follows.
    key
        Column of ``.obs`` with labels.
    measurements
        More columns of ``.obs`` with numbers.
    section
        Which section; ``None`` takes the only one. A file of QuPath belongs to one slide.
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
    ValueError
        If the name of the file has another ending, the section is ambiguous, a column holds no numbers, or a coordinate is NaN.

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
    place = Path(path)
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
    from spatialwhisperer.io._qupath.writing import write_features

    opened = Slide.open(data, **slide)
    more = [measurements] if isinstance(measurements, str) else list(measurements)
    write_features(_content(opened, _section(opened, section), key, more, object_type), place)


# ------------------------------------------------------------------------------------------------- reading


def _existing(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be the path of a GeoJSON file, not {type(path).__name__}.")
    place = Path(path)
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


def _objects(place: Path) -> GeoDataFrame:
    """The objects of a file that have an area."""
    import geopandas as gpd
    import shapely

    from spatialwhisperer.io._qupath.reading import read_objects

    found = list(read_objects(place))
    shapes = np.array([one.geometry for one in found], dtype=object)
    # a hand-drawn outline may cross itself
    crossed = ~shapely.is_valid(shapes) if len(shapes) else np.zeros(0, bool)
    shapes[crossed] = shapely.buffer(shapes[crossed], 0)
    areas = np.array([g.geom_type in _AREAS and not g.is_empty for g in shapes], dtype=bool)
    if not areas.any():
        raise ValueError(f"{place} holds no area: {len(found)} object(s), all of them points, lines or empty.")
    if not areas.all():
        inform(f"{int((~areas).sum())} objects of {place.name} are points, lines or empty, and were left out.")
    kept = [one for one, keep in zip(found, areas, strict=True) if keep]
    columns = {
        "object_type": [one.kind for one in kept],
        "classification": [one.label for one in kept],
        "name": [one.name for one in kept],
        "color": [one.colour for one in kept],
    }
    frame = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})
    return gpd.GeoDataFrame(frame, geometry=shapes[areas])


def _check_slide(objects: GeoDataFrame, size: tuple[float, float], place: Path) -> None:
    """Refuse the objects of another slide."""
    centres = objects.geometry.centroid
    on = (centres.x.to_numpy() >= 0) & (centres.x.to_numpy() <= size[0])
    on &= (centres.y.to_numpy() >= 0) & (centres.y.to_numpy() <= size[1])
    if on.mean() < _LEAST_ON_IMAGE:
        left, top, right, bottom = objects.total_bounds
        raise ValueError(
            f"{place.name} belongs to another slide: {int((~on).sum())} of {len(on)} objects lie outside the image of {size[0]:.0f} x "
            f"{size[1]:.0f} pixels (they span x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}). Export the objects of this "
            "slide, or read the image from which they were drawn: sw.io.read_slide(path)."
        )


def _labels(slide: Slide, section: Section, regions: GeoDataFrame, key: str, place: Path) -> Result:
    """Class of the smallest region around each row."""
    import shapely

    named = regions[regions["classification"].notna()]
    classes = list(dict.fromkeys(named["classification"]))
    codes = np.full(slide.n_rows, -1)
    if len(named):
        # the largest first, so that a smaller region within it has the last word
        order = np.argsort(-named.geometry.area.to_numpy(), kind="stable")
        tree = shapely.STRtree(named.geometry.to_numpy()[order])
        row, region = tree.query(shapely.points(section.xy_px), predicate="intersects")
        sequence = np.lexsort([region])
        code = np.array([classes.index(c) for c in named["classification"]])[order]
        codes[section.rows[row[sequence]]] = code[region[sequence]]
    own = pd.Categorical.from_codes(codes, categories=pd.Index(classes)).remove_unused_categories()
    colours = dict(zip(named["classification"], named["color"], strict=True))
    shown = [colours[name] for name in own.categories]
    uns = {f"{key}_colors": shown} if shown and all(isinstance(c, str) for c in shown) else {}
    record = {"file": place.name, "section": section.name, "n_regions": len(regions)}
    return Result(key, record, obs={key: own}, uns=uns, gone=() if uns else (f"{key}_colors",))


def _add_shapes(data: AnnData | SpatialData, image: str, frames: dict[str, GeoDataFrame]) -> list[str]:
    """Add the frames that hold something to a SpatialData: all of them, or none."""
    if not is_spatialdata(data):
        return []
    frames = {name: frame for name, frame in frames.items() if len(frame)}
    taken = {str(name) for _, name, _ in data.gen_elements()}
    for name in frames:
        if name in taken:
            raise ValueError(
                f"This SpatialData already has an element named {name!r}. Delete it (del sdata[{name!r}]), or pass another name with "
                "key_added=…."
            )
    shapes = {name: shapes_on_image(data, image, frame) for name, frame in frames.items()}
    for name, element in shapes.items():
        data.shapes[name] = element
    return list(shapes)


# ------------------------------------------------------------------------------------------------- writing


def _content(
    slide: Slide, section: Section, key: str, measurements: list[str], object_type: ObjectType | None
) -> Content:
    from spatialwhisperer.io._qupath.writing import Content

    table, obs = slide.table, obs_of(slide.table)
    for name in (key, *measurements):
        if name not in obs:
            raise KeyError(
                f"{name!r} not in .obs (found: {listing(obs.columns)}). sw.tl.zero_shot_annotate(data) writes {_keys.LABEL!r}."
            )
    labels = obs[key].astype("category").cat
    classes = [group_name(c) for c in labels.categories]
    kind = object_type or ("tile" if slide.tiles is not None and slide.tiles.at == "grid" else "detection")
    return Content(
        outlines=Outlines(slide, section),
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
    if scores is not None and np.shape(scores) == (slide.n_rows, len(classes)):
        out |= {name: np.asarray(scores)[rows, i] for i, name in enumerate(classes)}
    own = [name for name in (_keys.confidence(key), _keys.margin(key)) if name in obs and name not in columns]
    for name in (*own, *columns):
        if not pd.api.types.is_numeric_dtype(obs[name]):
            raise ValueError(f"measurements must be columns of numbers; .obs[{name!r}] is {obs[name].dtype}.")
        out[name] = obs[name].to_numpy(dtype=float)[rows]
    return out
