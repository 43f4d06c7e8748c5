"""Images that are odd or damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.torture.damage.kinds import Damage
from tests.torture.objects import GRID, SDATA, VISIUM

if TYPE_CHECKING:
    from collections.abc import Callable

LINKED = (SDATA, GRID)
IMAGED = (SDATA, VISIUM, GRID)


def _is_table(data: Any) -> bool:
    return hasattr(data, "obs")


def pixels(made: Callable[[np.ndarray], Any], **options: Any) -> Callable[[Any], None]:
    """Replace the image, made of an array of shape (c, y, x)."""

    def change(data: Any) -> None:
        if _is_table(data):
            images = data.uns["spatial"]["P1"]["images"]
            images["fullres"] = np.moveaxis(np.asarray(made(np.moveaxis(images["fullres"], -1, 0))), 0, -1)
            del images["hires"]
        else:
            _replace(data, made(_array(data)), **options)

    return change


def _array(data: Any) -> np.ndarray:
    return data.images["P1_image"]["scale0"]["image"].to_numpy()


def _replace(data: Any, array: Any, **options: Any) -> None:
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import get_transformation

    systems = get_transformation(data.images["P1_image"], get_all=True)
    data.images["P1_image"] = Image2DModel.parse(array, dims=("c", "y", "x"), transformations=systems, **options)


def _failing(array: np.ndarray) -> Any:
    import dask.array as da

    def damaged(_: Any) -> None:
        raise OSError("a chunk is damaged")

    return da.map_blocks(damaged, da.from_array(array), dtype=array.dtype, meta=np.empty((0, 0, 0), array.dtype))


def _one_failing_chunk(array: np.ndarray) -> Any:
    import dask.array as da

    def damaged(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info and block_info[0]["chunk-location"] == (0, 1, 1):
            raise RuntimeError("a checksum is wrong")
        return block

    return da.map_blocks(damaged, da.from_array(array, chunks=(3, 200, 200)), dtype=array.dtype)


def _wrong_size(array: np.ndarray) -> Any:
    import dask.array as da

    shrunk = da.map_blocks(lambda b: b[:, :-1], da.from_array(array), dtype=array.dtype, chunks=array.shape)
    return shrunk


def _holed(array: np.ndarray) -> np.ndarray:
    out = array.copy()
    out[:, 200:400, 200:400] = 0
    return out


def _as_float(value: Any = None) -> Callable[[np.ndarray], np.ndarray]:
    def made(array: np.ndarray) -> np.ndarray:
        out = array.astype(np.float32) / 255
        if value is not None:
            out[:, 300:310, 300:310] = value
        return out

    return made


def levels(changed: int, made: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], None]:
    """Damage one level of the pyramid alone: 0 is the finest."""

    def change(data: Any) -> None:
        import dask.array as da

        tree = data.images["P1_image"].copy(deep=True)
        array = tree[f"scale{changed}"]["image"]
        array.data = da.from_array(made(array.to_numpy()), chunks=(3, 128, 128))
        data.images.data["P1_image"] = tree

    return change


def _odd_levels(data: Any) -> None:
    array = _array(data)
    _replace(data, array, scale_factors=[3, 5])


def _with_channels(data: Any) -> None:
    _replace(data, _array(data), c_coords=["DAPI", "CD3", "CD8"])


def _without_image(data: Any) -> None:
    del data.images["P1_image"]


def _another_image(data: Any) -> None:
    data.images["again"] = data.images["P1_image"].copy()


def library_image(value: Callable[[np.ndarray], Any]) -> Callable[[Any], None]:
    """Replace what a library of an AnnData holds, whatever its shape."""

    def change(data: Any) -> None:
        images = data.uns["spatial"]["P1"]["images"]
        made = value(images["fullres"])
        images.clear()
        images["fullres"] = made

    return change


DAMAGES = [
    Damage("image: none", _without_image, LINKED),
    Damage("image: one channel", pixels(lambda a: a[:1]), IMAGED),
    Damage("image: two channels", pixels(lambda a: a[:2]), IMAGED),
    Damage("image: four channels", pixels(lambda a: np.concatenate([a, a[:1] * 0 + 255])), IMAGED, harmless=True),
    Damage("image: five channels", pixels(lambda a: np.concatenate([a, a[:2]])), IMAGED),
    Damage("image: no channel", pixels(lambda a: a[:0]), (VISIUM,)),
    Damage("image: 12-bit", pixels(lambda a: a.astype(np.uint16) * 16), IMAGED),
    Damage("image: 16-bit", pixels(lambda a: a.astype(np.uint16) * 257), IMAGED, harmless=True),
    Damage("image: int64", pixels(lambda a: a.astype(np.int64)), IMAGED),
    Damage("image: int16, negative", pixels(lambda a: -a.astype(np.int16)), IMAGED),
    Damage("image: Boolean", pixels(lambda a: a > 100), IMAGED),
    Damage("image: complex", pixels(lambda a: a.astype(np.complex64)), IMAGED),
    Damage("image: float", pixels(_as_float()), IMAGED, harmless=True),
    Damage("image: float16", pixels(lambda a: (a / 255).astype(np.float16)), IMAGED),
    Damage("image: float, 0 to 255", pixels(lambda a: a.astype(np.float32)), IMAGED),
    Damage("image: float, negative", pixels(_as_float(-1.0)), IMAGED),
    Damage("image: float, some NaN", pixels(_as_float(np.nan)), IMAGED),
    Damage("image: float, infinite", pixels(_as_float(np.inf)), IMAGED),
    Damage("image: NaN", pixels(lambda a: np.full(a.shape, np.nan)), IMAGED),
    Damage("image: black", pixels(lambda a: a * 0), IMAGED),
    Damage("image: white", pixels(lambda a: a * 0 + 255), IMAGED),
    Damage("image: one grey", pixels(lambda a: a * 0 + 128), IMAGED),
    Damage("image: dark", pixels(lambda a: a // 8), IMAGED),
    Damage("image: a black part", pixels(_holed), IMAGED),
    Damage("image: one pixel", pixels(lambda a: a[:, :1, :1]), IMAGED),
    Damage("image: one row of pixels", pixels(lambda a: a[:, :1]), IMAGED),
    Damage("image: a corner", pixels(lambda a: a[:, :200, :200]), IMAGED),
    Damage("image: column-major", pixels(np.asfortranarray), IMAGED, harmless=True),
    Damage("image: reversed strides", pixels(lambda a: a[::-1, ::-1, ::-1]), IMAGED),
    Damage("image: every chunk fails", pixels(_failing), LINKED),
    Damage("image: one chunk fails", pixels(_one_failing_chunk), LINKED),
    Damage("image: chunks of another size", pixels(_wrong_size), LINKED),
    Damage("image: finest level black", levels(0, lambda a: a * 0), LINKED),
    Damage("image: a part of the finest level black", levels(0, _holed), LINKED),
    Damage("image: coarsest level black", levels(1, lambda a: a * 0), LINKED),
    Damage("image: coarsest level is int64", levels(1, lambda a: a.astype(np.int64)), LINKED),
    Damage("image: odd levels", _odd_levels, LINKED),
    Damage("image: named channels", _with_channels, LINKED, harmless=True),
    Damage("image: two that fit", _another_image, LINKED),
    Damage("image: two dimensions", library_image(lambda a: a[..., 0]), (VISIUM,)),
    Damage("image: channels first", library_image(lambda a: np.moveaxis(a, -1, 0)), (VISIUM,)),
    Damage("image: zero size", library_image(lambda a: a[:0]), (VISIUM,)),
    Damage("image: None", library_image(lambda _: None), (VISIUM,)),
    Damage("image: nested lists", library_image(lambda a: a[:64, :64].tolist()), (VISIUM,)),
    Damage("image: words", library_image(lambda _: np.full((9, 9, 3), "a")), (VISIUM,)),
    Damage("image: objects", library_image(lambda a: a.astype(object)), (VISIUM,)),
    Damage("image: read only", library_image(lambda a: _read_only(a)), (VISIUM,), harmless=True),
]


def _read_only(array: np.ndarray) -> np.ndarray:
    out = array.copy()
    out.flags.writeable = False
    return out
