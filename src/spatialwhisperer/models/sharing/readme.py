"""The card of a model: a README that people read and the hub shows, made from what the model states about itself."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import listing
from spatialwhisperer.encoders.hub import HUB
from spatialwhisperer.models.sharing.licences import hub_licence

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from spatialwhisperer.models.configuration.model import Card, ModelConfig, Training
    from spatialwhisperer.models.expression.predictor import ExpressionPredictor
    from spatialwhisperer.models.reference import Reference
    from spatialwhisperer.models.sharing.licences import Part

LIBRARY = "spatialwhisperer"
_TASK = "zero-shot-image-classification"
_TAGS = ("histopathology", "pathology", "spatial-transcriptomics", "single-cell")
_YES_NO = {True: "yes", False: "no", None: "not known"}
_NAMED = 24
_SEAL = re.compile(r"\n<!-- written by spatialwhisperer: ([0-9a-f]{16}) -->\s*\Z")


@dataclass(frozen=True)
class Described:
    """What a card is made from.

    Attributes
    ----------
    config
        Configuration of the model.
    parts
        Its encoders and where their weights are.
    expression, reference
        Its predictor of expression and the sample of its training data; ``None`` where it has none.
    """

    config: ModelConfig
    parts: Sequence[Part]
    expression: ExpressionPredictor | None
    reference: Reference | None


def readme(model: Described, *, address: str = "folder or owner/name", licence: str | None = None) -> str:
    """Text of the card: front matter that the hub reads, and sections for people.

    Parameters
    ----------
    model
        What the model states.
    address
        What ``sw.models.load`` opens it by.
    licence
        Licence of its own weights; ``None`` takes that of its card, if it has one.
    """
    licence = licence or (model.config.card.licence if model.config.card is not None else "") or None
    front = front_matter(model, licence)
    parts = [
        _opening(model, address),
        _what_it_is(model),
        _training(model),
        _worth(model),
        _licences(model, licence),
        _limits(model),
        _citations(model),
    ]
    text = f"---\n{front}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"
    return f"{text}\n<!-- written by spatialwhisperer: {_digest(text)} -->\n"


def was_edited(card: Path) -> bool:
    """Whether a file is a card that somebody else wrote or changed; its last line, which is not shown, holds a digest of the others."""
    try:
        text = card.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return True
    except OSError:
        return False
    seal = _SEAL.search(text)
    return seal is None or seal[1] != _digest(text[: seal.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]


def front_matter(model: Described, licence: str | None) -> str:
    """YAML that the hub reads: licence, library, task, encoders it is based on, and held-out figures."""
    from huggingface_hub import EvalResult, ModelCardData

    card = model.config.card
    facts: dict[str, Any] = {"library_name": LIBRARY, "tags": [*_TAGS, *model.config.modalities], "language": "en"}
    if licence is not None:
        known = hub_licence(licence)
        facts |= {"license": known} if known else {"license": "other", "license_name": "see-the-section-on-licences"}
    if {"image", "text"} <= model.config.modalities.keys():
        facts["pipeline_tag"] = _TASK
    based = [part.spec.url.removeprefix(HUB) for part in model.parts if part.spec.url.startswith(HUB)]
    if based:
        facts["base_model"] = list(dict.fromkeys(based))
    if card is not None and card.held_out_macro_auroc:
        facts["model_name"] = card.name
        facts["eval_results"] = [
            EvalResult(
                task_type=_TASK,
                # one type for several data sets would make one of them
                dataset_type=f"held-out-{number}",
                dataset_name=f"held-out section {name}",
                metric_type="roc_auc",
                metric_name="macro AUROC of the labels",
                metric_value=value,
            )
            for number, (name, value) in enumerate(card.held_out_macro_auroc.items(), start=1)
        ]
    return str(ModelCardData(**facts).to_yaml())


# --------------------------------------------------------------------------------------------- sections


def _opening(model: Described, address: str) -> str:
    card, names = model.config.card, listing(model.config.modalities)
    title = card.name if card is not None else f"A model of {names}"
    lines = [
        f"# {title}",
        f"One space of {names}, in {model.config.projection_dim} dimensions, made with "
        "[spatialwhisperer](https://pypi.org/project/spatialwhisperer). For research; not for diagnosis.",
    ]
    if card is not None:
        lines.append(f"Tissue: {card.tissue}. Use: {card.use}")
    lines.append(
        "```python\nimport spatialwhisperer as sw\n\n"
        f'model = sw.models.load("{address}")\n'
        'sw.tl.zero_shot_annotate(sdata, ["T cells", "stroma"], model=model)\n```'
    )
    return "\n\n".join(lines)


def _what_it_is(model: Described) -> str:
    rows = []
    for name, modality in model.config.modalities.items():
        features = modality.features
        um = " + ".join(f"{size:g}" for size in features.tile_um)
        tiles = f"{um} µm in {features.tile_px} px" if um else "–"
        context = "–" if modality.context is None else modality.context.kind
        trained = "trained" if modality.trained else "frozen"
        rows.append((name, features.name, modality.feature_dim, tiles, trained, context, modality.head.kind))
    table = _table(("modality", "encoder", "features", "tiles", "encoder is", "context", "head"), rows)
    parts = [f"## What it is\n\n{table}"]
    if model.expression is not None:
        parts.append(f"It predicts expression: {model.expression!r}.")
    if model.config.labels:
        parts.append(f"Captions of its training: {listing(model.config.labels, _NAMED)}.")
    return "\n\n".join(parts)


def _training(model: Described) -> str:
    training, card = model.config.training, model.config.card
    facts = [*(_of_training(training) if training is not None else ()), *(_of_card(card) if card is not None else ())]
    if model.reference is not None and model.reference.config.mpp is not None:
        low, high = model.reference.config.mpp
        facts.append(("training images", f"{low:.3g} to {high:.3g} µm per pixel"))
    if model.expression is not None and model.expression.config.sections:
        facts.append(("sections that expression was learnt from", _names(model.expression.config.sections)))
    if not facts:
        return "## Training\n\nThe model does not state how it was trained."
    return "## Training\n\n" + _table(("what", "value"), facts)


def _of_training(training: Training) -> Iterable[tuple[str, str]]:
    yield "preset and protocol", f"{training.preset}, {training.protocol}"
    link = f", image link {training.image_link}" if training.image_link else ""
    yield "schedule", f"{training.schedule}{link}, locking {training.locking}, seed {training.random_state}"
    yield "pairs", ", ".join(f"{n:,} {pair}" for pair, n in training.pairs.items())
    yield f"patients or groups ({len(training.groups)})", _names(training.groups)
    if training.sections:
        yield f"sections ({len(training.sections)})", _names(training.sections)
    yield "held out for a validation loss", _names(training.validation_groups)
    if training.refinement is not None:
        yield "contrastive refinement", training.refinement.reason
    if training.versions:
        yield "versions", ", ".join(f"{name} {number}" for name, number in training.versions.items())


def _of_card(card: Card) -> Iterable[tuple[str, str]]:
    yield "data", card.data
    for name, held in (
        ("sections with an image", card.sections_with_image),
        ("sections with captions", card.sections_with_text),
    ):
        if held:
            yield f"{name} ({len(held)})", _names(held)
    if card.patients:
        yield f"patients ({len(card.patients)})", _names(card.patients)
    if card.versions:
        yield "versions in training", ", ".join(f"{name} {number}" for name, number in card.versions.items())
    yield "command", f"`{card.command}`"


def _worth(model: Described) -> str:
    rows = [*_of_annotation(model), *_of_expression(model.expression)]
    start = "## What it is worth\n\n"
    if not rows:
        return (
            f"{start}Nothing was measured on tissue that was held out. Measure it on yours: `sw.tl.evaluate_annotation`, "
            "`sw.tl.evaluate_expression`, and `sw.tl.transitivity` before."
        )
    note = "Figures of other tissue, scanners and stains are not known; `sw.tl.transitivity` looks at yours."
    return f"{start}{_table(('what', 'on', 'value'), rows)}\n\n{note}"


def _of_annotation(model: Described) -> Iterable[tuple[str, str, str]]:
    card, training, annotation = model.config.card, model.config.training, model.config.annotation
    for name, value in ({} if card is None else card.held_out_macro_auroc).items():
        yield "macro AUROC of the labels", f"section {name}, its patient left out", f"{value:.3f}"
    refinement = None if training is None else training.refinement
    for name, gain in ({} if refinement is None else refinement.gains).items():
        yield "gain in caption agreement by the contrastive refinement", f"{name}, left out", f"{gain:+.4f}"
    if annotation is not None and annotation.ece is not None:
        rows = "rows" if annotation.n is None else f"{annotation.n:,} rows"
        yield "expected calibration error of the confidence", f"the {rows} of its calibration", f"{annotation.ece:.3f}"


def _of_expression(expression: ExpressionPredictor | None) -> Iterable[tuple[str, str, str]]:
    if expression is None:
        return
    for method in expression.methods():
        for own in (False, True):
            values = expression.held_out(method, own=own)
            # of the method that reads the same features either way
            if not np.isfinite(values).any() or (own and method == "retrieval"):
                continue
            genes = int(np.isfinite(values).sum())
            features = ", on its own image features" if own else ""
            yield (
                f"Pearson correlation of predicted expression, mean over {genes:,} genes ({method}{features})",
                "training sections, left out in turn",
                f"{float(np.nanmean(values)):.3f}",
            )


def _licences(model: Described, licence: str | None) -> str:
    rows = [
        (
            "heads and what was fitted",
            licence or "not stated by whoever trained it",
            "see the licence",
            "in this folder",
            "–",
        ),
        *(
            (
                f"{part.modality} encoder `{part.spec.name}`",
                _licence(part),
                _YES_NO[part.spec.commercial],
                part.where,
                part.spec.url or "–",
            )
            for part in model.parts
        ),
    ]
    text = f"## Licences\n\nThe terms of every part hold together.\n\n{_table(('part', 'licence', 'commercial use', 'weights', 'from'), rows)}"
    held = _training_data(model)
    return f"{text}\n\n{held}" if held else text


def _licence(part: Part) -> str:
    return f"{part.spec.licence}, gated: access is granted by its authors" if part.spec.gated else part.spec.licence


def _training_data(model: Described) -> str:
    """What of the training data the folder holds, which their owners may want to know."""
    held = []
    if model.expression is not None and model.expression.values.shape[0]:
        m, g = model.expression.values.shape
        held.append(
            f"expression of {m:,} training observations ({g:,} genes), with the names of their sections and patients"
        )
    if model.config.labels:
        held.append(f"{len(model.config.labels):,} captions")
    if model.reference is not None:
        held.append("a sample of embedded training rows")
    return f"The folder holds training data: {'; '.join(held)}. Their licence holds too." if held else ""


def _limits(model: Described) -> str:
    tissue = (
        f" other than {model.config.card.tissue}" if model.config.card is not None else " unlike that of its training"
    )
    return (
        f"## Limits\n\nLabels of tissue{tissue} may be wrong without looking so. It was not tested for, and must not be used in, the care of "
        "patients. Weights are safetensors and everything else is JSON: opening it runs no code."
    )


def _citations(model: Described) -> str:
    cited = dict.fromkeys(f"- {p.spec.name}: {p.spec.citation}" for p in model.parts if p.spec.citation)
    return "## To cite\n\n" + "\n".join(cited) if cited else ""


def _names(names: Sequence[str]) -> str:
    return listing(names, _NAMED)


def _table(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
