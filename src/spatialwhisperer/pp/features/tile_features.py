"""Features of tiles. One thread reads the image block by block while another runs the encoder."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spatialwhisperer._access.tiles.intensity import BlackTiles
from spatialwhisperer._access.tiles.prefetch import batches, prefetch
from spatialwhisperer._access.tiles.sample import image_sample
from spatialwhisperer._compute.batched import batches_of
from spatialwhisperer._compute.devices import devices_of, keeping_copies
from spatialwhisperer._messages import progress
from spatialwhisperer._settings import settings
from spatialwhisperer.encoders.digests import object_digest, unread_part
from spatialwhisperer.encoders.image.base import on_image
from spatialwhisperer.encoders.outputs import encoded, is_foreign
from spatialwhisperer.pp.features.finished_batches import FinishedBatches, kept_until_done

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spatialwhisperer._access.sections.section import Section
    from spatialwhisperer._access.tiles.plan import TilePlan
    from spatialwhisperer.encoders.image.base import ImageEncoder
    from spatialwhisperer.encoders.recipe import EncoderIdentity

_IN_MEMORY_BYTES = 2**30
_WHITE = 255
_BATCHES_OF_A_GPU = 4


def embed_tiles(
    plan: TilePlan,
    encoder: ImageEncoder,
    tile_ums: Sequence[float],
    tile_px: int,
    *,
    whole: bool,
    batch_size: int | None = None,
    device: str | None = None,
    identity: EncoderIdentity | None = None,
    looks: dict[str, tuple[float, ...]] | None = None,
    native: bool = False,
) -> np.ndarray:
    """Compute the features of each tile size, joined column-wise, float32, shape (n, sizes * d).

    Batches that an earlier, interrupted call had finished are not computed again.

    Parameters
    ----------
    plan
        Where the tiles are.
    encoder
        The encoder.
    tile_ums, tile_px
        Edges of the tiles in microns, and their common edge in pixels.
    whole
        Set rows to NaN whose tile of the first size crosses the edge of the image. Tiles of the other sizes are always filled up.
    batch_size, device
        Tiles in one forward pass and torch device; ``None`` takes those of the settings.
    identity
        Identity of the encoder, by which batches of an interrupted call are found again; ``None`` keeps none.
    looks
        Gets what the encoder saw of the image of each section, where it looks at images.
    native
        Take pixels of the image as they are, whatever their size in microns.

    Raises
    ------
    ValueError
        If the encoder does not return one row per tile, or no tile lies inside its image.
    """
    options: dict[str, Any] = {
        "batch_size": settings.batch_size if batch_size is None else batch_size,
        "device": device,
        "identity": identity,
        "blacks": [],
    }
    with kept_until_done(), keeping_copies():
        encoders = _by_image(plan, encoder)
        if looks is not None:
            looks |= {s.name: one.encoder.look for one in encoders for s in one.sections if one.encoder.look}
        if native:
            # microns per pixel are those of each section
            encoders = [image._replace(sections=[section]) for image in encoders for section in image.sections]
            parts = [_features(plan, encoders, None, tile_px, whole=whole, **options)]
        else:
            sizes = enumerate(tile_ums)
            parts = [_features(plan, encoders, um, tile_px, whole=whole and not i, **options) for i, um in sizes]
    # one warning for all sizes of tiles
    max(options["blacks"], key=lambda one: one.black).report()
    first, *others = parts
    if not others:
        return first
    out = np.concatenate([first, *others], axis=1)
    if whole:
        out[np.isnan(first).all(axis=1)] = np.nan
    return out


def read_tiles(plan: TilePlan, tile_um: float, tile_px: int) -> np.ndarray:
    """Read the tile of each row, to train an encoder or to draw the tiles.

    Parameters
    ----------
    plan
        Where the tiles are.
    tile_um, tile_px
        Edge of a tile in microns and in pixels.

    Returns
    -------
    Tiles in the order of the table, uint8, shape (n, 3, tile_px, tile_px); white (255) outside the image. An array above 1 GiB is
    kept in a temporary file, which is removed with the array.
    """
    out, black = _blank_tiles((plan.slide.n_rows, 3, tile_px, tile_px)), BlackTiles()
    with _bar(plan, "reading tiles") as bar:
        for rows, tiles in plan.read(tile_um, tile_px):
            out[rows] = tiles
            black.look(rows, tiles)
            bar.update(len(rows))
    black.check()
    black.report()
    if plan.off.any():
        out[plan.off] = _WHITE
    return out


class _OnImage(NamedTuple):
    """An encoder after a look at an image, what identifies what it saw, and the sections on that image."""

    encoder: ImageEncoder
    seen: str | None
    sections: list[Section]


def _by_image(plan: TilePlan, encoder: ImageEncoder) -> list[_OnImage]:
    if not encoder.looks_at_image:
        return [_OnImage(encoder, None, list(plan.sections))]
    by_image: dict[tuple[int, float | None], list[Section]] = {}
    for section in plan.sections:
        by_image.setdefault((id(section.image), section.mpp), []).append(section)
    out = []
    for sections in by_image.values():
        sample, mpp = image_sample(sections[0])
        bound = on_image(encoder, sample, mpp=mpp)
        out.append(_OnImage(bound, object_digest(bound), sections))
    return out


def _features(
    plan: TilePlan,
    encoders: Sequence[_OnImage],
    tile_um: float | None,
    tile_px: int,
    *,
    whole: bool,
    batch_size: int,
    device: str | None,
    identity: EncoderIdentity | None,
    blacks: list[BlackTiles],
) -> np.ndarray:
    out, black = None, BlackTiles()
    name = encoders[0].encoder.spec.name
    size = f"{tile_px} px" if tile_um is None else f"{tile_um:g} um"
    with _bar(plan, f"embedding tiles of {size} ({name})") as bar:
        for image in encoders:
            mpp = image.sections[0].mpp or 1.0 if tile_um is None else tile_um / tile_px
            encode = _encode(image, mpp, device, identity, batch_size)
            pieces = plan.read(tile_um, tile_px, whole=whole, sections=image.sections)
            at_a_time = batch_size * _batches_at_a_time(image.encoder, device)
            with closing(prefetch(batches(pieces, at_a_time))) as ready:
                for rows, tiles in ready:
                    black.look(rows, tiles)
                    features = encode(tiles)
                    if out is None:
                        out = np.full((plan.slide.n_rows, features.shape[1]), np.nan, np.float32)
                    if features.shape[1] != out.shape[1]:
                        raise ValueError(
                            f"Encoder {name!r} returned {features.shape[1]} columns for some tiles and {out.shape[1]} for others."
                        )
                    out[rows] = features
                    bar.update(len(rows))
    if out is None:
        raise ValueError(
            f"No tile of {size} lies inside its image. Take smaller tiles with tile_um=…, or fill them up with "
            "border='pad'."
        )
    black.check()
    blacks.append(black)
    return out


def _batches_at_a_time(encoder: ImageEncoder, device: str | None) -> int:
    """Batches that an encoder gets in a call: several for each GPU, so that one is copied while another is computed."""
    name = settings.resolve_device(device)
    if not name.startswith("cuda") or is_foreign(encoder) or not encoder.in_batches:
        return 1
    return _BATCHES_OF_A_GPU * len(devices_of(name))


def _encode(
    image: _OnImage, mpp: float, device: str | None, identity: EncoderIdentity | None, batch_size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """The features of one or several batches of tiles, found again where an interrupted call had finished them."""
    encoder = image.encoder

    def encode(tiles: np.ndarray) -> np.ndarray:
        with batches_of(batch_size):
            return encoded(encoder, tiles, mpp=mpp, device=device)

    if identity is None or identity.unread or unread_part(image.seen):
        return encode
    finished = FinishedBatches(identity, mpp=mpp, device=settings.resolve_device(device), image=image.seen)
    return lambda tiles: finished.features(tiles, encode)


def _bar(plan: TilePlan, desc: str) -> Any:
    return progress(total=int((~plan.off).sum()), desc=desc, unit="tile")


def _blank_tiles(shape: tuple[int, ...]) -> np.ndarray:
    if int(np.prod(shape)) <= _IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    from tempfile import TemporaryFile

    # the map keeps the unnamed file alive, and the system removes it with the map
    with TemporaryFile(prefix="spatialwhisperer-tiles-") as file:
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
