"""A class with one decorator is an encoder that everybody knows by name."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest

import spatialwhisperer as sw
from spatialwhisperer.encoders.registry import ENTRIES, register_encoder, registered
from spatialwhisperer.models import EncoderSpec, GeneEncoder, ImageEncoder, TextEncoder

pytestmark = pytest.mark.usefixtures("own_registry")


def of_images(dim: int = 3) -> type[ImageEncoder]:
    class Mean(ImageEncoder):
        def encode(self, inputs: np.ndarray, **_: Any) -> np.ndarray:
            return inputs.mean(axis=(2, 3)).astype(np.float32)[:, :dim]

    return Mean


def test_a_decorated_class_is_listed_opened_and_known_by_its_facts() -> None:
    spec = EncoderSpec("mine", "image", 3, tile_um=100.0, licence="MIT")
    mine = register_encoder(spec)(of_images())
    assert mine.spec == spec
    assert mine.names == {"mine"}
    assert registered("mine", "image") == spec == sw.models.get_spec("mine")
    assert sw.models.list_encoders("image").loc["mine", "licence"] == "MIT"
    opened = sw.models.image_encoder("mine")
    assert type(opened) is mine
    assert opened.identity == sw.models.EncoderIdentity("mine")
    assert opened.encode(np.full((2, 3, 4, 4), 7, np.uint8), mpp=1.0).tolist() == [[7] * 3] * 2


def test_an_encoder_of_texts_is_used_by_name() -> None:
    @register_encoder(EncoderSpec("lengths", "text", 1))
    class Lengths(TextEncoder):
        def encode(self, inputs: Any, **_: Any) -> np.ndarray:
            return np.array([[len(text)] for text in inputs], np.float32)

    assert sw.pp.embed_texts(["ab", "abc"], encoder="lengths").tolist() == [[2], [3]]
    with pytest.raises(ValueError, match="pooling and normalize are for transformers; 'lengths' has its own"):
        sw.models.text_encoder("lengths", pooling="mean")
    with pytest.raises(ValueError, match="'lengths' takes none"):
        sw.models.open_encoder("lengths", "text", weights="somewhere")


def test_a_gene_encoder_that_needs_no_fit_is_used_by_name() -> None:
    @register_encoder(EncoderSpec("two_genes", "gene", 2))
    class TwoGenes(GeneEncoder):
        fits = False

        def __init__(self) -> None:
            super().__init__(["A", "B"])

        @property
        def dim(self) -> int:
            return 2

        def encode_counts(self, counts: Any, *_: Any) -> np.ndarray:
            return counts.toarray()

    import anndata as ad
    import pandas as pd

    table = ad.AnnData(np.array([[1.0, 2.0, 3.0]], np.float32), var=pd.DataFrame(index=["B", "C", "A"]))
    sw.pp.embed_genes(table, "two_genes")
    assert np.array_equal(table.obsm["X_two_genes"], [[3.0, 1.0]])


def test_a_class_of_several_names_keeps_its_own_spec_for_each() -> None:
    many = register_encoder(EncoderSpec("a", "image", 1), EncoderSpec("b", "image", 2))(of_images())
    assert many.names == {"a", "b"}
    assert "spec" not in vars(many)
    assert [sw.models.get_spec(n).dim for n in "ab"] == [1, 2]


def test_registering_twice_needs_overwrite() -> None:
    first = register_encoder(EncoderSpec("mine", "image", 8))(of_images())
    with pytest.raises(ValueError, match="image encoder 'mine' is registered already; pass overwrite=True"):
        register_encoder(EncoderSpec("mine", "image", 9))(of_images())
    assert ENTRIES["image", "mine"].make is first
    second = register_encoder(EncoderSpec("mine", "image", 9), overwrite=True)(of_images())
    assert sw.models.get_spec("mine").dim == 9
    # the name is not that of the first class any more
    assert second().identity.by_name
    assert not first().identity.by_name

    # a name belongs to a modality
    register_encoder(EncoderSpec("mine", "text", 1))(of_images())
    assert ENTRIES["image", "mine"].make is second


def test_nothing_is_registered_where_one_of_several_names_is_taken() -> None:
    with pytest.raises(ValueError, match="'resnet18' is registered already"):
        register_encoder(EncoderSpec("new", "image", 1), EncoderSpec("resnet18", "image", 1))(of_images())
    assert registered("new", "image") is None


def test_the_names_of_the_package_are_taken_before_anybody_has_asked_for_them() -> None:
    code = """
        from spatialwhisperer.models import EncoderSpec, ImageEncoder, register_encoder
        class Mine(ImageEncoder):
            def encode(self, inputs, *, mpp, device=None):
                return inputs
        try:
            register_encoder(EncoderSpec("stain_texture", "image", 3))(Mine)
        except ValueError as error:
            print(error)
        register_encoder(EncoderSpec("stain_texture", "image", 3), overwrite=True)(Mine)
        from spatialwhisperer.encoders.catalogue import encoder_class, get_spec
        print(get_spec("stain_texture").dim, encoder_class("stain_texture", "image").__name__)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "'stain_texture' is registered already; pass overwrite=True" in first
    assert second == "3 Mine"


def test_only_facts_and_encoders_are_registered() -> None:
    with pytest.raises(TypeError, match="register_encoder takes EncoderSpec, not str"):
        register_encoder("mine")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="decorates a class of encoders, not"):
        register_encoder(EncoderSpec("mine", "image", 8))(dict)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="decorates a class of encoders, not"):
        register_encoder(EncoderSpec("mine", "image", 8))(of_images()())  # type: ignore[arg-type]


def test_an_encoder_of_another_base_is_told_so_when_it_is_opened() -> None:
    register_encoder(EncoderSpec("odd", "text", 1))(of_images())
    with pytest.raises(TypeError, match="Mean is registered for a modality whose encoders derive from TextEncoder"):
        sw.models.text_encoder("odd")


def test_an_unregistered_class_is_not_known_by_the_name_of_its_parent() -> None:
    parent = register_encoder(EncoderSpec("parent", "image", 3))(of_images())

    class Child(parent):  # type: ignore[misc, valid-type]
        factor = 2

    assert parent().identity == sw.models.EncoderIdentity("parent")
    assert Child().identity.name == "parent"
    assert Child().identity.digest is not None


def test_what_cannot_be_an_encoder_is_refused_where_it_is_registered() -> None:
    spec = EncoderSpec("mine", "image", 3)
    with pytest.raises(ValueError, match=r"one EncoderSpec or more, of different names; found \[\]"):
        register_encoder()
    with pytest.raises(ValueError, match=r"of different names; found \['mine', 'mine'\]"):
        register_encoder(spec, spec)
    with pytest.raises(TypeError, match="overwrite"):
        register_encoder(spec, overwrite="yes")  # type: ignore[arg-type]

    class Abstract(ImageEncoder):
        pass

    with pytest.raises(TypeError, match="Abstract lacks the methods encode"):
        register_encoder(spec)(Abstract)
    assert registered("mine", "image") is None

    class Unfitted(of_images()):  # type: ignore[misc]
        fits = True

    with pytest.raises(TypeError, match="Unfitted has fits=True and no class method fit"):
        register_encoder(spec)(Unfitted)


def test_a_class_that_cannot_be_opened_says_why() -> None:
    class Needs(of_images()):  # type: ignore[misc]
        def __init__(self, size: int) -> None: ...

    register_encoder(EncoderSpec("needs", "image", 3))(Needs)
    with pytest.raises(ValueError, match=r"Encoder 'needs' failed in __init__: TypeError: .*'size'"):
        sw.models.open_encoder("needs", "image")
    register_encoder(EncoderSpec("one", "image", 3), EncoderSpec("two", "image", 3))(of_images())
    with pytest.raises(TypeError, match="'two' has no EncoderSpec after it was opened"):
        sw.models.open_encoder("two", "image")
