"""Facts about an encoder are checked when they are stated."""

from __future__ import annotations

import pytest

from spatialwhisperer.encoders.spec import EncoderSpec


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(ValueError, match="There is no modality 'sound'; there are gene, text, image"):
        EncoderSpec("x", "sound", 3)


def test_half_a_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="gives one of mean and std"):
        EncoderSpec("x", "image", 3, mean=(0.5, 0.5, 0.5))


def test_an_encoder_needs_a_name() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        EncoderSpec("", "image", 3)
