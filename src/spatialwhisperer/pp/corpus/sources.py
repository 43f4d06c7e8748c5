"""Where the slides of a corpus are from, and opening them one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer import _keys
from spatialwhisperer._access.stores.reading import FILE_ENDING, is_named_store, read_object
from spatialwhisperer._access.tables import is_spatialdata
from spatialwhisperer._checks.checked import checked_options
from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import listing
from spatialwhisperer.pp.corpus.licences import shareable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


@checked_options
@dataclass(frozen=True)
class CorpusSource:
    """Slides, or tables of cells, that have one licence.

    Attributes
    ----------
    name
        Name of the source.
    data
        AnnData or SpatialData, the path of a ``.h5ad`` file or of a ``.zarr`` store of SpatialData, or a function without arguments that
        returns an object; or a mapping from name to one of these. What :func:`spatialwhisperer.datasets.hest` and
        :func:`spatialwhisperer.datasets.h5ad_folder` return is such a mapping. Objects are opened one after the other.
    licence
        Licence of the data, such as "CC BY 4.0".
    url
        Where the data are from.
    patient_key
        Column of ``.obs`` with the patient. Every row needs one.
    text_key
        Column of ``.obs`` with captions, or several columns with other wordings of the caption of a row.
    shareable
        Whether the licence allows to pass features of the data on; ``None`` takes what is known of the licence.
    prepare
        Function that changes each object after it was opened, such as one that writes captions
        (:func:`spatialwhisperer.pp.caption_metadata`). It may be called without the counts, and must not need them. It gets a copy of
        an object in memory, whose images, shapes and points are not copied.
    options
        How the objects are opened: ``mpp``, ``image_key``, ``table_key`` and the other arguments of
        :func:`spatialwhisperer.pp.embed_images`.

    Raises
    ------
    ValueError
        If the name or the licence is empty.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> data = sw.datasets.simulate_sections(1, 80, n_genes=60, n_reference_cells=50, random_state=0)
    >>> sw.pp.CorpusSource("simulated", data.sections, licence="CC0").name
    'simulated'
    """

    name: str
    data: Any
    licence: str
    url: str = ""
    patient_key: str = _keys.PATIENT
    text_key: str | Sequence[str] = "text"
    shareable: bool | None = None
    prepare: Any = None
    options: Mapping[str, Any] = field(default_factory=frozen)

    def __post_init__(self) -> None:
        for name in ("name", "licence"):
            if not getattr(self, name).strip():
                raise ValueError(f"{name} of a CorpusSource is empty: state the {name} of the data.")

    @property
    def may_be_shared(self) -> bool:
        """Whether features of the data may be passed on."""
        return shareable(self.licence) if self.shareable is None else self.shareable

    @property
    def text_keys(self) -> list[str]:
        """Columns with captions."""
        return [self.text_key] if isinstance(self.text_key, str) else list(self.text_key)

    @property
    def names(self) -> list[str]:
        """Names of the slides."""
        return [str(name) for name in self.data] if _is_mapping(self.data) else [self.name]

    def open(self, name: str) -> AnnData | SpatialData:
        """Open a slide."""
        data = self._data(name)
        return self._prepared(_opened(data), own=isinstance(data, str | Path))

    def peek(self, name: str) -> AnnData | SpatialData:
        """Open what is needed to know the rows and columns of a slide; values of a file stay on the disk."""
        if hasattr(self.data, "peek"):
            return self._prepared(self.data.peek(name), own=True)
        data = self._data(name)
        return self._prepared(_opened(data, values=False), own=isinstance(data, str | Path))

    def _data(self, name: str) -> Any:
        if not _is_mapping(self.data):
            return self.data
        # names are text, and keys of the caller may be numbers
        return self.data[name if name in self.data else next(key for key in self.data if str(key) == name)]

    def on_disk(self) -> CorpusSource:
        """The source with paths that hold in other processes.

        Raises
        ------
        ValueError
            If it holds objects in memory.
        """
        if not isinstance(self.data, dict):
            return replace(self, data=self._on_disk(self.data))
        return replace(self, data={name: self._on_disk(one) for name, one in self.data.items()})

    def _on_disk(self, data: Any) -> Any:
        if isinstance(data, str | Path):
            return Path(data).expanduser().absolute()
        if hasattr(data, "tables") or hasattr(data, "obs_names"):
            raise ValueError(
                f"A cluster reads slides from files, and source {self.name!r} holds objects in memory. Write them first, and pass their paths."
            )
        return data

    def _prepared(self, data: AnnData | SpatialData, *, own: bool) -> AnnData | SpatialData:
        if self.prepare is None:
            return data
        # a slide is opened twice, and where it was not read just now it is the caller's
        data = data if own else _copied(data)
        self.prepare(data)
        return data


def _copied(data: AnnData | SpatialData) -> AnnData | SpatialData:
    """A copy of the tables, with the same elements; a table whose values lie in a file is left as it is."""
    if not is_spatialdata(data):
        return data if data.isbacked else data.copy()
    from spatialdata import SpatialData

    tables = {name: table.copy() for name, table in data.tables.items()}
    kept = {kind: dict(getattr(data, kind)) for kind in ("images", "labels", "points", "shapes")}
    return SpatialData(**kept, tables=tables, attrs=dict(data.attrs))


def _is_mapping(data: Any) -> bool:
    return isinstance(data, Mapping) and not hasattr(data, "tables")


def _opened(data: Any, *, values: bool = True) -> AnnData | SpatialData:
    if callable(data):
        data = data()
    if not isinstance(data, str | Path):
        return data
    path = Path(data).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix != FILE_ENDING and not is_named_store(path):
        raise ValueError(f"{path.name} is no .h5ad file and no zarr store. Pass a function that opens it.")
    return read_object(path, values=values)


def check_names(sources: Sequence[CorpusSource]) -> None:
    """Refuse sources of one name, and names of slides that would be the same folder.

    Raises
    ------
    ValueError
        If a name repeats.
    TypeError
        If something is no source.
    """
    if wrong := [s for s in sources if not isinstance(s, CorpusSource)]:
        raise TypeError(f"sources must be sw.pp.CorpusSource, not {type(wrong[0]).__name__}.")
    if not sources:
        raise ValueError("No source: pass one sw.pp.CorpusSource or several.")
    for source in sources:
        if len(set(source.names)) < len(source.names):
            raise ValueError(f"Slides of source {source.name!r} have the same name as text: {listing(source.names)}.")
    names = [source.name for source in sources]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Names of sources repeat: {listing(repeated)}.")
