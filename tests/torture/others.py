"""The public functions and methods that take no object, with arguments that are right."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd  # noqa: TC002

import spatialwhisperer as sw
from tests.torture.objects import SDATA, folder, fresh, prediction, trained

if TYPE_CHECKING:
    from collections.abc import Callable


class Other(NamedTuple):
    """A function and right arguments. ``made`` gives a bound method anew."""

    made: Callable[[], Callable[..., Any]]
    options: dict[str, Any]


def _plain(function: Callable[..., Any], **options: Any) -> Other:
    return Other(lambda: function, options)


@lru_cache
def _report() -> pd.DataFrame:
    return sw.tl.gene_report(fresh(SDATA), prediction())


@lru_cache
def _parts() -> dict[str, Any]:
    model = sw.models.default_model()
    return {"model": model, "vocabulary": model.vocabulary, "ontology": getattr(model.vocabulary, "ontology", None)}


def _features(modality: str) -> np.ndarray:
    return np.zeros((3, sw.models.default_model().config.modalities[modality].feature_dim), np.float32)


def fast() -> dict[str, Other]:
    """Those that need no training."""
    model, vocabulary, ontology = _parts().values()
    m, d, tl = sw.models, sw.datasets, sw.tl
    term = next(iter(ontology.terms))
    return {
        "pp.embed_texts": _plain(sw.pp.embed_texts, texts=["fat"]),
        "models.get_preset": _plain(m.get_preset, preset="bleep", protocol="strict"),
        "models.get_spec": _plain(m.get_spec, name="resnet18", modality="image"),
        "models.list_encoders": _plain(m.list_encoders, modality="image"),
        "models.list_models": _plain(m.list_models, folder=str(folder() / "none")),
        "models.load": _plain(
            m.load,
            source=str(folder() / "none"),
            features=None,
            tokenizer=None,
            native_pixels=False,
            encoders=None,
            allow_encoders=(),
        ),
        "models.load_gene_encoder": _plain(m.load_gene_encoder, folder=str(folder() / "none"), allow_encoders=()),
        "models.open_encoder": _plain(
            m.open_encoder, name="stain_texture", modality="image", weights=None, pretrained=True, revision=None
        ),
        "models.image_encoder": _plain(m.image_encoder, encoder="stain_texture", weights=None, pretrained=True),
        "models.text_encoder": _plain(m.text_encoder, encoder="minilm", pooling=None, normalize=None),
        "models.register_modality": _plain(m.register_modality, modality=m.Modality("image", "tiles"), overwrite=False),
        "models.Whisperer.load": _plain(
            m.Whisperer.load, source=str(folder() / "none"), encoders=None, allow_encoders=()
        ),
        "Whisperer.project": _plain(
            model.project, modality="gene", features=_features("gene"), unit=True, batch_size=8, device=None
        ),
        "Whisperer.project of images": _plain(
            model.project, modality="image", features=_features("image"), sections=["a"] * 3, positions=None
        ),
        "Whisperer.contextual": _plain(
            model.contextual, modality="image", features=_features("image"), sections=["a"] * 3, positions=None
        ),
        "Whisperer.standardized": _plain(
            model.standardized, modality="gene", features=_features("gene"), sections=None
        ),
        "Whisperer.predict_expression": _plain(model.predict_expression, features=_features("image")),
        "Whisperer.prompts": _plain(model.prompts, label="T cell"),
        "Whisperer.generate_model_card": _plain(model.generate_model_card, address="owner/name", licence="mit"),
        "Whisperer.save": _plain(model.save, folder=str(folder() / "saved")),
        "Whisperer.update": Other(lambda: deepcopy(m.default_model()).update, {"annotation": model.config.annotation}),
        "Vocabulary.lookup": _plain(vocabulary.lookup, texts=["fat"]),
        "Vocabulary.nearest": _plain(vocabulary.nearest, text="fat", n=3),
        "Vocabulary.prompts": _plain(vocabulary.prompts, label=next(iter(vocabulary.labels))),
        "Ontology": _plain(m.Ontology, terms=[m.Term("a", "a")]),
        "Ontology.ancestors": _plain(ontology.ancestors, term=term),
        "Ontology.find": _plain(ontology.find, label="fat cell"),
        "Ontology.is_a": _plain(ontology.is_a, term=term, ancestor=term),
        "Ontology.name": _plain(ontology.name, term=term),
        "Ontology.subset": _plain(ontology.subset, terms=[term]),
        "Ontology.read": _plain(m.Ontology.read, path=str(folder() / "none.obo")),
        "Preset.replace": _plain(
            m.get_preset("bleep").replace,
            learning_rate=1e-4,
            pairs={("image", "gene"): 1.0},
            locking="LLL",
            batch_size=8,
        ),
        "Preset.head": _plain(m.get_preset("bleep").joint.head, modality="image"),
        "ModelConfig.modality": _plain(model.config.modality, name="image"),
        "ModelConfig.from_json": _plain(m.ModelConfig.from_json, plain=model.config.to_json()),
        "Retrieval": _plain(m.Retrieval, query="image", key="gene", k=5, weights="uniform", temperature=0.1),
        "Modality": _plain(m.Modality, name="a", reads="table", key="X_a", encoder=None),
        "Term": _plain(m.Term, id="a", name="a", synonyms=(), parents=(), definition=""),
        "Label": _plain(m.Label, prompts=("a",), cl=None),
        "EncoderSpec": _plain(m.EncoderSpec, name="a", modality="image", dim=3, input_px=8, mpp=0.5, tile_um=100.0),
        "EncoderIdentity": _plain(m.EncoderIdentity, name="a", revision=None, digest=None),
        "tl.ExpressionOptions": _plain(tl.ExpressionOptions, genes=None, values_layer=None, cross_validate=None),
        "tl.GeneFeatures": _plain(
            tl.GeneFeatures, encoder="pca", layer=None, batch_key=None, labels_key=None, options={}, key=None
        ),
        "tl.Hierarchy": _plain(tl.Hierarchy, level=None, rollup=False, ontology=None),
        "tl.ImageFeatures": _plain(
            tl.ImageFeatures,
            encoder=None,
            tile_um=80,
            tile_px=64,
            border="pad",
            weights=None,
            pretrained=True,
            key=None,
        ),
        "tl.Smoothing": _plain(tl.Smoothing, weight=0.5, n_rings=1, n_neighs=6, neighbors_key=None),
        "tl.TextFeatures": _plain(tl.TextFeatures, encoder=None, key="text"),
        "datasets.her2st": _plain(
            d.her2st, sections="C2", data_dir=None, with_image=False, base_url="https://localhost"
        ),
        "datasets.lizard": _plain(
            d.lizard, data_dir=None, images=None, split=None, mpp=0.5, tile_px=32, base_url="https://localhost"
        ),
        "datasets.pannuke": _plain(
            d.pannuke,
            data_dir=None,
            images=None,
            folds=(2,),
            windows="quarters",
            mpp=0.25,
            tile_px=32,
            base_url="https://localhost",
        ),
        "datasets.pathocell": _plain(d.pathocell, data_dir=None, images=None, level="coarse", mpp=0.5, tile_px=32),
        "datasets.simulate_sections": _plain(
            d.simulate_sections,
            n_patients=1,
            n_spots=10,
            n_genes=20,
            n_reference_cells=5,
            mpp=4.0,
            spot_pitch_um=100.0,
            spot_diameter_um=55.0,
            size_px=None,
            region_um=120.0,
            counts_per_cell=400.0,
            batch_sd=0.25,
            stain_sd=0.12,
            random_state=0,
        ),
        "settings.override": _plain(
            _overridden, device=None, batch_size=8, cache_dir=str(folder()), offline=True, progress=False, verbose=False
        ),
        "settings.resolve_device": _plain(sw.settings.resolve_device, device="cpu"),
        "pl.training": _plain(sw.pl.training, model=model, axes=None),
        "ImageEncoder.encode": _plain(
            m.image_encoder("stain_texture").encode, inputs=np.zeros((2, 3, 32, 32), np.uint8), mpp=1.0, device=None
        ),
        "TextEncoder.encode": _plain(m.text_encoder("minilm").encode, inputs=["fat"], batch_size=None, device=None),
    }


def slow() -> dict[str, Other]:
    """Those of a trained model."""
    model, report = trained(), _report()
    predictor = model.expression
    z = np.zeros((3, model.config.projection_dim), np.float32)
    transitivity = sw.tl.transitivity(fresh(SDATA), model=model)
    gene_encoder = model.encoders["gene"]
    counts = np.ones((3, len(gene_encoder.genes)))
    sets = {"a": list(report.index[:10])}
    width = model.config.modalities["image"].feature_dim
    return {
        "tl.gene_set_enrichment": _plain(
            sw.tl.gene_set_enrichment, report=report, gene_sets=sets, by="pearson", n_top=20, min_genes=2
        ),
        "pl.gene_ranking": _plain(sw.pl.gene_ranking, report=report, n=5, gene_sets=sets, ax=None),
        "pl.transitivity": _plain(sw.pl.transitivity, report=transitivity),
        "pl.training of a trained model": _plain(sw.pl.training, model=model, axes=None),
        "trained Whisperer.predict_expression": _plain(
            model.predict_expression,
            features=np.zeros((3, width), np.float32),
            method=None,
            k=5,
            exclude=None,
            device=None,
        ),
        "ExpressionPredictor.predict": _plain(
            predictor.predict, z=z, regressed=None, method=None, k=5, exclude=None, device=None
        ),
        "ExpressionPredictor.held_out": _plain(predictor.held_out, method="retrieval"),
        "ExpressionPredictor.check_method": _plain(predictor.check_method, method="retrieval"),
        "GeneEncoder.encode": _plain(gene_encoder.encode, inputs=counts, present=None, batch_size=None, device=None),
        "GeneEncoder.save": _plain(gene_encoder.save, folder=str(folder() / "encoder"), overwrite=True),
        "trained Whisperer.save": _plain(model.save, folder=str(folder() / "trained")),
    }


def _overridden(**values: Any) -> None:
    with sw.settings.override(**values):
        pass
