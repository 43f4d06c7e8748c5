"""``sw.tl.train`` on the folder of a corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer.tl._training.corpus import sample
from spatialwhisperer.tl._training.corpus.run import choose_pairs
from spatialwhisperer.training.corpus import order
from spatialwhisperer.training.corpus.shards import Corpus
from tests import corpora
from tests.training.resuming.test_checkpoints import same, stop_at

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

PRESET = sw.models.get_preset("spatialwhisperer").replace(batch_size=24, projection_dim=8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpora.build(tmp_path_factory.mktemp("corpus") / "c")


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sw.tl.train(corpus, preset=PRESET, max_epochs=30, folder=tmp_path_factory.mktemp("run"))


def test_a_model_learns_which_rows_belong_together(trained: Any) -> None:
    new = corpora.slide(77, 200, ["new"])
    z = {m: trained.project(m, new.obsm[f"X_{m}"], sections=["a"] * 200) for m in ("image", "gene")}
    rank = (z["image"] @ z["gene"].T >= np.sum(z["image"] * z["gene"], axis=1)[:, None]).sum(axis=1)
    assert np.median(rank) < 10
    assert trained.config.training.pairs == {"image–gene": 150, "gene–text": 90}
    assert trained.config.training.groups == ("C1", "C2", "P0", "P1", "P2")


def test_it_is_stored_with_a_reference_and_its_captions(trained: Any) -> None:
    stored: Any = sw.models.Whisperer.load(trained.folder, encoders={"text": corpora.HashedText()})
    assert same(stored, trained)
    assert set(stored.config.labels) == {"tumour", "stroma", "fat", "T cells"}
    assert stored.reference.config.n == {"image–gene": 150, "gene–text": 90}
    assert stored.config.training.sections == ("cells/cells:all", "slides/S0:all", "slides/S1:all", "slides/S2:all")


def test_its_training_range_is_that_of_whole_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "ROWS", 300)
    slides = {f"S{i}": corpora.slide(i, 900, [f"P{i}"]) for i in range(3)}
    for one in slides.values():
        # two tissues, one after the other: a block of rows holds one of them
        one.obsm["X_image"][450:] += 8
    corpus = corpora.build(tmp_path / "c", [sw.pp.CorpusSource("s", slides, licence="CC0")])
    model = sw.tl.train(corpus, preset=PRESET, max_epochs=1)
    reference = model.reference
    assert reference is not None
    for name, mean in zip(reference.config.sections, reference.arrays["feature_mean"], strict=True):
        values = slides[name.removeprefix("s/").removesuffix(":all")].obsm["X_image"]
        np.testing.assert_allclose(mean, values.mean(axis=0), atol=1e-4)


def test_it_depends_on_the_seed_alone(corpus: Path) -> None:
    torch.manual_seed(1)
    one = sw.tl.train(corpus, preset=PRESET, max_epochs=2)
    torch.manual_seed(2)
    other = sw.tl.train(corpus, preset=PRESET, max_epochs=2)
    assert same(one, other)
    assert not same(one, sw.tl.train(corpus, preset=PRESET, max_epochs=2, random_state=1))


def test_a_run_that_was_interrupted_in_a_pass_continues(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "PART_STEPS", 4)
    how: dict[str, Any] = {"preset": PRESET, "max_epochs": 2}
    whole = sw.tl.train(corpus, **how)
    with pytest.raises(KeyboardInterrupt):
        sw.tl.train(corpus, **how, folder=tmp_path / "run", trainer={"callbacks": stop_at(2)})
    assert len(whole.history) > 2 * 2
    resumed = sw.tl.train(corpus, **how, folder=tmp_path / "run", resume=True)
    assert same(whole, resumed)
    assert resumed.history.equals(whole.history)


def test_a_logger_writes_to_the_folder_of_the_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    sw.tl.train(corpus.absolute(), preset=PRESET, max_epochs=1, folder=tmp_path / "run", trainer={"logger": True})
    assert (tmp_path / "run" / "lightning_logs").is_dir()
    assert list((tmp_path / "here").iterdir()) == []


def test_a_run_on_another_corpus_is_not_continued(corpus: Path, tmp_path: Path) -> None:
    other = corpora.build(
        tmp_path / "c", [*corpora.sources(), sw.pp.CorpusSource("more", corpora.slide(5, 30, ["M"]), "CC0")]
    )
    sw.tl.train(corpus, preset=PRESET, max_epochs=1, folder=tmp_path / "run")
    with pytest.raises(ValueError, match=r"another run(.|\n)*corpus\.digest"):
        sw.tl.train(other, preset=PRESET, max_epochs=1, folder=tmp_path / "run", resume=True)


def test_held_out_patients_give_a_validation_loss(corpus: Path) -> None:
    model: Any = sw.tl.train(corpus, preset=PRESET, max_epochs=1, validation=["P1", "C2"])
    assert np.isfinite(model.history["val_loss_image_gene"]).all()
    assert model.config.training.validation_groups == ("C2", "P1")
    # rows of held-out patients are not counted: 50 of P1, and every second of the 90 cells
    assert model.config.training.pairs == {"image–gene": 100, "gene–text": 45}
    assert model.config.training.sections == ("cells/cells:all", "slides/S0:all", "slides/S2:all")
    best: Any = sw.tl.train(corpus, preset=PRESET.replace(select="best"), max_epochs=2, validation=0.4)
    assert len(best.config.training.validation_groups) == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"image": "resnet18"}, "image: the features and patients of a corpus are those"),
        ({"group_key": "donor"}, "group_key: the features and patients"),
        ({"mpp": 0.5}, "mpp: the features and patients"),
        ({"expression": True}, "expression=… needs counts"),
        ({"preset": sw.models.get_preset("whisperer").replace(schedule="sequential")}, "schedule='sequential'"),
        (
            {"preset": PRESET.replace(locking="LUL")},
            r"trains the encoder of text\. Take preset\.replace\(locking='LLL'\)",
        ),
        ({"preset": "mclstexp"}, "reads the neighbours of a row"),
        (
            {"preset": PRESET.replace(pairs=[("image", "text")])},
            "holds no image–text pairs; its rows hold gene–image, gene–text",
        ),
        ({"preset": PRESET.replace(select="best")}, "select='best' chooses the epoch on held-out patients"),
        ({"validation": ["Q"]}, "validation names groups that are not there: Q"),
        ({"validation": ["C1", "C2"]}, "Too few pairs to train on: 0 gene–text"),
    ],
)
def test_what_a_corpus_does_not_allow_is_refused(
    change: dict[str, Any], text: str, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=text):
        sw.tl.train(corpus, **{"preset": PRESET, "folder": tmp_path / "run", **change})
    assert not (tmp_path / "run").exists()


def test_pairs_that_a_corpus_lacks_are_named(tmp_path: Path) -> None:
    cells = corpora.build(tmp_path / "c", corpora.sources()[1:], image=None)
    with pytest.warns(
        UserWarning, match="holds no image–gene pairs; its rows hold gene–text. The model is trained on the"
    ):
        assert choose_pairs(PRESET, Corpus.open(cells)) == {("gene", "text"): 1.0}


def test_a_folder_without_a_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no corpus: there is no manifest\.json"):
        sw.tl.train(tmp_path)
