from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import spatialwhisperer as sw
from spatialwhisperer.protocols.__main__ import main
from spatialwhisperer.protocols.ablation import comparison
from spatialwhisperer.protocols.ablation.comparison import train
from spatialwhisperer.protocols.ablation.materials import Sections
from spatialwhisperer.protocols.ablation.variants import BASE, VARIANTS, Images
from spatialwhisperer.protocols.default_model.recipe import TrainingData
from spatialwhisperer.protocols.wordings.generate import Wording

if TYPE_CHECKING:
    from pathlib import Path

BY_NAME = {v.name: v for v in VARIANTS}


def table(n: int, caption: str = "adipose tissue with fat cells") -> ad.AnnData:
    obs = pd.DataFrame({"caption_region": caption, "patient": "X"}, index=[f"r{i}" for i in range(n)])
    return ad.AnnData(np.ones((n, 2), np.float32), obs=obs)


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> Sections:
    """Two sections with an image, one without, and cells; features count how often they are computed."""
    images: Any = {}
    for name in ("A1", "C3"):
        images[name] = {"table": table(4)}
        images[name]["table"].uns["spatialdata_attrs"] = {}
    words = [Wording("fat", "name", "fat"), Wording("no fat", "negation", "fat", ("fat",))]
    made = Sections(TrainingData(images, {"A2": table(3), "D6": table(3)}, table(5), words))
    computed: list[Any] = []

    def embed(section: Any, *, encoder: Any, tile_um: Any, tile_px: Any, inplace: bool) -> np.ndarray:
        computed.append((section["table"].n_obs, encoder, tile_um, tile_px, inplace))
        return np.full((4, 2), tile_um)

    monkeypatch.setattr(sw.pp, "embed_images", embed)
    monkeypatch.setattr(made, "computed", computed, raising=False)
    return made


def test_features_are_computed_once_for_each_encoder_and_size(sections: Sections) -> None:
    first = sections.with_features(Images((100.0, 300.0)))
    second = sections.with_features(Images((300.0,)))
    assert len(sections.computed) == 4  # type: ignore[attr-defined]
    assert np.asarray(sections.tables["A1"].obsm[first]).tolist() == [[100, 100, 300, 300]] * 4
    assert np.asarray(sections.tables["C3"].obsm[second]).tolist() == [[300, 300]] * 4
    stained = sections.with_features(Images((300.0,), "as stained"))
    assert len(sections.computed) == 6  # type: ignore[attr-defined]
    assert not sections.computed[-1][1].looks_at_image  # type: ignore[attr-defined]
    assert len({first, second, stained}) == 3


def test_a_row_is_trained_on_what_it_says(sections: Sections, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[Any], SimpleNamespace]] = []

    def fit(data: list[Any], **options: Any) -> Any:
        calls.append((data, SimpleNamespace(**options)))
        return SimpleNamespace(encoders={"gene": "fitted PCA"})

    monkeypatch.setattr(sw.tl, "train", fit)
    monkeypatch.setattr(sw.tl, "GeneFeatures", lambda encoder, batch_key: (encoder, batch_key))
    monkeypatch.setattr(sections, "with_features", lambda images: f"X_{len(images.tile_um)}")
    encoders: dict[str, Any] = {}
    names = [
        BASE,
        "pairs: no single cells",
        "captions: with wordings, without negations",
        "normalisation: z-scores within the section",
        "image encoder: tiles of 154 µm",
    ]
    for name in names:
        train(BY_NAME[name], "A", sections, encoders, 0)
    (base, plain), (alone, no_cells), (_, positive), (_, within), (_, small) = calls
    assert [id(x) for x in base] == [
        id(x) for x in (sections.tables["C3"], sections.data.texts["D6"], sections.data.cells)
    ]
    assert len(alone) == 2
    assert [c.gene[0] for c in (plain, no_cells, positive)] == ["pca", "pca", "fitted PCA"]
    caption = "adipose tissue with fat cells"
    assert plain.text.negated[caption] == ["no fat"]
    assert (positive.text.wordings[caption], positive.text.negated) == (["fat"], {})
    assert (plain.preset.standardize["image"], within.preset.standardize["image"]) == ("global", "section")
    assert plain.preset.solved_in_closed_form
    assert plain.text.encoder is sections.texts
    assert (plain.image.key, small.image.key) == ("X_3", "X_1")


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_texts_that_negate_a_caption_are_left_to_rows_in_closed_form(
    variant: Any, sections: Sections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contrastive training refuses them."""
    calls: list[SimpleNamespace] = []

    def fit(_data: list[Any], **options: Any) -> Any:
        calls.append(SimpleNamespace(**options))
        return SimpleNamespace(encoders={"gene": "fitted PCA"})

    monkeypatch.setattr(sw.tl, "train", fit)
    monkeypatch.setattr(sw.tl, "GeneFeatures", lambda encoder, batch_key: (encoder, batch_key))
    monkeypatch.setattr(sections, "with_features", lambda _: "X")
    for given in (sections.data.texts["D6"], sections.data.cells):
        for key in variant.recipe.text_key:
            given.obs[key] = "adipose tissue with fat cells"
    train(variant, "A", sections, {}, 0)
    (call,) = calls
    assert not call.text.negated or call.preset.solved_in_closed_form


def test_rows_that_cannot_be_trained_are_named(
    sections: Sections, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def score(variant: Any, patient: str, *_: Any) -> pd.DataFrame:
        if variant.images.tile_um == (154.0,) and patient == "C":
            raise FileNotFoundError("no weights here")
        own = {"row": variant.name, "part": variant.part, "change": variant.change, "patient": patient}
        against = None if variant.name == BASE else BASE
        return pd.DataFrame([own | {"against": against, "section": f"{patient}1", "class": "fat", "auroc": 0.5}])

    monkeypatch.setattr(comparison, "_score", score)
    monkeypatch.setattr(comparison, "load", lambda _data, **_: sections.data)
    monkeypatch.setattr(
        comparison.Sections, "too_coarse", lambda _, images: "A1 is coarse" if images.encoder == "nuclei" else None
    )
    main(["ablate", "--data", str(tmp_path), "--out", str(tmp_path), "--only", "image encoder"])
    text = (tmp_path / "ablation.md").read_text()
    assert "Left out: image encoder: tiles of 154 µm, because no weights here." in text
    assert "Left out: image encoder: nuclei, because A1 is coarse." in text
    read = pd.read_csv(tmp_path / "ablation.csv")
    assert read["row"].unique().tolist() == [BASE, "image encoder: tiles of 100 to 600 µm"]
    assert (tmp_path / "ablation.png").stat().st_size > 0


def test_an_unknown_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--only knows no part 'tiles'; choose among 'locking'"):
        main(["ablate", "--data", str(tmp_path), "--only", "tiles"])


def test_each_text_is_computed_once(sections: Sections, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    inner = sections.texts.encoder  # type: ignore[attr-defined]
    encode = inner.encode

    def counted(texts: list[str], **options: Any) -> Any:
        asked.append(texts)
        return encode(texts, **options)

    monkeypatch.setattr(inner, "encode", counted)
    first = sections.texts.encode(["fat", "stroma", "fat"])
    second = sections.texts.encode(["stroma", "tumour"])
    assert asked == [["fat", "stroma"], ["tumour"]]
    assert np.array_equal(first[1], second[0])
    assert np.array_equal(first[0], first[2])
    assert np.allclose(second, encode(["stroma", "tumour"]), atol=1e-6)
    assert sections.texts.identity == inner.identity
