"""Published models of images and texts as rows of the comparison: they label a section from its image, and train on nothing here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import spatialwhisperer as sw
from spatialwhisperer._messages import inform
from spatialwhisperer.models.published.names import image_text_names
from spatialwhisperer.protocols import captions

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from spatialdata import SpatialData

    from spatialwhisperer.models import Whisperer


@dataclass
class Baselines:
    """The models that were asked for.

    Attributes
    ----------
    models
        Those that were opened, by name.
    left_out
        Why each of the others was not, by name; or by name and section, where a section could not be labelled.
    """

    models: dict[str, Whisperer] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def scores(self, section: SpatialData, place: str) -> dict[str, pd.DataFrame]:
        """Scores of the target classes for each spot of a section, by model; ``place`` names the section where there are none."""
        out = {}
        for name, model in self.models.items():
            try:
                found = sw.tl.zero_shot_annotate(section, captions.TARGETS, model=model, inplace=False)
            except ValueError as error:
                self._leave_out(f"{name} on {place}", error)
                continue
            if found is None:
                raise TypeError("zero_shot_annotate(inplace=False) returns the scores.")
            out[name] = found.reset_index(drop=True)
        return out

    def _leave_out(self, name: str, error: Exception) -> None:
        self.left_out[name] = " ".join(str(error).split())
        inform(f"left out: {name}. {self.left_out[name]}")

    def notes(self) -> str:
        """What was left out, as a list in Markdown; empty where nothing was."""
        if not self.left_out:
            return ""
        lines = [f"- {name}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join(["Published models of images and texts that were left out:", "", *lines, ""])


def check_names(names: Sequence[str]) -> None:
    """Refuse what is no model of images and texts.

    Raises
    ------
    ValueError
        If a name is unknown, or its text encoder is not supported.
    """
    for name in names:
        if name not in image_text_names():
            # says which there are, or why the text encoder of this one is missing
            sw.models.image_text_model(name)


def open_here(names: Sequence[str]) -> Baselines:
    """Open the models whose files are on this machine; nothing is downloaded.

    Parameters
    ----------
    names
        See :func:`spatialwhisperer.models.image_text_model`.
    """
    check_names(names)
    out = Baselines()
    for name in dict.fromkeys(names):
        try:
            with sw.settings.override(offline=True):
                out.models[name] = sw.models.image_text_model(name)
        except (FileNotFoundError, ImportError, ValueError) as error:
            out._leave_out(name, error)
    return out
