"""The public functions that read an object, with arguments that are right, and what each may write."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import spatialwhisperer as sw
from tests.torture.objects import COUNTS, GRID, LABELS, SDATA, TILES, VISIUM, prediction, trained

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

IMAGED = (SDATA, VISIUM, GRID)
COUNTED = (SDATA, VISIUM, COUNTS)
EVERY = (SDATA, VISIUM, GRID, COUNTS)
SECTIONS = (SDATA, VISIUM)


@dataclass(frozen=True)
class Call:
    """A function, right arguments, the kinds of objects that it takes, and places that it may write.

    With ``model`` it takes the model of the package, with ``prediction`` what the trained model predicts, with both the trained model.
    """

    function: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = EVERY
    writes: tuple[str, ...] = ()
    model: bool = False
    prediction: bool = False

    def arguments(self) -> dict[str, Any]:
        """The arguments, made anew."""
        out = {k: list(v) if isinstance(v, list) else v for k, v in self.options.items()}
        if self.model:
            model = trained() if self.prediction else sw.models.default_model()
            # calibrating writes into the model, which others use
            out["model"] = deepcopy(model) if self.function is sw.tl.calibrate else model
        elif self.prediction:
            out["prediction"] = prediction()
        return out


_LABELLED = ("obs[sw_label", "obsm[sw_label_scores", "uns[sw_label", "obsm[X_", "var[")
_FEATURES = ("obsm[X_",)

CALLS: dict[str, Call] = {
    "pp.embed_genes": Call(
        sw.pp.embed_genes, {"encoder": "pca", "n_latent": 4, "n_top_genes": None}, COUNTED, ("obsm[X_pca",)
    ),
    "pp.embed_images": Call(sw.pp.embed_images, {"tile_um": 80, "tile_px": 48}, IMAGED, _FEATURES),
    "pp.fit_gene_encoder": Call(
        sw.pp.fit_gene_encoder, {"encoder": "pca", "n_latent": 4, "n_top_genes": None}, COUNTED
    ),
    "pp.harmonize_expression": Call(
        sw.pp.harmonize_expression, {"genes": ["GENE0001", "GENE0002", "GENE0003"], "batch_key": "batch"}, COUNTED
    ),
    "pp.select_genes": Call(sw.pp.select_genes, {"n_top": 20}, COUNTED),
    "pp.tiles": Call(sw.pp.tiles, {"tile_um": 80}, SECTIONS, ("uns", "obsm[sw_tiles", "obs[")),
    "pp.tiles on a grid": Call(sw.pp.tiles, {"tile_um": 200, "at": "grid"}, (SDATA,), ("sw_tiles", "P1_image_tiles")),
    "tl.abstention_curve": Call(sw.tl.abstention_curve, {"truth": "truth"}),
    "tl.batch_report": Call(sw.tl.batch_report, {"batch_key": "batch", "embedding": "X_sw_image", "k": 5}, IMAGED),
    "tl.batch_report with labels": Call(
        sw.tl.batch_report, {"batch_key": "batch", "embedding": "X_pca", "labels_key": "truth", "k": 5}, COUNTED
    ),
    "tl.calibrate": Call(sw.tl.calibrate, {"truth": "truth", "labels": LABELS}, SECTIONS, _FEATURES, model=True),
    "tl.classify": Call(
        sw.tl.classify, {"labels_key": "truth", "use": "X_sw_image"}, IMAGED, ("obs[sw_class", "obsm[sw_class", "uns[")
    ),
    "tl.embed": Call(sw.tl.embed, {}, IMAGED, _FEATURES, model=True),
    "tl.evaluate_annotation": Call(sw.tl.evaluate_annotation, {"truth": "truth"}),
    "tl.evaluate_errors": Call(sw.tl.evaluate_errors, {"truth": "truth"}),
    "tl.evaluate_calibration": Call(sw.tl.evaluate_calibration, {"truth": "truth"}),
    "tl.evaluate_classes": Call(sw.tl.evaluate_classes, {"labels_key": "truth", "use": "X_sw_image"}, IMAGED),
    "tl.evaluate_domains": Call(
        sw.tl.evaluate_domains, {"truth": "truth", "use": "observed", "n_domains": 2, "n_seeds": 2}, COUNTED
    ),
    "tl.query": Call(sw.tl.query, {"text": "fat"}, IMAGED, ("obs[sw_query", *_FEATURES), model=True),
    "tl.spatial_domains": Call(
        sw.tl.spatial_domains,
        {"n_domains": 2, "use": "X_sw_image", "smooth": 0.5, "n_init": 1},
        SECTIONS,
        ("obs[sw_domain", "uns[sw_domain"),
    ),
    "tl.tissue_darkness": Call(sw.tl.tissue_darkness, {"tile_um": 80, "tile_px": 32}, IMAGED, ("obs[sw_darkness",)),
    "tl.top_labels": Call(sw.tl.top_labels, {"k": 2}),
    "tl.zero_shot_annotate": Call(sw.tl.zero_shot_annotate, {"labels": LABELS}, IMAGED, _LABELLED, model=True),
    "pl.annotation": Call(sw.pl.annotation, {}, IMAGED, ("uns[sw_label_colors",)),
    "pl.annotation with confidence": Call(
        sw.pl.annotation, {"confidence": True, "with_image": False}, SECTIONS, ("uns[sw_label_colors",)
    ),
    "pl.batches": Call(
        sw.pl.batches, {"batch_key": "batch", "embeddings": "X_pca", "reduction": "pca", "k": 5}, COUNTED
    ),
    "pl.confusion": Call(sw.pl.confusion, {"labels_key": "truth", "key": "sw_label"}),
    "pl.domains": Call(
        sw.pl.domains, {"key": "sw_domain", "truth": "truth"}, SECTIONS, ("uns[truth_colors", "uns[sw_domain_colors")
    ),
    "pl.reliability": Call(sw.pl.reliability, {"truth": "truth"}),
    "pl.roc": Call(sw.pl.roc, {"truth": "truth"}),
    "pl.scores": Call(sw.pl.scores, {}, IMAGED),
    "pl.scores of a column": Call(sw.pl.scores, {"key": "sw_query"}, SECTIONS),
    "pl.top_tiles": Call(sw.pl.top_tiles, {"label": "fat", "n": 3, "caption": "truth"}, IMAGED),
}
"""Fast ones: no model is trained for them."""

WITH_TRAINED: dict[str, Call] = {
    "tl.calibrate by counts": Call(
        sw.tl.calibrate, {"truth": "truth", "labels": LABELS, "modality": "gene"}, COUNTED, model=True, prediction=True
    ),
    "tl.embed by counts": Call(
        sw.tl.embed, {"modality": "gene"}, COUNTED, ("obsm[X_sw_gene",), model=True, prediction=True
    ),
    "tl.query by counts": Call(
        sw.tl.query,
        {"text": "fat", "modality": "gene"},
        COUNTED,
        ("obs[sw_query", "obsm[X_sw"),
        model=True,
        prediction=True,
    ),
    "tl.zero_shot_annotate by counts": Call(
        sw.tl.zero_shot_annotate,
        {"labels": LABELS, "modality": "gene"},
        COUNTED,
        _LABELLED,
        model=True,
        prediction=True,
    ),
    "tl.train": Call(
        sw.tl.train,
        {"image": TILES, "gene": "pca", "max_epochs": 1, "expression": False},
        (SDATA, VISIUM, COUNTS),
        _FEATURES,
    ),
    "tl.predict_expression": Call(
        sw.tl.predict_expression, {"k": 5}, IMAGED, ("sw_expression", *_FEATURES), model=True, prediction=True
    ),
    "tl.evaluate_expression": Call(sw.tl.evaluate_expression, {}, SECTIONS, prediction=True),
    "tl.gene_report": Call(sw.tl.gene_report, {}, SECTIONS, prediction=True),
    "tl.agreement": Call(
        sw.tl.agreement,
        {},
        SECTIONS,
        ("obs[sw_label", "uns[sw_label", *_FEATURES),
        model=True,
        prediction=True,
    ),
    "tl.evidence": Call(sw.tl.evidence, {}, SECTIONS, _FEATURES, model=True, prediction=True),
    "tl.transitivity": Call(sw.tl.transitivity, {}, SECTIONS, _FEATURES, model=True, prediction=True),
    "pl.expression": Call(sw.pl.expression, {"n_genes": 1}, SECTIONS, prediction=True),
}
"""Slow ones."""
