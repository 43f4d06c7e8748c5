"""From objects to training items: which object holds which modality, and the rows of all objects."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialwhisperer import _keys
from spatialwhisperer._access.columns import plain_captions
from spatialwhisperer._access.names import check_names
from spatialwhisperer._access.slide import Slide
from spatialwhisperer._access.table.fingerprints import row_ids
from spatialwhisperer._access.table.groups import group_names
from spatialwhisperer._access.tables import obs_of
from spatialwhisperer._access.tiles.lazy import LazyTiles
from spatialwhisperer._messages import listing
from spatialwhisperer._modalities import get_modality

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from spatialwhisperer._access.slide_options import SlideOptions


_COMPARED = 256
"""Rows whose values are compared."""


@dataclass(frozen=True)
class Source:
    """One object, and the modalities that it holds.

    Attributes
    ----------
    slide
        The object, opened.
    name
        Its name in error messages.
    group, section
        Patient and section of each row, shape (n,); the codes of sections differ between objects.
    captions
        Captions of each row, one column for each text key, ``None`` where there is none; shape (n, number of keys).
    has
        Modalities that it holds.
    xy
        Position of each row, shape (n, 2), or ``None``.
    """

    slide: Slide
    name: str
    group: np.ndarray
    section: np.ndarray
    captions: np.ndarray
    has: frozenset[str]
    xy: np.ndarray | None = None

    @cached_property
    def row_ids(self) -> np.ndarray:
        """A number of each row that stands for its name and position, shape (n,)."""
        return row_ids(self.slide)

    @property
    def table(self) -> AnnData:
        """The table."""
        return self.slide.table

    def of_groups(self, names: Iterable[str]) -> np.ndarray:
        """Which rows belong to some groups, Boolean, shape (n,)."""
        return np.isin(self.group.astype(str), sorted(names))


def describe(
    objects: Sequence[AnnData | SpatialData],
    *,
    modalities: Iterable[str],
    keys: Mapping[str, str | None],
    text_keys: Sequence[str],
    group_key: str | None,
    array_positions: bool = False,
    options: SlideOptions | None = None,
) -> list[Source]:
    """Find out what each object holds, without changing it.

    Parameters
    ----------
    objects
        The objects.
    modalities
        Modalities that training reads.
    keys
        Modality to the key of ``.obsm`` that may hold its features.
    text_keys
        Columns of ``.obs`` with captions.
    group_key
        Column of ``.obs`` with the patient.
    array_positions
        Take array coordinates as positions.
    options
        How the objects are opened; see :class:`~spatialwhisperer._access.slide_options.SlideOptions`.

    Raises
    ------
    TypeError
        If an object is neither AnnData nor SpatialData.
    KeyError
        If a column other than "patient", or a name that the objects are opened with, is in none of them.
    ValueError
        If two objects hold the same section, as two patients or twice with an image.
    """
    sources = []
    for number, data in enumerate(objects):
        slide = Slide.open(data, **(options or {}))
        name = f"object {number}"
        captions = _captions(slide.table, text_keys)
        has = {m for m in modalities if _holds(slide, m, keys.get(m), captions)}
        codes = np.array([f"{number}:{code}" for code in slide.sections], dtype=object)
        groups, xy = _groups(slide.table, group_key, name), slide.positions(array=array_positions)
        sources.append(Source(slide, name, groups, codes, captions, frozenset(has), xy))
    # a default column need not be there; a misspelt one would silently hold out sections instead of patients
    check_names([s.slide for s in sources], group_key=None if group_key == _keys.PATIENT else group_key)
    _check_repeated(sources)
    return sources


def _check_repeated(sources: Sequence[Source]) -> None:
    """Refuse a section that is there twice, as two patients or twice with an image: one of both would be held out of the other."""
    ids = [source.row_ids for source in sources]
    again = pd.Series(np.concatenate(ids)).duplicated(keep=False).to_numpy()
    parts = np.split(again, np.cumsum([len(part) for part in ids])[:-1])
    for i, j in combinations([number for number, part in enumerate(parts) if part.any()], 2):
        one, two = sources[i], sources[j]
        _, at, there = np.intersect1d(ids[i], ids[j], return_indices=True)
        if 2 * len(at) < min(len(ids[i]), len(ids[j])) or not _same_values(one.table, two.table, at, there):
            continue
        if (one.group[at] != two.group[there]).any() or "image" in one.has & two.has:
            raise ValueError(
                f"{one.name} and {two.name} hold the same section ({len(at)} rows with the same names, positions and values), so that held-out "
                "tissue would be trained on. Pass it once. Where one of both has the image and the other has not, give their rows the same "
                "patient in .obs (group_key=…)."
            )


def _same_values(one: AnnData, two: AnnData, at: np.ndarray, there: np.ndarray) -> bool:
    """Whether most of these rows of two tables have the same expression, or the same features where nothing is expressed."""
    if one is two:
        return True
    rows: Any = (one[at[:_COMPARED]], two[there[:_COMPARED]])
    if one.var_names.equals(two.var_names) and all(part.n_vars and part.X is not None for part in rows):
        weights = np.random.default_rng(0).uniform(1, 2, one.n_vars)
        mine, theirs = (np.asarray(part.X @ weights).ravel() for part in rows)
        # a table of images alone may be filled with one value, which tells nothing
        if np.ptp(mine):
            return bool(np.isclose(mine, theirs).mean() > 0.5)
    keys = sorted((set(one.obsm) & set(two.obsm)) - {"spatial"})
    return any(_same_features(*(np.asarray(part.obsm[key]) for part in rows)) for key in keys)


def _same_features(mine: np.ndarray, theirs: np.ndarray) -> bool:
    if (
        mine.shape != theirs.shape
        or not np.issubdtype(mine.dtype, np.number)
        or not np.ptp(np.nan_to_num(mine), axis=0).any()
    ):
        return False
    return bool(np.isclose(mine, theirs, equal_nan=True).all(axis=1).mean() > 0.5)


def _holds(slide: Slide, modality: str, key: str | None, captions: np.ndarray) -> bool:
    reads = get_modality(modality).reads
    if reads == "captions":
        return any(c is not None for c in captions.ravel())
    if key is not None and key in slide.table.obsm:
        return True
    if reads == "tiles":
        there = slide.has_image()
        if not there:
            slide.say_left_out()
        return there
    # an object with variables holds counts, unless features are named instead
    return reads == "counts" and key is None and slide.table.n_vars > 0


def _captions(table: AnnData, text_keys: Sequence[str]) -> np.ndarray:
    out = np.full((table.n_obs, len(text_keys)), None, dtype=object)
    for column, key in enumerate(text_keys):
        if key in table.obs:
            out[:, column] = plain_captions(obs_of(table)[key])
    return out


def _groups(table: AnnData, group_key: str | None, name: str) -> np.ndarray:
    if group_key is None or group_key not in table.obs:
        return np.full(table.n_obs, name, dtype=object)
    names = group_names(obs_of(table)[group_key])
    # rows without a group are a group of their own, as objects without the column are
    return np.where(names == None, np.array(name, dtype=object), names)  # noqa: E711


def groups_of(sources: Sequence[Source]) -> list[str]:
    """Names of all groups, sorted."""
    return sorted({str(group) for source in sources for group in source.group})


def section_names(codes: np.ndarray) -> tuple[str, ...]:
    """Names of sections for people, sorted; of an object that is one section without a name, its number."""
    parts = (str(code).partition(":") for code in np.unique(codes.astype(str)))
    return tuple(sorted({f"object {number}" if name == "all" else name for number, _, name in parts}))


def summary(sources: Sequence[Source]) -> str:
    """What each object holds, for messages."""
    return "; ".join(f"{s.name} ({s.table.n_obs} rows): {listing(sorted(s.has))}" for s in sources)


def stack(parts: Sequence[Any]) -> Any:
    """Join the inputs of several objects: dense rows, sparse rows, lists or tiles."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], LazyTiles):
        return LazyTiles.joined(parts)
    if isinstance(parts[0], list):
        return [x for part in parts for x in part]
    if hasattr(parts[0], "tocsr"):
        from scipy.sparse import vstack

        return vstack(parts, format="csr")
    return np.concatenate(parts)


def observations(sources: Sequence[Source], usable: Mapping[str, Sequence[np.ndarray | None]]) -> pd.DataFrame:
    """Every row of every object, in order.

    Parameters
    ----------
    sources
        The objects.
    usable
        Modality to the Boolean mask of the rows that have an input, for each object; ``None`` for an object that has none. The stacked
        inputs hold the rows inside the masks only.

    Returns
    -------
    DataFrame with ``source`` (number of the object), ``group``, ``section``, ``x``, ``y``, and for each modality the position in its
    stacked inputs, or -1.
    """
    blocks = []
    offset = dict.fromkeys(usable, 0)
    for number, source in enumerate(sources):
        n = source.table.n_obs
        xy = np.full((n, 2), np.nan) if source.xy is None else source.xy
        columns: dict[str, Any] = {
            "source": number,
            "group": source.group,
            "section": source.section,
            "x": xy[:, 0],
            "y": xy[:, 1],
        }
        for modality, masks in usable.items():
            columns[modality] = np.full(n, -1)
            mask = masks[number]
            if mask is not None:
                columns[modality][mask] = offset[modality] + np.arange(int(mask.sum()))
                offset[modality] += int(mask.sum())
        blocks.append(pd.DataFrame(columns))
    return pd.concat(blocks, ignore_index=True)


def item_arrays(sources: Sequence[Source], rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Columns of the items, one item for each row and distinct caption of it: those of `observations`, ``row`` and ``caption``."""
    captions = [caption for source in sources for caption in source.captions]
    items = _repeat_captions(rows.assign(row=np.arange(len(rows))), captions)
    return {str(name): items[name].to_numpy() for name in items}


def _repeat_captions(block: pd.DataFrame, captions: Sequence[np.ndarray]) -> pd.DataFrame:
    """One item for each distinct caption of a row, and one item without a caption for a row that has none."""
    distinct = [list(dict.fromkeys(c for c in row if c is not None)) or [None] for row in captions]
    if not distinct:
        return block.assign(caption=pd.Series([], dtype=object))
    repeats = np.array([len(c) for c in distinct])
    out = block.iloc[np.repeat(np.arange(len(block)), repeats)].reset_index(drop=True)
    out["caption"] = pd.Series([c for row in distinct for c in row], dtype=object)
    return out
