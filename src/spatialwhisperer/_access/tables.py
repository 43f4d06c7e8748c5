"""The table: an AnnData itself, or a table of a SpatialData."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, cast

from spatialwhisperer import _keys
from spatialwhisperer._access.contract import link_of
from spatialwhisperer._messages import listing
from spatialwhisperer._provenance import provenance_of, recorded

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData
    from typing_extensions import TypeIs


def is_spatialdata(data: object) -> TypeIs[SpatialData]:
    """Whether data are a SpatialData (and not an AnnData).

    Raises
    ------
    TypeError
        If they are neither.
    """
    # data of a class can only exist where its module is loaded, so nothing has to be imported here
    spatialdata, anndata = sys.modules.get("spatialdata"), sys.modules.get("anndata")
    if spatialdata is not None and isinstance(data, spatialdata.SpatialData):
        return True
    if anndata is not None and isinstance(data, anndata.AnnData):
        return False
    raise TypeError(f"data must be an AnnData or a SpatialData, not {type(data).__name__}.{_remedy(data)}")


def _remedy(data: object) -> str:
    if isinstance(data, str | os.PathLike):
        return f" Read the slide first: sdata = sw.io.read_slide({str(data)!r})."
    if getattr(data, "ndim", 0) in (2, 3) and not hasattr(data, "columns"):
        return " Pixels alone have no scale. Save them as a TIFF, and read that: sdata = sw.io.read_slide(path, mpp=…)."
    if isinstance(data, Mapping | ValuesView | Iterator):
        return (
            " Pass its objects one at a time, for section in sections.values(): …, or, where a function takes several, as a list: "
            "list(sections.values())."
        )
    if isinstance(data, list | tuple):
        return " Pass its objects one at a time: for section in sections: …."
    return ""


def obs_of(table: AnnData) -> pd.DataFrame:
    """``.obs`` of a table in memory."""
    return cast("pd.DataFrame", table.obs)


def table_name(data: AnnData | SpatialData, table_key: str | None = None) -> str | None:
    """Name of the table in a SpatialData: the one that is named, else "table", else the only one. ``None`` for an AnnData.

    Tables that hold predicted expression are left out, unless there is no other.

    Raises
    ------
    KeyError
        If it does not exist, or there are several and none is named.
    """
    if not is_spatialdata(data):
        return None
    names = list(data.tables)
    if table_key is not None:
        if table_key not in names:
            raise KeyError(
                f"table_key={table_key!r} is not a table of this SpatialData (found: {listing(names)}). {_no_table(names)}"
            )
        return table_key
    found = without_predictions(data, names)
    if "table" in found:
        return "table"
    if len(found) == 1:
        return found[0]
    if not names:
        raise KeyError(f"This SpatialData holds no table. {_no_table(names)}")
    raise KeyError(f"This SpatialData holds several tables ({listing(names)}); choose one with table_key=….")


def regions_of(table: AnnData) -> list[str]:
    """Names of the elements that a table annotates."""
    regions = table.uns.get("spatialdata_attrs", {}).get("region", [])
    return [regions] if isinstance(regions, str) else [str(region) for region in regions]


def without_predictions(sdata: SpatialData, names: list[str]) -> list[str]:
    """Those of some tables that this package did not predict; all of them where it predicted all."""
    others = [name for name in names if _keys.EXPRESSION not in provenance_of(sdata.tables[name])]
    return others or names


def _no_table(names: list[str]) -> str:
    hint = (
        "A slide without expression gets one from sw.tl.zero_shot_annotate(sdata), which lays tiles over its tissue and labels them, or "
        "from sw.pp.tiles(sdata, at='grid', tile_um=…), which lays tiles alone"
    )
    return f"{hint}. Or pass table_key=…." if names else f"{hint}."


def check_name(sdata: SpatialData, name: str, *, key: str) -> None:
    """Raise an error where the name of a new table is taken by anything but an earlier result.

    Parameters
    ----------
    sdata
        The object.
    name
        Name of the new table.
    key
        Key of the result. A table that has provenance under it may be replaced.

    Raises
    ------
    ValueError
        If the name is taken by something else.
    """
    # a measured table has provenance too, of the features that were stored in it
    if name not in sdata.tables or recorded(sdata.tables[name], key) is None:
        check_free(sdata, [name])


def check_free(sdata: SpatialData, names: Iterable[str], hint: str = "") -> None:
    """Raise an error where names of new elements are taken.

    Parameters
    ----------
    sdata
        The object.
    names
        The names.
    hint
        Why what is there is not replaced, for the message.

    Raises
    ------
    ValueError
        If elements of these names exist.
    """
    there = {str(name) for _, name, _ in sdata.gen_elements()}
    taken = [name for name in names if name in there]
    if taken:
        what, it = ("an element", "it") if len(taken) == 1 else ("elements", "them")
        calls = ", ".join(f"sdata[{name!r}]" for name in taken)
        raise ValueError(
            f"This SpatialData already has {what} named {listing(map(repr, taken))}{hint}. Delete {it} (del {calls}), or pass another name with "
            "key_added=…."
        )


def add_annotating_table(sdata: SpatialData, like: AnnData, table: AnnData, name: str) -> None:
    """Add a table that annotates the same elements as another one, row by row. A table of that name is replaced.

    Parameters
    ----------
    sdata
        Changed in place.
    like
        The table whose regions and instances the new one takes over.
    table
        The new table, its rows in the same order.
    name
        Name in the SpatialData; see `check_name`.
    """
    from spatialdata.models import TableModel

    link = link_of(like)
    if link is not None:
        region, instance = str(link.region_key), str(link.instance_key)
        table.obs[region] = like.obs[region].to_numpy()
        table.obs[region] = obs_of(table)[region].astype("category")
        table.obs[instance] = like.obs[instance].to_numpy()
        # of the rows that are there: a table that was subset may still name regions that it has lost
        regions = [str(r) for r in obs_of(table)[region].cat.categories]
        table = TableModel.parse(table, region=regions, region_key=region, instance_key=instance)
    sdata.tables[name] = table
