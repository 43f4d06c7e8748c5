"""Which models there are: those that open by name, and those that were saved in a folder. Nothing is opened or fetched to tell."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._artifact.layout import CONFIG, TENSORS, kind_of
from spatialwhisperer._artifact.verify import stated_config
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import listing, warn
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.catalogue import encoder_class, get_spec
from spatialwhisperer.encoders.hub import HUB, Wanted, in_cache
from spatialwhisperer.encoders.published.table import paired
from spatialwhisperer.models.configuration.model import ModelConfig
from spatialwhisperer.models.published.names import (
    DOWNLOAD_MB,
    FILE,
    GENE,
    IMAGE,
    LICENCE,
    PUBLISHED,
    TEXT,
    TRAINED_ON,
    image_text_names,
)
from spatialwhisperer.models.sharing.licences import Part, parts_of
from spatialwhisperer.models.store import EMBEDDED, embedded_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from spatialwhisperer.models.sharing.licences import Held

_MODALITIES = ("image", "gene", "text")
_COLUMNS = (
    "description",
    "trained_on",
    "modalities",
    *_MODALITIES,
    "licence",
    "commercial",
    "gated",
    "download_mb",
    "here",
)
_LAST = ("missing", "place")
_NAMED = 8


@checked
def list_models(folder: str | Path | None = None) -> pd.DataFrame:
    """Table of the models that open by name, or of those that were saved in a folder.

    Nothing is downloaded, and no weights are read. The names are for :func:`load` and for the ``model=`` of every call.

    Parameters
    ----------
    folder
        Folder with saved models: itself one, or with models in its subfolders and theirs, as training leaves them. ``None`` lists the
        models that open by name.

    Returns
    -------
    One row per model, indexed by name, or by the path in the folder:

    - ``description``, ``trained_on``: what it is, and the data of its training, in words;
    - ``modalities``, and the encoders of ``image``, ``gene`` and ``text``; empty where it has none;
    - ``licence``: of its own weights and of every encoder; ``commercial``: whether all of them allow commercial use, NA where that is not
      known; ``gated``: whether weights of a part must be requested from their authors;
    - ``download_mb``: size of its own files in megabytes (10⁶ bytes) where it is published, NA where it is not known;
    - ``here``: whether it opens without a download; ``missing``: encoders whose weights must be downloaded before they compute features;
    - ``place``: page or folder.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.

    Examples
    --------
    >>> import spatialwhisperer as sw
    >>> bool(sw.models.list_models().loc["her2st-mini", "here"])
    True
    """
    import pandas as pd

    rows = _named() if folder is None else _saved(Path(folder).expanduser())
    table = pd.DataFrame(list(rows), columns=["name", *_COLUMNS, *_LAST]).set_index("name")
    return table.astype({"commercial": "boolean", "download_mb": "Float64", "gated": bool, "here": bool})


# --------------------------------------------------------------------------------------------- by name


def _named() -> Iterator[dict[str, Any]]:
    if os.path.isfile(embedded_folder() / CONFIG):
        own = "BSD-3-Clause (part of the package)"
        row = _of_folder(embedded_folder(), EMBEDDED, own, commercial=True)
        yield row | {"description": f"embedded {row['description']}", "place": "the package"}
    for name in PUBLISHED:
        parts = [Part(m, get_spec(encoder, m), held) for m, encoder, held in _TOWERS]
        address = "" if name == PUBLISHED[0] else ", at another address"
        yield _row(
            name,
            parts,
            description=f"published checkpoint of SpatialWhisperer (ICML 2026){address}",
            trained_on=TRAINED_ON,
            licence=LICENCE,
            commercial=False,
            download_mb=DOWNLOAD_MB,
            here=_checkpoint_is_here(name),
            place=HUB + name,
        )
    texts = {spec.name: spec for spec in paired()}
    for name in image_text_names():
        image = get_spec(name, "image")
        yield _row(
            name,
            [Part("image", image, "no"), Part("text", texts[name], "no")],
            description=f"published model of images and texts, {image.dim} dimensions ({image.citation})",
            here=all(encoder_class(name, modality).is_here(name) for modality in ("image", "text")),
            place=image.url,
        )


_TOWERS: tuple[tuple[str, str, Held], ...] = (("image", IMAGE, "no"), ("gene", GENE, "no"), ("text", TEXT, "trained"))


def _checkpoint_is_here(name: str) -> bool:
    if in_cache(name, Wanted(weights=(FILE,), others=())) is not None:
        return True
    place = settings.cache_dir / "published"
    # the record tells which of the converted ones, if any, came from this name
    return (place / f"{name.replace('/', '--')}.json").is_file() and any(place.glob(f"spatialwhisperer-*/{CONFIG}"))


# --------------------------------------------------------------------------------------------- in a folder


def _saved(folder: Path) -> Iterator[dict[str, Any]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder} to look for saved models in.")
    patterns = (CONFIG, f"*/{CONFIG}", f"*/*/{CONFIG}")
    for path in sorted(path.parent for pattern in patterns for path in folder.glob(pattern)):
        name = path.relative_to(folder).as_posix() if path != folder else path.resolve().name
        if name.startswith(".") or kind_of(path) != "model":
            continue
        try:
            yield _of_folder(path, name, "", commercial=None)
        except (OSError, ValueError) as error:
            warn(f"{path} is left out, because it cannot be read: {error}")


def _of_folder(folder: Path, name: str, licence: str, *, commercial: bool | None) -> dict[str, Any]:
    """Row of a saved model, read from its configuration alone."""
    config = ModelConfig.from_json(stated_config(folder, "model"))
    stored = [m for m in config.modalities if os.path.isfile(folder / f"{m}_encoder" / TENSORS)]
    card, training = config.card, config.training
    licence = licence or (card.licence if card is not None else "")
    what = "model" if training is None else f"model, preset {training.preset}"
    return _row(
        name,
        parts_of(config, stored),
        modalities=sorted(config.modalities, key=lambda m: (_MODALITIES.index(m) if m in _MODALITIES else 3, m)),
        description=f"{what}: {card.tissue}" if card is not None else what,
        trained_on=_trained_on(config),
        licence=licence,
        commercial=commercial,
        download_mb=0.0,
        here=True,
        place=str(folder),
    )


def _trained_on(config: ModelConfig) -> str:
    card, training = config.card, config.training
    said = [] if card is None else [card.data]
    if training is not None:
        said.append(", ".join(f"{n:,} {pair} pairs" for pair, n in training.pairs.items()))
        said.append(f"{len(training.groups)} groups: {listing(training.groups, _NAMED)}")
        if training.sections:
            said.append(f"{len(training.sections)} sections: {listing(training.sections, _NAMED)}")
    return "; ".join(said)


# --------------------------------------------------------------------------------------------- rows


def _row(
    name: str,
    parts: Sequence[Part],
    *,
    description: str,
    place: str,
    here: bool,
    modalities: Sequence[str] = (),
    trained_on: str = "",
    licence: str | None = None,
    commercial: bool | None = True,
    download_mb: float | None = None,
) -> dict[str, Any]:
    """One row; ``licence`` is that of weights which belong to none of the encoders, ``None`` where there are none."""
    encoders = {part.modality: part.spec.name for part in parts}
    shared: dict[tuple[str, str], list[str]] = {}
    for part in parts:
        shared.setdefault((part.spec.name, part.spec.licence), []).append(part.modality)
    licences = [f"{' and '.join(of)} encoder {encoder}: {stated}" for (encoder, stated), of in shared.items()]
    allowed = [commercial, *(part.spec.commercial for part in parts)]
    own = [] if licence is None else [f"weights: {licence or 'not stated'}"]
    return {
        "name": name,
        "description": description,
        "trained_on": trained_on,
        "modalities": ", ".join(modalities or encoders),
        **{modality: encoders.get(modality, "") for modality in _MODALITIES},
        "licence": "; ".join([*own, *licences]),
        "commercial": False if False in allowed else None if None in allowed else True,
        "gated": any(part.spec.gated for part in parts if part.held == "no"),
        "download_mb": download_mb,
        "here": here,
        "missing": ", ".join(dict.fromkeys(p.spec.name for p in parts if p.held == "no" and not _is_here(p))),
        "place": place,
    }


def _is_here(part: Part) -> bool:
    try:
        return encoder_class(part.spec.name, part.modality).is_here(part.spec.name)
    except ValueError:
        # one that the caller must give
        return False
