"""Digests of a slide, one for its rows and one for each modality, by which a later call finds out what has changed since."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from spatialwhisperer._access.contract import number_matrix
from spatialwhisperer._access.tiles.patch_file import PATCHES, PatchFile
from spatialwhisperer._access.tiles.sight import Sight
from spatialwhisperer.pp.corpus.patches import has_patches

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from anndata import AnnData

    from spatialwhisperer._access.slide import Slide
    from spatialwhisperer.pp.corpus.embedding import Encoders
    from spatialwhisperer.training.corpus.manifest import SlideRecord

ROWS = "rows"
_WHAT = {ROWS: "rows, patients or sections", "image": "places or pixels", "gene": "genes or counts", "text": "captions"}
_VALUE_ROWS, _PATCHES = 256, 8
# places are seldom just so far from a whole pixel, so that another rounding does not move them into the next one
_OFF_PX = 0.3141


def stamps_of(
    slide: Slide,
    patients: np.ndarray,
    encoders: Encoders,
    holds: Collection[str],
    captions: tuple[Sequence[str], np.ndarray | None],
) -> dict[str, str]:
    """Digests of a slide by ``"rows"`` and the modalities that are asked for; empty for one that it does not hold.

    Of counts, features that are given and pixels, those of some rows are read.

    Parameters
    ----------
    slide
        The slide; its values may lie on the disk.
    patients
        Patient of each row.
    encoders
        What is asked for.
    holds
        Modalities that the slide holds.
    captions
        What `captions_of` returned.
    """
    texts, codes = captions
    asked = {"image": encoders.image, "gene": encoders.gene, "text": encoders.text}
    out = {ROWS: _digest([*_lines(slide.table.obs_names, patients, slide.sections)])}
    out |= dict.fromkeys((modality for modality, options in asked.items() if options is not None), "")
    if "image" in holds and encoders.image is not None:
        out["image"] = _digest(_image(slide, encoders.image.key))
    if "gene" in holds and encoders.gene is not None:
        out["gene"] = _digest(_genes(slide.table, encoders.gene.key, encoders.gene.layer))
    if "text" in holds:
        out["text"] = _digest(_lines(texts, [] if codes is None else codes.ravel().tolist()))
    return out


def changes(record: SlideRecord | None, now: Mapping[str, str]) -> list[str]:
    """What a slide has otherwise than the features in a corpus, as text; empty where these can stay."""
    if record is None or not record.shards:
        return []
    # a modality that was asked for one time only is no change, nor is one that the slide holds now
    return [_WHAT[part] for part, stamp in record.stamps.items() if stamp and now.get(part, stamp) != stamp]


def to_build(record: SlideRecord | None, now: Mapping[str, str]) -> bool:
    """Whether a slide is to be built: it is not in a corpus, left no row there, or holds a modality that its record lacks.

    Where features of the corpus would be lost, because their modality is not asked for now, they stay.
    """
    if record is None:
        return True
    if not record.shards:
        return dict(record.stamps) != dict(now)
    had, has = ({part for part, stamp in stamps.items() if stamp} for stamps in (record.stamps, now))
    return had < has


def _digest(parts: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part + b"\1")
    return sha.hexdigest()


def _lines(*columns: Iterable[Any]) -> list[bytes]:
    return ["\0".join(map(str, column)).encode() for column in columns]


def _genes(table: AnnData, key: str | None, layer: str | None) -> list[bytes]:
    if key is not None:
        return _given(table, key)
    values: Any = table.X if layer is None else table.layers.get(layer)
    # a source may be looked at without its counts
    return _lines(table.var_names) + ([] if values is None else _values(_taken(values)))


def _image(slide: Slide, key: str | None) -> list[bytes]:
    table = slide.table
    if key is not None:
        return _given(table, key)
    if has_patches(table):
        stated = json.loads(str(table.uns[PATCHES]))
        file = PatchFile(Path(stated["path"]), float(stated["tile_um"]))
        return [*_lines(file.names), file.sample(_PATCHES)[0].tobytes() if len(file.names) else b""]
    out = _lines(sorted(Sight.of(slide.frames, table.obs_names).pixels.items()))
    for section in slide.frames:
        out += _lines([section.name, "" if section.mpp is None else f"{section.mpp:.6g}"])
        out.append(np.floor(section.xy_px + _OFF_PX).tobytes())
    return out


def _given(table: AnnData, key: str) -> list[bytes]:
    return _values(number_matrix(_taken(table.obsm[key]), f".obsm[{key!r}]"))


def _taken(stored: Any) -> Any:
    """Some rows of a matrix, from the first to the last in equal steps."""
    n = stored.shape[0]
    rows = np.unique(np.linspace(0, n - 1, _VALUE_ROWS).round().astype(int)) if n else np.empty(0, int)
    part = stored.iloc[rows] if hasattr(stored, "iloc") else stored[rows]
    return part.compute() if hasattr(part, "compute") else part


def _values(rows: Any) -> list[bytes]:
    """Values, whatever the matrix is stored as."""
    matrix = sp.csr_matrix(rows, dtype=np.float64)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    places = (np.asarray(x, np.int64).tobytes() for x in (matrix.shape, matrix.indptr, matrix.indices))
    return [*places, matrix.data.tobytes()]
