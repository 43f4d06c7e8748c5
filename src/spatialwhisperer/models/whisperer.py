"""The model: towers (frozen features by default), heads and one temperature, for any of image, gene and text."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn
from torch.nn import functional

from spatialwhisperer._messages import found
from spatialwhisperer.models import default, store
from spatialwhisperer.models.parts import MODALITIES
from spatialwhisperer.networks.context import apply_context, make_context, section_neighbours
from spatialwhisperer.networks.decoder import make_decoder
from spatialwhisperer.networks.heads import make_head
from spatialwhisperer.settings import settings
from spatialwhisperer.statistics.standardize import CLIP, standardize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from spatialwhisperer.models.expression import ExpressionPredictor
    from spatialwhisperer.models.reference import Reference
    from spatialwhisperer.models.vocabulary import Vocabulary


class Whisperer(nn.Module, PyTorchModelHubMixin):
    """A joint space of H&E images, gene expression and text.

    Made by :func:`spatialwhisperer.tl.train`, or opened with :meth:`load`. It works on arrays; the functions in
    ``sw.tl`` read and write the containers.

    Parameters
    ----------
    config
        Plain values: heads and their dimensions, encoders, tile size, standardisation, training manifest.
    towers
        Trained towers by modality; empty when all features are frozen.

    Attributes
    ----------
    config
        See above; what ``config.json`` holds.
    gene_encoder
        Fitted gene encoder that turns counts into features, or ``None``.
    expression
        What predicts expression (bank of training observations, regression), or ``None``.
    vocabulary
        Labels, their descriptions and the features of known texts, or ``None``.
    reference
        What the model remembers of its training tissue, or ``None``.
    history
        Losses by step and epoch, empty for an opened model.
    folder
        Where the last checkpoint was written or the model was opened, or ``None``.

    Examples
    --------
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> heads = {"gene": {"kind": "linear_norm", "in_dim": 8}, "text": {"kind": "bn_shortcut", "in_dim": 6}}
    >>> model = sw.models.Whisperer({"projection_dim": 4, "heads": heads})
    >>> model.project("gene", np.ones((2, 8), np.float32)).shape
    (2, 4)
    """

    def __init__(self, config: dict[str, Any], towers: dict[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.config = copy.deepcopy(config)
        self.config.setdefault("temperature", 0.07)
        self.config.setdefault("standardize", {})
        self.config.setdefault("encoders", {})
        self.config.setdefault("norm", "l2")
        self.config.setdefault("contexts", {})
        width = int(config["projection_dim"])
        self.heads = nn.ModuleDict()
        for modality, head in config["heads"].items():
            options = {k: v for k, v in head.items() if k not in ("kind", "in_dim")}
            self.heads[modality] = make_head(head["kind"], head["in_dim"], width, **options)
            self.register_buffer(f"{modality}_mean", torch.zeros(self.feature_dim(modality)))
            self.register_buffer(f"{modality}_std", torch.ones(self.feature_dim(modality)))
        self.contexts = nn.ModuleDict(
            {
                m: make_context(c["kind"], c["in_dim"], **c.get("options", {}))
                for m, c in self.config["contexts"].items()
            }
        )
        decoder = self.config.get("decoder")
        self.decoder = None if decoder is None else make_decoder(width, **decoder)
        self.towers = nn.ModuleDict(towers or {})
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / self.config["temperature"])))
        self.gene_encoder: Any = None
        self.expression: ExpressionPredictor | None = None
        self.vocabulary: Vocabulary | None = None
        self.reference: Reference | None = None
        self.folder: Path | None = None
        self.history: pd.DataFrame = _no_history()
        self.eval()

    # ------------------------------------------------------------------------------------------- what it is

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that have a head."""
        return tuple(self.heads)

    @property
    def scale(self) -> float:
        """Inverse temperature that multiplies cosines before a softmax."""
        return float(self.log_scale.detach().exp())

    @property
    def labels(self) -> list[str]:
        """Labels that an annotation offers by itself: those of the vocabulary, else the captions seen in training."""
        return list(self.config.get("labels", []) if self.vocabulary is None else self.vocabulary.labels)

    def prompts(self, label: str) -> list[str]:
        """Descriptions of a label of the vocabulary; of any other text the text itself."""
        return [label] if self.vocabulary is None else self.vocabulary.prompts(label)

    def feature_dim(self, modality: str) -> int:
        """Features of a row before context and head."""
        context = self.config["contexts"].get(modality)
        return int((context or self.config["heads"][modality])["in_dim"])

    def __repr__(self) -> str:
        lines = [f"Whisperer: {' + '.join(self.heads)} in {self.config['projection_dim']} dimensions"]
        for modality, head in self.config["heads"].items():
            encoder = self.config["encoders"].get(modality, {}).get("name", "given features")
            trained = ", trained" if modality in self.towers else ""
            context = self.config["contexts"].get(modality)
            seen = f" -> {context['kind']}" if context else ""
            lines.append(f"  {modality}: {encoder}{trained} ({self.feature_dim(modality)}){seen} -> {head['kind']}")
        if self.expression is not None:
            lines.append(f"  expression: {self.expression!r}")
        training = self.config.get("training", {})
        if training:
            counts = ", ".join(f"{n} {pair}" for pair, n in training.get("pairs", {}).items())
            lines.append(
                f"  trained {training.get('schedule')} on {counts}; groups: {found(training.get('groups', []), 8)}"
            )
        return "\n".join(lines)

    # ------------------------------------------------------------------------------------------- forward

    def forward(self, modality: str, x: Any) -> torch.Tensor:
        """Unit embeddings of standardised features, or of raw input where the modality has a tower; shape (n, u)."""
        return functional.normalize(self.project_tensor(modality, x), dim=-1)

    def project_tensor(self, modality: str, x: Any) -> torch.Tensor:
        """Head of features with their context, or of raw input where the modality has a tower; rows keep their length."""
        if modality in self.towers:
            x = self.towers[modality](x).float()
            if not isinstance(x, torch.Tensor) or x.ndim != 2:
                raise ValueError(f"The {modality} tower must return a matrix of shape (n, d).")
        return self.heads[modality](x)

    def scaled(self, z: torch.Tensor) -> torch.Tensor:
        """Rows as the loss compares them: of unit length, or as the head gives them."""
        return functional.normalize(z, dim=-1) if self.config["norm"] == "l2" else z

    @torch.inference_mode()
    def project(
        self,
        modality: str,
        features: np.ndarray,
        *,
        sections: Sequence[str] | np.ndarray | None = None,
        positions: np.ndarray | None = None,
        unit: bool = True,
        batch_size: int = 8192,
        device: str | None = None,
    ) -> np.ndarray:
        """Map features of one modality into the joint space.

        Parameters
        ----------
        modality
            "image", "gene" or "text".
        features
            Encoder features, shape (n, d); for a modality with a tower its raw input. Rows with NaN stay NaN.
        sections
            Section of each row, shape (n,), for modalities that are standardised within sections; one section if not given.
        positions
            Where each row lies, shape (n, 2), for modalities with a context: any length unit that is one within a section,
            or array coordinates for "batch_peer".
        unit
            Scale rows to unit length.
        batch_size
            Rows in one pass; the result does not depend on it.
        device
            Torch device; ``settings.device`` if not given.

        Returns
        -------
        float32 array of shape (n, u).

        Raises
        ------
        KeyError
            If the model has no such modality.
        ValueError
            If the number of features is not what the head expects, or a context needs positions.
        """
        if modality not in self.heads:
            raise KeyError(f"This model has no {modality} side (it has: {found(self.heads)}).")
        device = settings.resolve_device(device)
        was = next(self.parameters()).device
        self.eval().to(device)
        try:
            if modality in self.towers:
                chunks = self._tower_chunks(modality, features, min(batch_size, settings.batch_size))
            else:
                chunks = self._feature_chunks(modality, features, sections, positions, batch_size)
            width = int(self.config["projection_dim"])
            n = features.shape[0] if hasattr(features, "shape") else len(features)
            out = np.full((n, width), np.nan, np.float32)
            for rows, x in chunks:
                z = self.project_tensor(modality, _to(x, device))
                out[rows] = (functional.normalize(z, dim=-1) if unit else z).float().cpu().numpy()
            return out
        finally:
            self.to(was)

    def _feature_chunks(
        self, modality: str, features: np.ndarray, sections: Any, positions: Any, batch_size: int
    ) -> Any:
        x = self.contextual(modality, features, sections=sections, positions=positions)
        rows = np.flatnonzero(np.isfinite(x).all(axis=1))
        for start in range(0, len(rows), batch_size):
            take = rows[start : start + batch_size]
            yield take, torch.from_numpy(x[take])

    @torch.inference_mode()
    def contextual(
        self, modality: str, features: np.ndarray, *, sections: Any = None, positions: np.ndarray | None = None
    ) -> np.ndarray:
        """What the head takes: standardised features with their context, float32 (n, d); rows with NaN stay NaN.

        Raises
        ------
        ValueError
            If the number of features is not what the model expects, or a context needs positions.
        """
        expected = self.feature_dim(modality)
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or features.shape[1] != expected:
            name = self.config["encoders"].get(modality, {}).get("name", "the encoder used in training")
            raise ValueError(
                f"The {modality} side expects features of shape (n, {expected}) from {name!r}; found {features.shape}."
            )
        x = self.standardized(modality, features, sections)
        if modality not in self.contexts:
            return x
        context = self.config["contexts"][modality]
        if positions is None:
            raise ValueError(
                f"The {modality} side sees neighbours ({context['kind']}): pass positions of shape (n, 2)."
            )
        module = self.contexts[modality]
        complete = np.isfinite(x).all(axis=1)
        if module.needs == "positions":
            where: dict[str, Any] = {"positions": torch.from_numpy(positions[complete].astype(np.int64))}
            where["chunk"] = context.get("chunk")
        else:
            codes = np.zeros(len(x), int) if sections is None else np.asarray(sections)
            xy, codes = np.asarray(positions)[complete], codes[complete]
            where = {"neighbourhood": section_neighbours(xy, codes, module.n_neighbours)}
        seen = apply_context(module, torch.from_numpy(x[complete]), **where)
        out = np.full((len(x), seen.shape[1]), np.nan, np.float32)
        out[complete] = seen.float().numpy()
        return out

    def _tower_chunks(self, modality: str, inputs: Any, batch_size: int) -> Any:
        tower = self.towers[modality]
        n = inputs.shape[0] if hasattr(inputs, "shape") else len(inputs)
        for start in range(0, n, batch_size):
            rows = np.arange(start, min(start + batch_size, n))
            yield rows, tower.collate(inputs[start : start + batch_size])

    def standardized(self, modality: str, features: np.ndarray, sections: Any = None) -> np.ndarray:
        """Standardise features the way the head was trained; see :mod:`spatialwhisperer.statistics.standardize`."""
        mean, std = (getattr(self, f"{modality}_{k}").cpu().numpy() for k in ("mean", "std"))
        how = self.config["standardize"].get(modality, "none")
        return standardize(features, how=how, mean=mean, std=std, sections=sections, clip=CLIP)

    # ------------------------------------------------------------------------------------------- storage

    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder: ``config.json``, ``model.safetensors`` and what its encoders need.

        The folder appears whole or not at all. An existing model there is replaced.

        Returns
        -------
        The folder.
        """
        folder = store.write_folder(folder, self._save_pretrained)
        self.folder = folder
        return folder

    @classmethod
    def load(cls, source: str | Path, *, towers: dict[str, nn.Module] | None = None, **hub: Any) -> Whisperer:
        """Open a model from a folder, from a Hugging Face repository, or the embedded one by its name.

        Nothing is unpickled: weights are safetensors, everything else is JSON.

        Parameters
        ----------
        source
            Folder written by :meth:`save`, ``"owner/name"`` on the hub, or ``"her2st-mini"``.
        towers
            Towers that are the caller's own modules and cannot be rebuilt from the configuration.
        **hub
            ``revision``, ``token``, ``cache_dir`` … for the hub.

        Raises
        ------
        FileNotFoundError
            If the folder holds no model.
        ValueError
            If a file is cut off, changed, missing or not one of the model's, or the folder holds a pickle. Nothing is built then.
        """
        path = Path(source).expanduser()
        if not path.is_dir():
            if str(source) == default.NAME:
                return default.open_embedded(cls)
            if "/" not in str(source) or path.is_absolute() or str(source).startswith("."):
                raise FileNotFoundError(f"There is no folder {path} to open a model from.")
            path = store.fetch(str(source), **({"local_files_only": settings.offline} | hub))
        return store.read_folder(cls, path, towers)

    def save_pretrained(self, save_directory: str | Path, **hub: Any) -> str | None:
        """Write the model and a card to a new folder, the Hugging Face way; :meth:`save` also replaces a model.

        Raises
        ------
        FileExistsError
            If the folder holds files of a model.
        """
        store.check_free(Path(save_directory))
        return super().save_pretrained(save_directory, **hub)

    def _save_pretrained(self, save_directory: Path) -> None:
        store.write_files(self, Path(save_directory))

    @classmethod
    def _from_pretrained(cls, *, model_id: str, towers: Any = None, **hub: Any) -> Whisperer:
        folder = Path(model_id) if Path(model_id).is_dir() else store.fetch(model_id, **hub)
        return store.read_folder(cls, folder, towers)


def _no_history() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=["phase", "epoch", "step", "loss"])


def _to(x: Any, device: str) -> Any:
    if isinstance(x, dict):
        return {key: value.to(device) for key, value in x.items()}
    return x.to(device)


__all__ = ["MODALITIES", "Whisperer"]
