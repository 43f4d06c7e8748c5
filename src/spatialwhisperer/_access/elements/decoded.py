"""Images of which dask can only compute the whole: they are decoded once, and not again for every part that is read.

So are images that dask-image reads, as spatialdata-io does for the full image of Visium, and images that are stored in one chunk.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from spatialwhisperer._messages import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES = 4 * 2**30
"""Most bytes of decoded images that are kept, of all together; the image that was read last is one of them."""

_KEEPING = threading.Lock()


class WholePixels:
    """An image of shape (channel, y, x) that is decoded when it is first read, and kept from then on.

    It is decoded again where others were read since, and all of them are more than is kept.

    Parameters
    ----------
    array
        The image as a dask array.

    Attributes
    ----------
    shape, dtype, ndim, nbytes
        As of an array.
    """

    ndim = 3

    def __init__(self, array: Any) -> None:
        self.shape, self.dtype, self.nbytes = array.shape, array.dtype, int(array.nbytes)
        self._array = array
        self._decoded: np.ndarray | None = None
        self._lock = threading.Lock()

    def __getitem__(self, key: Any) -> np.ndarray:
        with self._lock:
            if self._decoded is None:
                self._decoded = _decode(self._array)
            # a view would keep the whole image in memory after it was forgotten
            part = self._decoded[key].copy()
        _keep(self)
        return part

    def __len__(self) -> int:
        return int(self.shape[0])

    def forget(self) -> None:
        """Free the memory."""
        with self._lock:
            self._decoded = None

    def __getstate__(self) -> dict[str, Any]:
        # another process decodes for itself
        return {**self.__dict__, "_decoded": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


_KEPT: WeakKeyDictionary[WholePixels, None] = WeakKeyDictionary()


def decoded_once(array: Any, name: str) -> Any:
    """The pixels of an image so that they are read fast.

    Parameters
    ----------
    array
        The image, shape (channel, y, x).
    name
        Its name, for the message.

    Returns
    -------
    `WholePixels` where dask would compute the whole image for each part of it, and that is at most `MOST_BYTES`; else the array itself.
    """
    if not computed_as_a_whole(array):
        return array
    if array.nbytes > MOST_BYTES:
        warn(
            f"Image {name!r} takes {array.nbytes / 2**30:.1f} GiB and can only be decoded as a whole, which is done again for every part that is "
            "read: dask-image reads so, for example in spatialdata_io.visium. Read the file with sw.io.read_slide, and put that image into its "
            "place; the page of Visium in the documentation shows how."
        )
        return array
    return WholePixels(array)


def computed_as_a_whole(array: Any) -> bool:
    """Whether dask does one task, such as the decoding of a file, for whatever part of an image is read. What lies in memory does not count."""
    graph = getattr(array, "dask", None)
    single = [layer for layer in getattr(graph, "layers", {}).values() if len(layer) == 1]
    return any(_computes(layer) for layer in single) and not any(_holds(layer, array.nbytes) for layer in single)


def _computes(layer: Mapping[Any, Any]) -> bool:
    from dask.blockwise import Blockwise
    from dask.core import istask

    return isinstance(layer, Blockwise) or istask(next(iter(layer.values())))


def _holds(layer: Mapping[Any, Any], nbytes: int) -> bool:
    """Whether a layer of one value is an array in memory that is as large as the image."""
    from dask.blockwise import Blockwise

    if isinstance(layer, Blockwise):
        return False
    value = next(iter(layer.values()))
    value = getattr(value, "value", value)
    return isinstance(value, np.ndarray) and value.nbytes >= nbytes


def _decode(array: Any) -> np.ndarray:
    import dask.array as da

    out = np.empty(array.shape, array.dtype)
    # in the calling thread: threads of dask do not survive the start of another process
    da.store(array, out, lock=False, scheduler="synchronous")
    return out


def _keep(pixels: WholePixels) -> None:
    """Count an image as the one that was read last, and forget others that are too much."""
    with _KEEPING:
        _KEPT.pop(pixels, None)
        _KEPT[pixels] = None
        kept = list(_KEPT)
        while len(kept) > 1 and sum(one.nbytes for one in kept) > MOST_BYTES:
            oldest = kept.pop(0)
            _KEPT.pop(oldest, None)
            oldest.forget()
