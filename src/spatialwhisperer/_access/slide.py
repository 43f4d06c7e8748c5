"""The slide: an object that is opened once and passed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Unpack

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import check_table
from spatialwhisperer._access.images import missing_factor, rgb_names
from spatialwhisperer._access.records import TilesRecord, Where, agreed, places_of
from spatialwhisperer._access.result import Result, write_results
from spatialwhisperer._access.sections import libraries, regions
from spatialwhisperer._access.sections.lattice import ARRAY_COLUMNS
from spatialwhisperer._access.sections.positions import array_positions, stored_positions
from spatialwhisperer._access.sections.scale import Scale, rescaled, settle
from spatialwhisperer._access.sections.section import Found, Section, check_named, missing_mpp
from spatialwhisperer._access.slide_options import SlideOptions, check_options, check_values, named_options
from spatialwhisperer._access.table.placing import check_kept, check_others_kept
from spatialwhisperer._access.tables import add_annotating_table, check_name, is_spatialdata, obs_of, table_name
from spatialwhisperer._messages import listing, warn
from spatialwhisperer._provenance import recorded, recorded_as

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


class Slide:
    """Table, sections, images, positions and scale of an AnnData or SpatialData.

    Sections, centres and images are computed when they are first used, and once.

    Attributes
    ----------
    data
        The object.
    table
        The AnnData from which values are read and to which results are written.
    tiles
        The record of :func:`spatialwhisperer.pp.tiles`, or ``None``.
    drawing
        Whether it was opened for a picture.
    options
        The arguments that it was opened with. What they leave open is taken from ``tiles``.
    """

    def __init__(
        self,
        data: AnnData | SpatialData,
        *,
        use_tiles: bool = True,
        drawing: bool = False,
        **options: Unpack[SlideOptions],
    ) -> None:
        self.data = data
        name = table_name(data, options.get("table_key"))
        self.table: AnnData = data if name is None else data.tables[name]  # type: ignore[union-attr]
        check_table(self.table)
        self.tiles = recorded_as(self.table, _keys.TILES, TilesRecord) if use_tiles else None
        self.drawing = drawing
        self.options = named_options(options)

    @classmethod
    def open(
        cls,
        data: AnnData | SpatialData,
        *,
        use_tiles: bool = True,
        drawing: bool = False,
        **options: Unpack[SlideOptions],
    ) -> Slide:
        """Open an object.

        Parameters
        ----------
        data
            The object.
        use_tiles
            Take what the caller leaves open from the record of :func:`spatialwhisperer.pp.tiles`.
        drawing
            Take from the records of features what caller, tiles and object leave open: a picture shows where features were read.
        **options
            See `SlideOptions`.

        Raises
        ------
        TypeError
            If it is neither AnnData nor SpatialData, or there is no such argument.
        KeyError
            If a table that is named does not exist, or there is none or several.
        """
        check_options(options)
        check_values(options)
        return cls(data, use_tiles=use_tiles, drawing=drawing, **options)

    @property
    def is_spatialdata(self) -> bool:
        """Whether it is a SpatialData."""
        return is_spatialdata(self.data)

    @property
    def n_rows(self) -> int:
        """Rows of the table."""
        return self.table.n_obs

    # ------------------------------------------------------------------------------------------- sections

    @cached_property
    def sections(self) -> np.ndarray:
        """Name of the section of each row, shape (n,)."""
        library_key = self._option("library_key")
        if not self.is_spatialdata:
            return libraries.library_codes(self.table, library_key)
        if library_key is not None:
            raise ValueError(
                "library_key applies to AnnData; in a SpatialData the table itself names the region of each row."
            )
        return regions.region_codes(self.table)

    @cached_property
    def frames(self) -> tuple[Section, ...]:
        """Sections with image, centres and scale, where there are any.

        Raises
        ------
        KeyError
            If an image, column or element that is named does not exist.
        ValueError
            If image or coordinate system is ambiguous, or two scales differ by more than 5 %.
        """
        asked = self.options.get("image_key")
        if isinstance(asked, Mapping):
            check_named("image_key", asked, {name: name for name in map(str, pd.unique(self.sections))})
        where = {"image_key": self._image_key, "coordinate_system": self._option("coordinate_system")}
        if self.is_spatialdata:
            found = regions.region_sections(self.data, self.table, self.sections, **where)  # type: ignore[arg-type]
        else:
            found = libraries.library_sections(self.table, self.sections, **where)  # type: ignore[arg-type]
        images = ((one.section.name, one.section.image) for one in found)
        named = {name: None if image is None else image.name for name, image in images}
        check_named("mpp", self.options.get("mpp"), named)
        return tuple(self._settled(one) for one in found)

    def imaged(self) -> tuple[Section, ...]:
        """All sections, each with an image and centres without NaN.

        Raises
        ------
        KeyError
            If a section has no image.
        ValueError
            If a coordinate is NaN.
        """
        for section in self.frames:
            self._check_image(section)
        return self.frames

    def scaled(self) -> tuple[Section, ...]:
        """All sections, each with an image, centres without NaN and a scale.

        Raises
        ------
        KeyError
            If a section has no image.
        ValueError
            If a coordinate is NaN, or a scale is not known.
        """
        for section in self.imaged():
            if section.scale is None:
                raise ValueError(missing_mpp(section, self._rescaled(section)))
        return self.frames

    @property
    def is_placed(self) -> bool:
        """Whether its rows have positions."""
        return "spatialdata_attrs" in self.table.uns if self.is_spatialdata else "spatial" in self.table.obsm

    def has_image(self) -> bool:
        """Whether any section has an image. An image that is ambiguous or cannot be aligned raises an error."""
        return self.is_placed and any(section.image is not None for section in self.frames)

    def say_left_out(self) -> None:
        """Warn where an image is there and not read, before a call goes on without one.

        Raises
        ------
        ValueError
            If ``mpp`` or ``spot_pitch_um`` shows that it was meant.
        """
        # rows without positions have no place in any image
        if not self.is_placed or not (why := missing_factor(self.data)):
            return
        for name in ("mpp", "spot_pitch_um"):
            # a mapping names images, and those that do not exist are named where it is read
            if self.options.get(name) is not None and not isinstance(self.options.get(name), Mapping):
                raise ValueError(f"{name}=… is about an image that cannot be read. {why}")
        warn(f"The call goes on without an image. {why}")

    @property
    def where(self) -> Where:
        """Scale and image of each section, as stored beside a result; empty where there are no positions."""
        if self.table.n_obs == 0 or not self.has_image():
            return Where(library_key=self._option("library_key"))
        frames = self.frames
        return Where(
            mpp={s.name: s.scale.mpp for s in frames if s.scale is not None},
            rule={s.name: s.scale.rule for s in frames if s.scale is not None},
            image={s.name: s.image.name for s in frames if s.image is not None},
            coordinate_system=self._option("coordinate_system"),
            library_key=self._option("library_key"),
        )

    def positions(self, *, array: bool = False) -> np.ndarray | None:
        """Position of each row, float64, shape (n, 2); ``None`` where there is none. The unit may differ between sections.

        Parameters
        ----------
        array
            Return integer array coordinates: ``.obs["array_col"]`` and ``.obs["array_row"]``, else positions in units of the distance
            between neighbours.
        """
        # a table alone may state nothing but its array coordinates, which are a unit too
        return array_positions(self.table, self._xy, self.sections) if array or self._xy is None else self._xy

    @property
    def shares_positions(self) -> bool:
        """Whether other slides have the same positions: there are none, or they are those of an array or of a grid of tiles."""
        return self._xy is None or (self.tiles is not None and self.tiles.at == "grid")

    @cached_property
    def _xy(self) -> np.ndarray | None:
        if "spatial" in self.table.obsm:
            return stored_positions(self.table)
        if self.is_spatialdata and "spatialdata_attrs" in self.table.uns:
            return regions.region_positions(self.data, self.table, self.sections)
        return None

    def _option(self, name: str) -> str | None:
        given = self.options.get(name)
        if given is None and self.tiles is not None:
            given = getattr(self.tiles.where, name)
        if given is None and self.drawing:
            given = getattr(self._recorded_place, name)
        return given  # type: ignore[return-value]

    @property
    def _image_key(self) -> str | Mapping[str, str] | None:
        given = self.options.get("image_key")
        if given is None and self.tiles is not None:
            self._check_stated_images(self.tiles.where.image)
            given = self.tiles.where.image
        return self._recorded_place.image if given is None and self.drawing else given

    def _check_stated_images(self, stated: Mapping[str, str]) -> None:
        """Refuse images that `tiles` recorded of sections of this table, and that are no longer there."""
        names = list(self.data.images) if self.is_spatialdata else rgb_names(self.data)  # type: ignore[union-attr]
        gone = {section: image for section, image in stated.items() if image not in names}
        for section in [name for name in gone if (self.sections == name).any()]:
            raise KeyError(
                f"sw.pp.tiles recorded image {gone[section]!r} for section {section!r}, which is not in this object (found: "
                f"{listing(names)}). Where it was renamed, run sw.pp.tiles again; for another image pass image_key=… and mpp=…."
            )

    def _settled(self, found: Found) -> Section:
        section = found.section
        image = "" if section.image is None else section.image.name
        spot_pitch_um = self.options.get("spot_pitch_um")
        scale = settle(
            section.name,
            image,
            mpp=self.options.get("mpp"),
            spot_pitch_um=spot_pitch_um,
            xy_px=section.xy_px,
            stated=self._stated(section),
            found=found.scales,
            stretch=found.stretch,
            array=None if spot_pitch_um is None else obs_of(self.table).filter(ARRAY_COLUMNS).iloc[section.rows],
            pixel=section.pixel,
        )
        if scale is None and self.drawing and self._rescaled(section) is None:
            scale = self._recorded_scale(section.name, image, found.stretch)
        return replace(section, scale=scale)

    def _stated(self, section: Section) -> Scale | None:
        """Scale that `tiles` recorded for the same image, where the rows lie as far apart as then."""
        if self.tiles is None or not self._same_image(section) or self._rescaled(section) is not None:
            return None
        mpp = self.tiles.where.mpp.get(section.name)
        return None if mpp is None else Scale(mpp, self.tiles.where.rule.get(section.name, "sw.pp.tiles"))

    def _same_image(self, section: Section) -> bool:
        image = "" if section.image is None else section.image.name
        return self.tiles is not None and self.tiles.where.image.get(section.name) == image

    def _rescaled(self, section: Section) -> float | None:
        """How many times as far apart the rows of a section lie as when `tiles` looked; ``None`` where nothing says otherwise."""
        centres = np.asarray(self.table.obsm.get(_keys.TILES, ()))
        if not self._same_image(section) or centres.shape != (self.n_rows, 2):
            return None
        return rescaled(centres[section.rows], section.xy_px)

    @cached_property
    def _recorded(self) -> tuple[Where, ...]:
        """What is recorded beside features and tiles of where they were read."""
        return places_of(recorded(self.table, key) for key in self.table.uns.get(_keys.UNS, {}))

    @cached_property
    def _recorded_place(self) -> Where:
        """Image, coordinate system and library that all records name, as far as this object has them."""
        place = agreed(self._recorded)
        own = set(rgb_names(self.data))
        return Where(
            image={section: image for section, image in place.image.items() if image in own},
            coordinate_system=place.coordinate_system if self.is_spatialdata else None,
            library_key=None if self.is_spatialdata or place.library_key not in self.table.obs else place.library_key,
        )

    def _recorded_scale(self, section: str, image: str, stretch: float) -> Scale | None:
        """Scale at which all recorded features and tiles of a section were read from this image; ``None`` where they differ."""
        mpp = agreed([place for place in self._recorded if place.image.get(section) == image]).mpp.get(section)
        return None if mpp is None else Scale(mpp, "the records of features and tiles", stretch)

    def _check_image(self, section: Section) -> None:
        if section.image is None:
            if without := missing_factor(self.data, section.name):
                raise KeyError(f"Section {section.name!r} has no image that can be read. {without}")
            place, rgb = (
                "image elements" if self.is_spatialdata else ".uns['spatial'][library]['images']",
                rgb_names(self.data),
            )
            others = [name for name in getattr(self.data, "images", ()) if name not in rgb]
            left_out = f"; not RGB by their channels: {listing(others)}" if others else ""
            remedy = (
                "Add one that shares a coordinate system with the spots (spatialdata.models.Image2DModel.parse(…, transformations=…))"
                if self.is_spatialdata
                else f"Add it to adata.uns['spatial'][{section.name!r}], leave out the rows of that section"
            )
            raise KeyError(
                f"Section {section.name!r} has no H&E image ({place} found: {listing(rgb)}{left_out}). {remedy}, or name the image with "
                "image_key=…."
            )
        bad = ~np.isfinite(section.xy_px).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{int(bad.sum())} of {len(bad)} rows of section {section.name!r} have NaN coordinates (first at row "
                f"{int(section.rows[bad][0])}). Drop them first: adata[np.isfinite(adata.obsm['spatial']).all(axis=1)].copy()."
            )

    # ------------------------------------------------------------------------------------------- results

    def put(self, *results: Result) -> None:
        """Write results to the table: all of them, or none after an error.

        Raises
        ------
        ValueError
            If a result would replace what places the rows, a column that the package did not write, or another result.
        """
        write_results(self.table, results, library_key=self._option("library_key"))

    def check_column(self, name: str, *, beside: tuple[str, ...] = ()) -> None:
        """Raise an error where a result of that name would replace what places the rows, what the package did not write, or another result.

        Parameters
        ----------
        name
            The column.
        beside
            Names of what the call writes or removes beside it.

        Raises
        ------
        ValueError
            If it would.
        """
        check_kept(self.table, name, [name], self._option("library_key"))
        check_others_kept(self.table, name, [name, *beside])

    def check_table(self, name: str, *, key: str) -> None:
        """Raise an error where the name of a new table is taken by anything but an earlier result of that key.

        Raises
        ------
        ValueError
            If the name is taken by something else.
        """
        check_name(self.data, name, key=key)

    def put_table(self, table: AnnData, name: str) -> None:
        """Add a table that annotates the same elements as this one, row by row. A table of that name is replaced."""
        add_annotating_table(self.data, self.table, table, name)
