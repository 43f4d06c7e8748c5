"""A BERT whose pooler output is the text feature, frozen and trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("transformers")

import spatialwhisperer as sw
from spatialwhisperer.tl._embedding.texts import embed_texts

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def simulated() -> Any:
    return sw.datasets.simulate_sections(2, 30, n_genes=60, n_reference_cells=60, random_state=0)


@pytest.fixture(scope="module")
def bert(simulated: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizerFast  # type: ignore[attr-defined]

    folder = tmp_path_factory.mktemp("bert")
    words = sorted({w for text in simulated.reference.obs["text"].dropna().unique() for w in str(text).lower().split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=40, **size)).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("locking", ["LLL", "LUL"])
def test_pooling_is_reached_from_training_and_kept_by_the_model(
    simulated: Any, bert: Path, tmp_path: Path, locking: str
) -> None:
    preset = sw.models.get_preset("spatialwhisperer").replace(batch_size=32, projection_dim=8, locking=locking)
    before = sw.models.text_encoder(bert, pooling="pooler").encode(["fat cell"], device="cpu")
    with sw.settings.override(offline=True, device="cpu"):
        model = sw.tl.train(
            simulated.reference, preset=preset, text=sw.tl.TextFeatures(bert, pooling="pooler"), max_epochs=2
        )
        encoder: Any = model.encoders["text"]
        assert encoder.pooling == "pooler"
        again = sw.models.Whisperer.load(model.save(tmp_path / "model"))
        words = ["fat cell", "T cell in a long sentence about many other cells"]
        one, other = (embed_texts(m, words) for m in (model, again))
        alone = embed_texts(model, words[:1])
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one[:1], alone, atol=1e-6)
    after = again.encoders["text"].encode(["fat cell"], device="cpu")
    assert np.allclose(before, after, atol=1e-6) == (locking == "LLL")
