"""What encoders of callers compute is looked at before it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from spatialwhisperer.encoders.outputs import encoded, features_of, is_foreign, opened
from spatialwhisperer.models import EncoderSpec, ImageEncoder, image_encoder

TILES = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)


class Means(ImageEncoder):
    """Mean colours, changed by a function before they are returned."""

    spec = EncoderSpec("means", "image", 3)

    def __init__(self, change: Any = None) -> None:
        self.change = change or (lambda _, features: features)

    def encode(self, inputs: Any, **_: Any) -> Any:
        return self.change(inputs, np.asarray(inputs).reshape(len(inputs), 3, -1).mean(axis=2))


def test_features_are_float32_whatever_numbers_they_were() -> None:
    expected = TILES.reshape(2, 3, -1).mean(axis=2).astype(np.float32)
    for dtype in (np.float64, np.float16, np.int64):
        found = encoded(Means(lambda _, x, dtype=dtype: x.astype(dtype)), TILES, mpp=1.0)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.astype(dtype))
    assert np.array_equal(encoded(Means(lambda _, x: torch.from_numpy(x)), TILES), expected)
    assert np.array_equal(encoded(Means(lambda _, x: x.tolist()), TILES), expected)


def fails(inputs: Any, features: Any) -> Any:  # noqa: ARG001
    raise KeyError("weights")


def changes(inputs: Any, features: Any) -> Any:
    inputs[0] = 0
    return features


def infinite(inputs: Any, features: Any) -> Any:  # noqa: ARG001
    return np.where(np.arange(2)[:, None] == 1, np.inf, features)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (fails, ValueError, r"'means' failed in encode: KeyError: 'weights'\. Call it by itself"),
        (changes, ValueError, r"'means' changes its inputs.*inputs\.copy"),
        (infinite, ValueError, r"NaN or infinite values in 1 of 2 rows"),
        (lambda _, x: x * np.nan, ValueError, r"NaN or infinite values in 2 of 2 rows"),
        (lambda _, x: x * 1e300, ValueError, r"NaN or infinite values in 2 of 2 rows"),
        (lambda _, x: x[:1], ValueError, r"shape \(1, 3\) for 2 inputs; expected \(2, d\)"),
        (lambda _, x: x[0], ValueError, r"shape \(3,\) for 2 inputs"),
        (lambda _, x: x[:, :0], ValueError, r"shape \(2, 0\) for 2 inputs"),
        (lambda _, x: x[:, :2], ValueError, r"returned 2 columns, and its EncoderSpec says dim=3"),
        (lambda _, x: x + 1j, TypeError, r"ndarray of type complex128, not of real numbers"),
        (lambda _, x: x.astype(str), TypeError, r"not of real numbers"),
        (lambda *_: None, TypeError, r"NoneType of type object"),
        (lambda *_: [[1], [1, 2]], TypeError, r"list that is no array of numbers"),
        (lambda _, x: torch.nn.Parameter(torch.from_numpy(x)), TypeError, r"Parameter that is no array"),
    ],
)
def test_what_cannot_be_features_is_refused(change: Any, kind: type[Exception], message: str) -> None:
    given = TILES.copy()
    with pytest.raises(kind, match=message):
        encoded(Means(change), given)
    assert np.array_equal(given, TILES)


def test_texts_and_sparse_counts_are_copied_too() -> None:
    texts = ["ab", "abc"]
    with pytest.raises(ValueError, match="changes its inputs"):
        encoded(_Lengths(), texts)
    assert texts == ["ab", "abc"]
    counts = sp.csr_matrix(np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match="changes its inputs"):
        encoded(_Doubles(), counts)
    assert counts.data.tolist() == [1, 1, 1]


class _Lengths(Means):
    def encode(self, inputs: Any, **_: Any) -> Any:
        inputs.sort(key=len, reverse=True)
        return [[len(text)] * 3 for text in inputs]


class _Doubles(Means):
    def encode(self, inputs: Any, **_: Any) -> Any:
        inputs.data *= 2
        return inputs.toarray()


def test_whole_rows_of_nan_stand_for_inputs_without_features_where_there_may_be_some() -> None:
    empty = Means(lambda _, x: np.where(np.arange(2)[:, None] == 1, np.nan, x))
    assert np.isnan(encoded(empty, TILES, absent_rows=True)).any(axis=1).tolist() == [False, True]
    part = Means(lambda _, x: np.where(np.eye(2, 3) == 1, np.nan, x))
    with pytest.raises(ValueError, match="in 2 of 2 rows"):
        encoded(part, TILES, absent_rows=True)


def test_a_lack_of_memory_stays_what_it_is() -> None:
    def full(*_: Any) -> Any:
        raise MemoryError

    with pytest.raises(MemoryError):
        encoded(Means(full), TILES)


def test_encoders_of_the_package_are_called_as_they_are() -> None:
    own = image_encoder("stain_texture")
    assert not is_foreign(own)
    assert is_foreign(Means())
    assert is_foreign(image_encoder(type("Given", (), {"spec": Means.spec, "encode": Means().encode})()))
    with pytest.raises(TypeError, match="uint8"):
        encoded(own, TILES.astype(float), mpp=1.0)


def test_rows_are_counted_as_they_are_asked_for() -> None:
    assert features_of("a", [[1, 2]], 1).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match=r"\(1, 2\) for 2 inputs"):
        features_of("a", [[1, 2]], 2)


def test_an_open_that_fails_says_why() -> None:
    class Broken(Means):
        @classmethod
        def open(cls, name: str, **_: Any) -> Any:
            raise OSError(f"no {name}")

    with pytest.raises(OSError, match="Encoder 'x' failed in open: OSError: no x"):
        opened("x", Broken)
    assert type(opened("means", Means)) is Means
