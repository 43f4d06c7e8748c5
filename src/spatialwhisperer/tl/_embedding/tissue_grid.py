"""A slide without a table gets a grid of tiles over its tissue, as far apart as the first tile size of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from spatialwhisperer import _keys
from spatialwhisperer._access.elements.pyramid import without_table
from spatialwhisperer._access.images import rgb_names
from spatialwhisperer._access.records import TilesRecord
from spatialwhisperer._access.tables import is_spatialdata, without_predictions
from spatialwhisperer._messages import inform, joined
from spatialwhisperer._provenance import record, recorded_as
from spatialwhisperer.pp.tiles import tiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer.models.whisperer import Whisperer


@dataclass(frozen=True)
class OnTissue:
    """What a call works on.

    Attributes
    ----------
    data
        The object of the caller; where that holds no table, a copy of it with a grid.
    caller
        The object of the caller, where ``data`` is such a copy.
    said
        What is said once the grid is kept.
    """

    data: AnnData | SpatialData
    caller: SpatialData | None = None
    said: str = ""

    def keep(self) -> None:
        """Add the grid and the tables beside it to the object of the caller: all of them, or nothing after an error."""
        if self.caller is None or not is_spatialdata(self.data):
            return
        added: list[tuple[Any, str]] = []
        try:
            for own, theirs in ((self.data.shapes, self.caller.shapes), (self.data.tables, self.caller.tables)):
                for name in [name for name in own if name not in theirs]:
                    theirs[name] = own[name]
                    added.append((theirs, name))
        except BaseException:
            for theirs, name in added:
                del theirs[name]
            raise
        inform(self.said)


def on_tissue(
    data: AnnData | SpatialData, model: Whisperer, modality: str | None, options: Mapping[str, Any], *, keeps: bool
) -> OnTissue:
    """Lay tiles over the tissue of a slide that holds no table, as :func:`spatialwhisperer.pp.tiles` does.

    Parameters
    ----------
    data
        The object. It is not changed before `OnTissue.keep`.
    model
        The model, whose first tile size is taken.
    modality
        Modality that is asked for; only the image is read from tiles.
    options
        How the object is opened; see `SlideOptions`.
    keeps
        Whether the caller calls `OnTissue.keep` when it is done.

    Raises
    ------
    ValueError
        If the scale of the slide is not known, no tile fits into the tissue, or an option is meant for the rows of a table.
    """
    image = model.config.modalities.get("image")
    sizes = () if image is None else image.features.tile_um
    wanted = modality in (None, "image") and options.get("table_key") is None
    if not sizes or not wanted or not is_spatialdata(data) or not rgb_names(data):
        return OnTissue(data)
    if data.tables:
        _say_implied(data, sizes)
        return OnTissue(data)
    copy = without_table(data)
    tiles(copy, tile_um=sizes[0], at="grid", **options)
    table = copy.tables[_keys.TILES]
    stated = recorded_as(table, _keys.TILES, TilesRecord)
    if stated is not None:
        record(table, _keys.TILES, replace(stated, implied=True))
    laid = f"The slide has no table, so a grid of {table.n_obs} tiles, {sizes[0]:g} µm apart, was laid over its tissue"
    read = f"Around each centre the model reads {_squares(sizes)}."
    if keeps:
        said = f"{laid} (tables[{_keys.TILES!r}]). {read} sw.pp.tiles(data, at='grid', …) makes another grid."
        return OnTissue(copy, data, said)
    inform(
        f"{laid} for this call alone. {read} sw.pp.tiles(data, at='grid', tile_um={sizes[0]:g}) makes one that is kept."
    )
    return OnTissue(copy, data)


def _squares(sizes: Sequence[float]) -> str:
    """The tiles of a row, in words."""
    return f"{'squares' if len(sizes) > 1 else 'a square'} of {joined(sizes)} µm"


def _say_implied(sdata: SpatialData, sizes: Sequence[float]) -> None:
    """Say so where the only rows are tiles that a call for a model of other tiles laid. They may hold its results, so they stay."""
    if without_predictions(sdata, list(sdata.tables)) != [_keys.TILES]:
        return
    stated = recorded_as(sdata.tables[_keys.TILES], _keys.TILES, TilesRecord)
    if stated is None or not stated.implied or stated.tile_um == sizes[0]:
        return
    inform(
        f"tables[{_keys.TILES!r}] holds a grid of tiles {stated.tile_um:g} µm apart, which an earlier call laid over the tissue for another "
        f"model. It is used here too: around each centre this model reads {_squares(sizes)}. For a grid as this model would lay it: "
        f"sw.pp.tiles(data, at='grid', tile_um={sizes[0]:g}, key_added=…), and pass its name as table_key=…."
    )
