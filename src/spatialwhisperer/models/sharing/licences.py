"""Whose weights a model holds, under which licence, and whether they may be passed on with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from spatialwhisperer._frozen import frozen
from spatialwhisperer._messages import listing, warn
from spatialwhisperer.encoders.catalogue import encoder_names, get_spec
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.models.configuration.model import ModelConfig

Held = Literal["no", "fitted", "copied", "trained"]

HUB_LICENCES = frozenset(
    "agpl-3.0 apache-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 "
    "cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 "
    "cc0-1.0 gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 mit mpl-2.0 openrail pddl unlicense".split()
)
"""Names of licences as the hub writes them."""

_NONE: Mapping[str, Encoder] = frozen()
_WORDS: Mapping[str, str] = {
    "no": "not in this folder; opened by its name",
    "fitted": "in this folder: fitted to the training data",
    "copied": "in this folder, as published",
    "trained": "in this folder, trained further",
}


@dataclass(frozen=True)
class Part:
    """An encoder of a model, and where its weights are.

    Attributes
    ----------
    modality
        What it encodes.
    spec
        Facts about it; the licence is "unknown" where nobody has stated one.
    held
        Whether the model holds its weights: "no", "fitted" to the training data, "copied" as they were published, or "trained" further.
    """

    modality: str
    spec: EncoderSpec
    held: Held

    @property
    def where(self) -> str:
        """Where its weights are, in words."""
        return _WORDS[self.held]

    @property
    def may_be_passed_on(self) -> bool | None:
        """Whether its licence allows to pass on what the model holds of it; ``None`` where that is not known."""
        if self.held in ("no", "fitted"):
            return True
        name = hub_licence(self.spec.licence)
        if name is not None and "-nd" not in name:
            return True
        # "no derivatives" lets a copy pass, and nothing that was trained further; who must ask for weights gets them for themselves
        forbidden = self.spec.gated or (name is not None and self.held == "trained")
        return False if forbidden else None


def hub_licence(licence: str) -> str | None:
    """A licence as the hub writes it; ``None`` where it is none that the hub has a name for."""
    name = licence.strip().lower()
    return name if name in HUB_LICENCES else None


def parts_of(config: ModelConfig, stored: Collection[str], encoders: Mapping[str, Encoder] = _NONE) -> list[Part]:
    """Encoders of a model, in the order of its modalities; none for features that were computed elsewhere.

    Parameters
    ----------
    config
        Configuration of the model.
    stored
        Modalities whose encoder the model stores with its weights, apart from those that were trained with it.
    encoders
        Encoders that are open, by modality.
    """
    out = []
    for name, modality in config.modalities.items():
        if modality.features.encoder is None:
            continue
        encoder = encoders.get(name)
        spec = _facts(modality.features.name, name) if encoder is None else encoder.spec
        out.append(Part(name, spec, _held(spec, name in stored, trained=modality.trained)))
    return out


def check_may_be_passed_on(parts: list[Part]) -> None:
    """Refuse to publish weights whose licence forbids it, and warn of those whose licence does not say.

    Raises
    ------
    ValueError
        If a licence forbids it.
    """
    forbidden = [_named(part) for part in parts if part.may_be_passed_on is False]
    if forbidden:
        raise ValueError(
            f"This model holds weights that may not be passed on: {listing(forbidden)}. Nothing was sent. Train with that encoder "
            "locked: a model then names it and does not hold it. If its authors have allowed it, save the model and upload the "
            "folder yourself: model.save(folder)."
        )
    unknown = [_named(part) for part in parts if part.may_be_passed_on is None]
    if unknown:
        warn(
            f"This model holds weights, and nothing is known that allows to pass them on: {listing(unknown)}. Make sure that you may, "
            "and delete the repository otherwise."
        )


def _named(part: Part) -> str:
    gated = ", gated" if part.spec.gated else ""
    return f"{part.modality} encoder {part.spec.name!r} ({part.where}; licence: {part.spec.licence}{gated})"


def _held(spec: EncoderSpec, stored: bool, *, trained: bool) -> Held:
    if trained:
        return "trained"
    if not stored:
        return "no"
    return "fitted" if spec.name in encoder_names(spec.modality, fits=True) else "copied"


def _facts(name: str, modality: str) -> EncoderSpec:
    try:
        return get_spec(name, modality)
    except ValueError:
        return EncoderSpec(name, modality, None)
