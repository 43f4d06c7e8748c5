"""A small sample of the training data that a model keeps: embeddings, profiles, and statistics of its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._frozen import FrozenMapping, frozen
from spatialwhisperer._messages import listing
from spatialwhisperer._storage.schema import Stored, from_plain, to_plain
from spatialwhisperer.models.training_range import (
    FAR,
    LEAST_LOOK,
    MARGIN,
    Unseen,
    image_scale,
    look_scale,
    nearest,
    row_limit,
    section_limit,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

KIND = "reference"
_NOTHING: Mapping[str, np.ndarray] = FrozenMapping({})

_TOGETHER = (
    ("pair_image", "pair_bridge", "pair_group"),
    ("text_bridge", "text_caption", "text_group"),
    ("feature_mean", "feature_std"),
    ("look", "unseen_look"),
    ("trained_name", "trained_row", "trained_section"),
)
"""Arrays whose rows belong together: either all of a group are there, or none."""

_KNOWN = {name for group in _TOGETHER for name in group} | {
    "caption",
    "profile",
    "excess_cross_entropy",
    "feature_sample",
    "unseen_row",
    "unseen_section",
    "look",
    "unseen_look",
}


@dataclass(frozen=True)
class ReferenceConfig(Stored):
    """What the arrays of a reference stand for.

    Attributes
    ----------
    bridge
        Modality that both images and texts are paired with, usually "gene".
    n
        Number of training pairs that the sample was drawn from, by the names of their modalities.
    captions
        Texts of the rows of ``caption``.
    sections, section_rows
        Training sections of the rows of ``feature_mean``, and how many training rows each has.
    mpp
        Lowest and highest microns per pixel of the training images; ``None`` where they are not known.
    encoder, tile_um, tile_px
        Name of the image encoder, and the tiles of its features; ``None`` where they are not known.
    unseen
        What was left out in turn to measure distances of tissue that is not among the training sections: patients ("groups"),
        "sections" of one patient, or nothing ("rows" of one section). ``None`` where the distances were not measured.
    trained_sections
        Training sections that are recognised by some of their rows.
    """

    bridge: str = "gene"
    n: Mapping[str, int] = field(default_factory=frozen)
    captions: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    section_rows: tuple[int, ...] = ()
    mpp: tuple[float, float] | None = None
    encoder: str | None = None
    tile_um: tuple[float, ...] = ()
    tile_px: int | None = None
    unseen: Unseen | None = None
    trained_sections: tuple[str, ...] = ()


class Reference:
    """A sample of the training data in the joint space, and statistics of the training images.

    Parameters
    ----------
    config
        What the arrays stand for.
    arrays
        Arrays by name. Which ones there are depends on the modalities of the training data:

        ``pair_image``, ``pair_bridge`` : unit embeddings of pairs of an image and the bridge modality, shape (n, u);
        ``pair_group``: code of the patient (group) of each

        ``text_bridge`` : unit embeddings of rows of the bridge modality with a caption, shape (m, u); ``text_caption``: row of
        ``caption`` of each; ``text_group``: code of the patient (group) of each

        ``profile`` : logarithm of the fraction of each gene of the gene encoder in the counts of a caption's rows, shape (p, genes);
        ``excess_cross_entropy``: of single training rows under the profiles of the other groups, shape (r,)

        ``caption`` : unit embeddings of the captions, shape (c, u)

        ``feature_mean``, ``feature_std`` : raw image features by training section, shape (s, d); ``feature_sample``: some
        standardised ones, shape (k, d)

        ``unseen_row`` : quantiles of the distance of training rows from the sections of other patients, shape (q,);
        ``unseen_section``: distance of each training section from them, shape (s,)

        ``look`` : what the image encoder saw of the image of each training section (:class:`~spatialwhisperer.models.ImageEncoder`),
        shape (s, 2 l); ``unseen_look``: its distance from those of other patients, shape (s,)

        ``trained_name``, ``trained_row`` : hashes of the name, and of name and position, of some rows of each training section,
        shape (t,); ``trained_section``: position of the section of each in ``config.trained_sections``

        ``mean_<modality>`` : mean embedding of the training rows, shape (u,)

    Raises
    ------
    ValueError
        If the arrays do not fit each other, or hold values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> reference = sw.models.Reference(arrays={"mean_image": np.ones(4, np.float32)})
    >>> reference.has("mean_image"), reference.has("pair_bridge")
    (True, False)
    """

    def __init__(self, config: ReferenceConfig | None = None, arrays: Mapping[str, np.ndarray] = _NOTHING) -> None:
        self.config = config or ReferenceConfig()
        self.arrays = {name: np.asarray(value) for name, value in arrays.items()}
        _check(self.config, self.arrays)

    def has(self, *names: str) -> bool:
        """Whether all these arrays are there."""
        return all(name in self.arrays for name in names)

    def unit(self, name: str) -> np.ndarray:
        """Embeddings as float64, scaled to unit length again because they are stored in half precision.

        Raises
        ------
        KeyError
            If there is no array of that name.
        """
        if name not in self.arrays:
            raise KeyError(f"This model's reference has no {name!r} (found: {listing(sorted(self.arrays))}).")
        z = self.arrays[name].astype(np.float64)
        return z / np.linalg.norm(z, axis=1, keepdims=True).clip(min=1e-12)

    @property
    def captions(self) -> list[str]:
        """Texts of the captions."""
        return list(self.config.captions)

    def image_distance(self, features: np.ndarray) -> float:
        """How far the mean of a section's raw image features lies from the nearest training section's.

        It is the root mean square over the features of the difference of the means, in standard deviations of training rows (pooled
        within sections), cut off at ten for each feature. Sections of the same tissue and stain usually lie below 1, and images with
        changed colours above 2.

        Parameters
        ----------
        features
            Image features of the rows of one section before they are standardised, shape (n, d); rows with NaN are left out.

        Raises
        ------
        KeyError
            If the reference has no image features.
        ValueError
            If no row is complete, or d differs.
        """
        complete = np.asarray(features)[np.isfinite(features).all(axis=1)].astype(np.float64)
        centres, sd = self._image_scale()
        if not len(complete) or complete.shape[1] != centres.shape[1]:
            raise ValueError(
                f"features need complete rows of {centres.shape[1]} values; found {len(complete)} of "
                f"{np.shape(features)[1]} values."
            )
        return float(nearest(complete.mean(axis=0)[None], centres, sd)[0])

    def row_distance(self, features: np.ndarray) -> np.ndarray:
        """How far each row lies from the mean of the nearest training section; see :meth:`image_distance`.

        Within a training section the root mean square is 1.

        Parameters
        ----------
        features
            Image features before they are standardised, shape (n, d).

        Returns
        -------
        float32 of shape (n,); NaN in rows that are not complete.

        Raises
        ------
        KeyError
            If the reference has no image features.
        ValueError
            If d differs.
        """
        features = np.asarray(features)
        centres, sd = self._image_scale()
        if features.ndim != 2 or features.shape[1] != centres.shape[1]:
            raise ValueError(f"features need rows of {centres.shape[1]} values; found shape {features.shape}.")
        out = np.full(len(features), np.nan, np.float32)
        complete = np.isfinite(features).all(axis=1)
        out[complete] = nearest(features[complete], centres, sd)
        return out

    def look_distance(self, look: Sequence[float]) -> float | None:
        """How far an image lies from the training images by what the encoder saw of it, such as its stains.

        It is stated so that :meth:`image_limit` is its limit too. ``None`` where the reference, or the encoder of the image, has seen
        nothing.

        Parameters
        ----------
        look
            What the encoder saw of the image, shape (2 l,).
        """
        if not self.has("look") or len(look) != self.arrays["look"].shape[1]:
            return None
        own = np.asarray(look, dtype=np.float64)[None, : len(look) // 2]
        patients = self.config.unseen == "groups"
        limit = max(LEAST_LOOK if patients else FAR, MARGIN * float(self.arrays["unseen_look"].max()))
        return float(nearest(own, *look_scale(self.arrays["look"].astype(np.float64)))[0]) * self.image_limit() / limit

    def image_limit(self) -> float:
        """Distance beyond which a section is unlike the training sections.

        Where patients were left out in turn, it is 1.5 times the largest distance of their sections, and at least 1. Else it is 2, or
        1.5 times the largest distance of a training section from the others, if that is more.
        """
        if self.config.unseen == "groups":
            return section_limit(self.arrays["unseen_section"])
        centres, sd = self._image_scale()
        if len(centres) < 2:
            return FAR
        others = [nearest(centres[i][None], np.delete(centres, i, axis=0), sd)[0] for i in range(len(centres))]
        return max(FAR, 1.5 * float(max(others)))

    def row_limit(self) -> float | None:
        """Distance beyond which a row is unlike the training rows; ``None`` where the reference does not tell.

        It is exceeded by 2.5 % of the rows of patients that are left out. Where all training sections are of one patient, it is 1.25
        times what 2.5 % of the rows of sections that are left out exceed.
        """
        if self.config.unseen is None:
            return None
        return row_limit(self.arrays["unseen_row"], patients=self.config.unseen == "groups")

    def _image_scale(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.has("feature_mean"):
            raise KeyError(
                "This model's reference has no image features: the model has no images, or trained its image encoder."
            )
        return image_scale(self.arrays["feature_mean"], self.arrays["feature_std"])

    def __repr__(self) -> str:
        parts = [f"{name} {'x'.join(map(str, value.shape))}" for name, value in sorted(self.arrays.items())]
        return f"Reference: {', '.join(parts) or 'empty'}"

    def artifact(self) -> Artifact:
        """Return everything that is stored of the reference."""
        return Artifact(KIND, to_plain(self.config), self.arrays)

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Reference:
        """Build the reference that was stored.

        Raises
        ------
        ValueError
            If a value is missing or of another type, or arrays do not fit each other.
        """
        config = from_plain(ReferenceConfig, artifact.config, "the configuration of a reference")
        return cls(config, artifact.tensors)


def _check(config: ReferenceConfig, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse arrays that do not fit each other."""
    unknown = sorted(name for name in set(arrays) - _KNOWN if not name.startswith("mean_"))
    if unknown:
        raise ValueError(
            f"A reference has no arrays named {listing(unknown)} (it may have: {listing(sorted(_KNOWN), 20)})."
        )
    for group in _TOGETHER:
        sizes = {name: len(arrays[name]) for name in group if name in arrays}
        if sizes and (len(sizes) < len(group) or len(set(sizes.values())) > 1):
            raise ValueError(f"{listing(group)} of a reference need one row each for the same things; found {sizes}.")
    needed = {"feature_mean", "unseen_row", "unseen_section"}
    if config.unseen is not None and not needed <= set(arrays):
        raise ValueError(
            f"A reference with distances of unseen {config.unseen} needs {listing(sorted(needed))}; found "
            f"{listing(sorted(needed & set(arrays)))}."
        )
    flat = {name: arrays[name].shape for name in ("unseen_row", "unseen_section") if name in arrays}
    if any(len(shape) != 1 or not shape[0] for shape in flat.values()):
        raise ValueError(f"The distances of a reference need one dimension and a value; found {flat}.")
    if bool(config.trained_sections) != ("trained_row" in arrays):
        raise ValueError("trained_sections of the reference and the arrays of their rows go together.")
    if "trained_section" in arrays:
        codes, n = arrays["trained_section"], len(config.trained_sections)
        if not 0 <= codes.min(initial=0) <= codes.max(initial=0) < n:
            raise ValueError(f"trained_section of the reference does not fit its {n} trained sections.")
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name!r} of the reference holds values that are not finite.")
    if "text_caption" in arrays:
        n = len(arrays["caption"]) if "caption" in arrays else 0
        index = arrays["text_caption"]
        if len(config.captions) != n or (len(index) and not 0 <= index.min() <= index.max() < n):
            raise ValueError(
                f"text_caption of the reference does not fit its {n} captions ({len(config.captions)} texts)."
            )
