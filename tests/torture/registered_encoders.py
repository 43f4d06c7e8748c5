"""Rows of the table: encoders of callers that are registered wrongly, or that do what encoders must not do.

Each ends in an own error, and the object is what it was; where the fault is none for what was asked, the result is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import spatialwhisperer as sw
from spatialwhisperer.encoders.registry import ENTRIES
from tests.torture.frame import Campaign, Trial
from tests.torture.judge import judged
from tests.torture.objects import COUNTS, SDATA, VISIUM, fresh
from tests.torture.odd import ODD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "torture"
HOW: dict[str, Any] = {"tile_um": 80, "tile_px": 32}


def _raises(*_: Any) -> Any:
    raise LookupError("no weights")


def _asserts(*_: Any) -> Any:
    raise AssertionError


def _first(inputs: Any, features: np.ndarray) -> Any:
    """Change the inputs in place."""
    if isinstance(inputs, list):
        inputs.reverse()
    elif hasattr(inputs, "tocsr"):
        inputs.data += 1
    else:
        inputs += 1
    return features


def _nan_in_one(_: Any, features: np.ndarray) -> Any:
    features[-1, 0] = np.nan
    return features


FAULTS: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "raises": _raises,
    "asserts": _asserts,
    "divides by zero": lambda *_: 1 / 0,
    "changes its inputs": _first,
    "a row less": lambda _, x: x[1:],
    "a row more": lambda _, x: np.concatenate([x, x[:1]]),
    "no rows": lambda _, x: x[:0],
    "a column less": lambda _, x: x[:, 1:],
    "a column more": lambda _, x: np.concatenate([x, x[:, :1]], axis=1),
    "columns of the number of rows": lambda _, x: np.ones((len(x), len(x) + 5)),
    "no columns": lambda _, x: x[:, :0],
    "one axis": lambda _, x: x.ravel(),
    "three axes": lambda _, x: x[None],
    "transposed": lambda _, x: x.T,
    "NaN in one row": _nan_in_one,
    "infinite": lambda _, x: x + np.inf,
    "too large for float32": lambda _, x: (x + 1.0) * 1e300,
    "complex": lambda _, x: x + 1j,
    "text": lambda _, x: x.astype(str),
    "objects": lambda _, x: x.astype(object),
    "dates": lambda _, x: x.astype("datetime64[s]"),
    "a list of lists of other lengths": lambda _, x: [[1.0] * (i + 1) for i in range(len(x))],
    "an iterator": lambda _, x: iter(x),
    "a dictionary": lambda _, x: {"features": x},
}
"""What ``encode`` does to its inputs, or returns in the place of right features."""


class _Images(sw.models.ImageEncoder):
    fault: Any = None

    def encode(self, inputs: Any, **_: Any) -> Any:
        return type(self).fault(inputs, inputs.mean(axis=(2, 3)).astype(np.float64))


class _Texts(sw.models.TextEncoder):
    fault: Any = None

    def encode(self, inputs: Any, **_: Any) -> Any:
        return type(self).fault(inputs, np.array([[len(t), t.count("a"), 1.0] for t in inputs]))


class _Genes(sw.models.GeneEncoder):
    fault: Any = None
    fits = False

    def __init__(self) -> None:
        super().__init__(["GENE0001", "GENE0002", "GENE0003"])

    @property
    def dim(self) -> int:
        return 3

    def encode_counts(self, counts: Any, *_: Any) -> Any:
        return type(self).fault(counts, counts.toarray().astype(np.float64))


def _by_images(data: Any) -> None:
    sw.pp.embed_images(data, encoder=NAME, **HOW)


def _by_genes(data: Any) -> None:
    sw.pp.embed_genes(data, NAME)


def _by_texts(_: Any) -> None:
    sw.pp.embed_texts(["a fat cell", "b"], encoder=NAME)


KINDS: dict[str, tuple[type, Callable[[Any], None], tuple[str, ...]]] = {
    "image": (_Images, _by_images, (SDATA, VISIUM)),
    "gene": (_Genes, _by_genes, (SDATA, COUNTS)),
    "text": (_Texts, _by_texts, (COUNTS,)),
}


def trials(rng: np.random.Generator, n: int) -> Iterator[Trial]:
    """Faults of each kind of encoder in turn, and odd values in each place of the registration."""
    places = [*((kind, fault) for kind in KINDS for fault in FAULTS), *(("registration", p) for p in _REGISTRATIONS)]
    left: list[tuple[str, str]] = []
    for _ in range(n):
        left = left or [places[i] for i in rng.permutation(len(places))]
        kind, what = left.pop()
        before = dict(ENTRIES)
        try:
            if kind == "registration":
                yield _registered_with(what, list(ODD)[rng.integers(len(ODD))])
            else:
                yield _encoded_by(kind, what, rng)
        finally:
            ENTRIES.clear()
            ENTRIES.update(before)


def _encoded_by(kind: str, what: str, rng: np.random.Generator) -> Trial:
    base, use, objects = KINDS[kind]
    made = type(base.__name__, (base,), {"fault": staticmethod(FAULTS[what])})
    sw.models.register_encoder(sw.models.EncoderSpec(NAME, kind, 3), overwrite=True)(made)
    data = fresh(objects[rng.integers(len(objects))])
    trial, _ = judged(f"{kind} encoder, {what}", lambda d: use(d), data, {}, writes=("obsm[X_torture", "var["))
    harmless = kind != "image" and what == "NaN in one row"
    if trial.outcome == "accepted" and not trial.failure and not harmless:
        return Trial("accepted", f"{kind} encoder, {what}: accepted")
    return trial


def _specs(value: Any) -> None:
    sw.models.register_encoder(value)(_Images)


def _class(value: Any) -> None:
    sw.models.register_encoder(sw.models.EncoderSpec(NAME, "image", 3))(value)


def _overwrite(value: Any) -> None:
    sw.models.register_encoder(sw.models.EncoderSpec(NAME, "image", 3), overwrite=value)(_Images)


def _name(value: Any) -> None:
    sw.models.register_encoder(sw.models.EncoderSpec(value, "image", 3))(_Images)


def _modality(value: Any) -> None:
    sw.models.register_encoder(sw.models.EncoderSpec(NAME, value, 3))(_Images)


def _dim(value: Any) -> None:
    sw.models.register_encoder(sw.models.EncoderSpec(NAME, "image", value))(_Images)


_REGISTRATIONS: dict[str, Callable[[Any], None]] = {
    "specs": _specs,
    "class": _class,
    "overwrite": _overwrite,
    "name": _name,
    "modality": _modality,
    "dim": _dim,
}


def _registered_with(what: str, value: str) -> Trial:
    before = dict(ENTRIES)
    trial, _ = judged(f"register_encoder, {what}={value}", lambda _: _REGISTRATIONS[what](ODD[value]()), None, {})
    if trial.outcome == "own error" and before != ENTRIES:
        return Trial("own error", f"register_encoder, {what}={value}: registered after an error")
    return trial


CAMPAIGN = Campaign("encoders of callers", trials, bounded=78, long=312)
