"""Small models that hold every kind of part, built without training, and their folders."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spatialwhisperer as sw
from spatialwhisperer.encoders.gene._networks.set_network import SetNetwork
from spatialwhisperer.encoders.gene.sentence import GeneSentenceEncoder
from spatialwhisperer.encoders.gene.set_transformer import SetTransformerEncoder
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.models import ModelConfig, Whisperer, store
from spatialwhisperer.models.configuration.annotation import Annotation
from spatialwhisperer.models.configuration.model import ContextConfig, HeadConfig, ModalityConfig, Training
from spatialwhisperer.models.expression.config import ExpressionConfig
from spatialwhisperer.models.expression.fit import fit_predictor
from spatialwhisperer.retrieval.rule import Retrieval

GENES = [f"G{i}" for i in range(12)]


@cache
def shared_folders() -> dict[str, Path]:
    """Folders of three models by name, made once in a process. Read only: copy what you change."""
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return model_folders(place, tiny_bert(place / "tiny"))


def tiny_bert(folder: Path) -> Path:
    """Write a random BERT of 16 dimensions to a folder."""
    from transformers import BertConfig, BertModel, BertTokenizerFast  # type: ignore[attr-defined]

    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fat", "gland", "cell"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    return folder


def model_folders(place: Path, bert: Path) -> dict[str, Path]:
    """Write the models; the embedded one is where it is installed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {
            "embedded": store.embedded_folder(),
            "trained text": _trained_text(bert).save(place / "text"),
            "trained image": _trained_image(bert).save(place / "image"),
        }


def _recipe(encoder: Any) -> FeatureRecipe:
    return FeatureRecipe(encoder.identity, tile_um=(80.0,), tile_px=32)


def _trained_text(tiny_bert: Path) -> Whisperer:
    """A trained text encoder, a fitted gene encoder, a context, a decoder, a bank."""
    rng = np.random.default_rng(0)
    text, image = sw.models.text_encoder(tiny_bert), sw.models.image_encoder("stain_texture")
    sizes: Any = {"n_hidden": 8, "n_heads": 2, "n_inducing": 3, "n_blocks": 2, "max_genes": 6}
    state = {name: value.numpy() for name, value in SetNetwork(12, 5, **sizes).state_dict().items()}
    gene = SetTransformerEncoder(GENES, weights=state, n_latent=5, **sizes)
    context = ContextConfig("section_knn", {"n_neighbours": 4, "heads": 2, "head_dim": 4, "depth": 2, "dropout": 0.1})
    modalities = {
        "image": ModalityConfig(_recipe(image), 6, HeadConfig("bn_shortcut", 6, 0.1), context),
        "gene": ModalityConfig(FeatureRecipe(gene.identity), 5, HeadConfig("rmlp", 5)),
        "text": ModalityConfig(FeatureRecipe(text.identity), 16, HeadConfig("linear", 16), trained=True),
    }
    training = Training("bleep", "strict", "joint", None, "LUL", {"image–gene": 3}, ("A",), ("B",), 0)
    annotation = Annotation("softmax", 0.5, ece=0.1, n=3)
    config = ModelConfig(
        4, modalities, decoder_dim=12, labels=("fat", "gland"), annotation=annotation, training=training
    )
    model = Whisperer(config, encoders={"text": text, "gene": gene})
    expression = ExpressionConfig(
        tuple(GENES), ("",) * 12, "per_spot_log1p", Retrieval(k=3), "retrieval", "features", 2
    )
    model.expression = fit_predictor(
        config=expression,
        image=rng.normal(size=(9, 4)).astype(np.float32),
        gene=rng.normal(size=(9, 4)).astype(np.float32),
        regress_on=rng.normal(size=(9, 6)).astype(np.float32),
        values=rng.poisson(1, (9, 12)).astype(np.float32),
        sections=list("aaabbbccc"),
        groups=list("aaabbbccc"),
    )
    return model


def _trained_image(tiny_bert: Path) -> Whisperer:
    """A trained timm model, a frozen text encoder from a folder, gene sentences."""
    text = sw.models.text_encoder(tiny_bert)
    gene = GeneSentenceEncoder(GENES, dim=384)
    image = sw.models.open_encoder("test_vit", "image", pretrained=False)
    modalities = {
        "image": ModalityConfig(_recipe(image), 64, HeadConfig("linear_norm", 64), trained=True),
        "gene": ModalityConfig(FeatureRecipe(gene.identity), 384, HeadConfig("linear", 384)),
        "text": ModalityConfig(FeatureRecipe(text.identity), 16, HeadConfig("linear_norm", 16)),
    }
    return Whisperer(ModelConfig(4, modalities), encoders={"text": text, "gene": gene, "image": image})
