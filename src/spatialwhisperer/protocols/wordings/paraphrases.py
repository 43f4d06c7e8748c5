"""How well classes are found by words that training has not seen.

Each patient with an image is left out in turn. The image link is fitted once for each; only the text map is fitted anew, without a fifth
of the names and everything that is built from them, or without all texts of a class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.networks.negations import prior_odds
from spatialwhisperer.protocols import captions
from spatialwhisperer.protocols.annotation.scores import aurocs
from spatialwhisperer.protocols.default_model.recipe import TrainingRecipe, load
from spatialwhisperer.protocols.output import markdown, write_text
from spatialwhisperer.protocols.wordings.generate import Wording, left_out, text_options
from spatialwhisperer.protocols.wordings.negations import negations
from spatialwhisperer.protocols.wordings.paraphrase_tables import report
from spatialwhisperer.training.closed_form import text_directions
from spatialwhisperer.training.text.text_map import fit_text_map
from spatialwhisperer.training.text.wordings import N_FOLDS, place_wordings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from spatialwhisperer.models import Whisperer
    from spatialwhisperer.protocols.default_model.recipe import TrainingData
    from spatialwhisperer.training.text.text_map import TextMap

UNSEEN_NEGATION = "no evidence of {}"
"""A template that training never has."""


def run(data: Path, out: Path, *, gene_encoder: str = "pca", seed: int = 0, smoke: bool = False) -> pd.DataFrame:
    """Measure all wordings and write ``paraphrases.csv`` and ``paraphrases.md``.

    Parameters
    ----------
    data
        Folder of the data.
    out
        Folder of the results.
    gene_encoder
        "pca" or "scvi".
    seed
        Of everything random.
    smoke
        Use few sections, to show that everything runs.

    Returns
    -------
    One row for each setting, section and text, with the AUROC of its class.
    """
    materials = load(data, smoke=smoke)
    recipe = replace(TrainingRecipe(), gene_encoder=gene_encoder)
    parts = []
    for patient in materials.patients:
        inform(f"without patient {patient}")
        parts.append(measure(fit_directions(patient, materials, recipe, seed), materials.words).assign(patient=patient))
    table = pd.concat(parts, ignore_index=True)
    write_text(out / "paraphrases.csv", table.to_csv(index=False))
    text = f"{report(table)}\n{markdown(negations(data))}\n"
    write_text(out / "paraphrases.md", text)
    print(text)
    return table


@dataclass(frozen=True)
class Fitted:
    """What does not depend on the words.

    Attributes
    ----------
    names
        Captions.
    rows
        Standardised gene features (n, d), captions (n, c) and groups (n,) of the training rows.
    images
        Image embeddings of each section of the left-out patient, without the constant coordinate, shape (n, d).
    truth
        Which classes are present, by section.
    features
        Text features by text; filled as texts are asked for.
    """

    names: list[str]
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]
    images: Mapping[str, np.ndarray]
    truth: Mapping[str, pd.DataFrame]
    features: dict[str, np.ndarray]

    def text(self, texts: Sequence[str]) -> np.ndarray:
        """Features of texts, shape (n, t)."""
        new = list(dict.fromkeys(t for t in texts if t not in self.features))
        if new:
            self.features.update(zip(new, sw.pp.embed_texts(new, encoder="minilm").astype(np.float64), strict=True))
        return np.stack([self.features[t] for t in texts])


def fit_directions(patient: str, materials: TrainingData, recipe: TrainingRecipe, seed: int) -> Fitted:
    """Image link and captioned rows, without a patient."""
    model = materials.fit(recipe, seed, without=patient)
    images, truth = {}, {}
    for name, section in materials.images.items():
        if name[0] == patient:
            sw.tl.embed(section, model=model, modality="image")
            images[name] = np.asarray(section["table"].obsm["X_sw_image"])[:, :-1]
            truth[name] = captions.targets(section["table"])
    names = list(model.config.labels)
    rows = [part for n, t in materials.texts.items() if n[0] != patient for part in _rows(t, model, recipe, names)]
    rows += _rows(materials.cells, model, recipe, names)
    x, holds, group = (np.concatenate(columns) for columns in zip(*rows, strict=True))
    return Fitted(names, (x, holds, group), images, truth, {})


def _rows(
    table: object, model: Whisperer, recipe: TrainingRecipe, names: Sequence[str]
) -> list[tuple[np.ndarray, ...]]:
    """Standardised gene features (n, d), captions (n, c) and groups (n,) of the rows of a table that have a caption."""
    obs = table.obs  # type: ignore[attr-defined]
    features = sw.pp.embed_genes(table, model.encoders["gene"], inplace=False)  # type: ignore[arg-type]
    x = model.standardized("gene", np.asarray(features, np.float32)).astype(np.float64)
    columns = [obs[key].astype(object).to_numpy() for key in recipe.text_key if key in obs]
    holds = np.stack([np.any([column == name for column in columns], axis=0) for name in names], axis=1)
    keep = holds.any(axis=1) & np.isfinite(x).all(axis=1)
    return [(x[keep], holds[keep], obs["patient"].astype(str).to_numpy()[keep])]


def measure(fitted: Fitted, words: Sequence[Wording]) -> pd.DataFrame:
    """AUROC of every text, in every setting.

    Parameters
    ----------
    fitted
        Image link and captioned rows.
    words
        All wordings.

    Returns
    -------
    DataFrame with ``setting``, ``section``, ``class``, ``kind``, ``text`` and ``auroc``.
    """
    parts = [
        _scored(fitted, _mapped(fitted, kept, names), asked).assign(setting=setting)
        for setting, kept, names, asked in settings(fitted.names, words)
    ]
    return pd.concat(parts, ignore_index=True)


def settings(
    names: Sequence[str], words: Sequence[Wording]
) -> Iterator[tuple[str, list[Wording], list[str], list[Wording]]]:
    """Each setting: its name, the wordings and captions that the text map is fitted to, and the texts that are asked."""
    known = [w for w in words if w.kind == "name" and w.target is not None]
    asked = [
        *known,
        *(_negated(w) for w in known),
        *(w for w in words if w.kind == "compound" and w.target is not None),
    ]
    yield "captions alone", [], list(names), asked
    yield "all seen", list(words), list(names), asked
    for number in range(N_FOLDS):
        out = {w.text for w in known[number::N_FOLDS]}
        unseen = [w for w in asked if w.text in out or (w.bases and w.bases[0] in out)]
        yield "name left out", left_out(words, out), list(names), unseen
    for target in captions.TARGETS:
        gone, own = class_captions(target, words), [w for w in known if w.target == target]
        rest = [w for w in words if w.target != target and not set(w.captions) <= gone]
        # compound texts of other classes may name this one
        rest = left_out(rest, {w.text for w in own})
        yield "class left out", rest, [n for n in names if n not in gone], own


def class_captions(target: str, words: Sequence[Wording]) -> set[str]:
    """Captions of a class: those of its concepts that no other class is prompted with."""
    others = {text for name, texts in captions.TARGETS.items() if name != target for text in texts}
    return {caption for w in words if w.target == target for caption in w.captions} - others


def _negated(word: Wording) -> Wording:
    return Wording(UNSEEN_NEGATION.format(word.text), "negation", word.concept, (word.text,))


def _mapped(fitted: Fitted, words: Sequence[Wording], names: Sequence[str]) -> TextMap:
    """The text map of some wordings and captions."""
    texts, wordings = place_wordings(names, **text_options(words, names))
    x, holds, group = fitted.rows
    kept = holds[:, [fitted.names.index(name) for name in names]]
    return fit_text_map(fitted.text(texts), text_directions(x, kept, group, len(texts), wordings), wordings)


def _scored(fitted: Fitted, mapped: TextMap, asked: Sequence[Wording]) -> pd.DataFrame:
    texts = [w.text for w in asked]
    z = mapped(fitted.text(texts), prior_odds(texts))
    z /= np.linalg.norm(z, axis=1, keepdims=True).clip(min=1e-12)
    parts = []
    for section, images in fitted.images.items():
        scores, truth = images @ z.T, fitted.truth[section]
        there = [i for i, w in enumerate(asked) if w.target in truth]
        found = aurocs(
            pd.DataFrame(scores[:, there], columns=there), pd.DataFrame({i: truth[asked[i].target] for i in there})
        )
        chosen = [asked[i] for i in found["class"]]
        parts.append(
            pd.DataFrame(
                {
                    "section": section,
                    "class": [w.target for w in chosen],
                    "kind": [w.kind for w in chosen],
                    "text": [w.text for w in chosen],
                    "auroc": found["auroc"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
