"""The model: a joint space with its encoders, its prediction of expression, its vocabulary and its storage."""

from __future__ import annotations

from dataclasses import fields, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._annotations import numbers
from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import inform, listing
from spatialwhisperer._random import untouched_rng
from spatialwhisperer._storage.untrusted import opening
from spatialwhisperer.encoders.resolve import check_allowed
from spatialwhisperer.models import store
from spatialwhisperer.models.card import describe, introduction
from spatialwhisperer.models.configuration.model import ModelConfig
from spatialwhisperer.models.expression.predictor import ExpressionPredictor
from spatialwhisperer.models.joint_space import JointSpace
from spatialwhisperer.models.opening import check_sizes, encoder_part, fill, open_encoders, sketched
from spatialwhisperer.models.reference import Reference
from spatialwhisperer.models.sharing.on_hub import OnHub
from spatialwhisperer.models.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.models.opening import Given

KIND = "model"
_CHANGEABLE = ("annotation", "card", "labels", "training")


class Whisperer(JointSpace, OnHub):
    """A joint space of H&E images, gene expression and text.

    Made by :func:`spatialwhisperer.tl.train`, or opened with :meth:`load`. It works on arrays; the functions in
    ``sw.tl`` read and write AnnData and SpatialData.

    Parameters
    ----------
    config
        Everything about the model but its weights.
    encoders
        Encoders by modality: those that are trained with the model, fitted gene encoders, and others that cannot be opened by
        their name.

    Attributes
    ----------
    config
        See :class:`ModelConfig`. It is frozen; :meth:`update` replaces it.
    encoders
        See above. Encoders that were opened later are added.
    expression
        Predictor of expression (bank of training observations, regression); ``None`` where the model has none.
    vocabulary
        Labels, their descriptions and the features of texts; ``None`` where the model has none.
    reference
        A small sample of the training data; ``None`` where the model has none.
    history
        One row per epoch, with the mean of each loss over its batches; empty for an opened model.
    folder
        Folder that the model was saved to last or opened from; ``None`` where there is none.

    Examples
    --------
    >>> import numpy as np
    >>> import spatialwhisperer as sw
    >>> model = sw.models.default_model()
    >>> features = np.zeros((2, model.config.modality("image").feature_dim), np.float32)
    >>> model.project("image", features, positions=np.zeros((2, 2))).shape
    (2, 33)
    """

    def __init__(self, config: ModelConfig, *, encoders: Mapping[str, Encoder] | None = None) -> None:
        super().__init__(config, encoders=encoders)
        self.expression: ExpressionPredictor | None = None
        self.vocabulary: Vocabulary | None = None
        self.reference: Reference | None = None
        self.folder: Path | None = None
        self.history: pd.DataFrame = _no_history()

    # ------------------------------------------------------------------------------------------- what it is

    @property
    def labels(self) -> list[str]:
        """Default labels of an annotation: those of the vocabulary, else the captions of the training data."""
        return list(self.config.labels if self.vocabulary is None else self.vocabulary.labels)

    def prompts(self, label: str) -> list[str]:
        """Descriptions of a label of the vocabulary; any other text stands for itself."""
        return [label] if self.vocabulary is None else self.vocabulary.prompts(label)

    def __repr__(self) -> str:
        return describe(self.config, None if self.expression is None else repr(self.expression))

    # ------------------------------------------------------------------------------------------- changes

    def update(self, **changes: Any) -> None:
        """Replace values of the configuration that no weights depend on: ``labels``, ``training``, ``annotation``, ``card``.

        Raises
        ------
        TypeError
            If there is no value of that name, or weights depend on it.
        """
        for name in changes:
            if name not in _CHANGEABLE:
                fixed = name in {f.name for f in fields(ModelConfig)}
                near = get_close_matches(name, _CHANGEABLE, n=1)
                why = "has weights that depend on it" if fixed else "has no such value"
                hint = f" Did you mean {near[0]!r}?" if near and not fixed else ""
                raise TypeError(f"{name!r} cannot be changed: a model {why}.{hint} It takes {listing(_CHANGEABLE)}.")
        self.config = replace(self.config, **changes)

    # ------------------------------------------------------------------------------------------- expression

    def regression_input(
        self, features: Any, *, sections: Any = None, positions: np.ndarray | None = None
    ) -> np.ndarray:
        """Standardised image features, the input of the regression of expression.

        A context is included only where it has no trained parameters.
        """
        learnt = "image" in self.contexts and any(True for _ in self.contexts["image"].parameters())
        if learnt or "image" not in self.contexts:
            return self.standardized("image", np.asarray(features, np.float32), sections)
        return self.contextual("image", features, sections=sections, positions=positions)

    @checked
    def predict_expression(
        self,
        features: Any,
        *,
        method: str | None = None,
        sections: Sequence[Any] | np.ndarray | None = None,
        positions: np.ndarray | None = None,
        regression_features: np.ndarray | None = None,
        k: int | None = None,
        exclude: tuple[str, np.ndarray] | None = None,
        device: str | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict expression from image features.

        Parameters
        ----------
        features
            Image features (n, d), or tiles where the image encoder is trained.
        method
            "retrieval", "regression" or "both"; ``None`` takes the default of the model.
        sections, positions
            Section and position of each row; see :meth:`project`.
        regression_features
            Features of the regression (n, e) as its encoders compute them, in the order of ``expression.config.own_features``; ``None``
            where the images are too coarse for them, and the regression then reads the image features of the model.
        k
            Number of neighbours; ``None`` takes that of the model.
        exclude
            "section" or "group", and the name of it for each row: bank observations of the same name are not used.
        device
            Torch device.

        Returns
        -------
        Predicted values float32 (n, g), and the standard deviation among the retrieved neighbours, mean over the genes (n,), as
        `ExpressionPredictor.predict` does. Rows with NaN in the features are NaN.

        Raises
        ------
        ValueError
            If the model predicts no expression, the method is unknown, ``k`` is larger than the bank, or ``regression_features`` are
            not those of its regression.
        """
        if self.expression is None:
            raise ValueError("This model did not learn to predict expression. Train it with expression=True.")
        method = self.expression.check_method(method)
        z = self.project("image", features, sections=sections, positions=positions, unit=False, device=device)
        regressed = None
        if regression_features is not None and method != "retrieval":
            own_features = numbers("regression_features", regression_features, (None, None))
            if len(own_features) != len(z):
                raise ValueError(f"regression_features has {len(own_features)} rows, features {len(z)}.")
            regressed = self.expression.regress_own(own_features, sections)
        elif method != "retrieval":
            kind = self.expression.config.regression
            if kind == "decoder":
                regressed = self.decoded(z)
            else:
                x = (
                    z
                    if kind == "embedding"
                    else self.regression_input(features, sections=sections, positions=positions)
                )
                regressed = self.expression.regress(x)
        own = regression_features is not None
        return self.expression.predict(z, regressed, method=method, k=k, own=own, exclude=exclude, device=device)

    # ------------------------------------------------------------------------------------------- storage

    def artifact(self) -> Artifact:
        """Return everything that is stored of the model."""
        tensors = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        stored = {"expression": self.expression, "vocabulary": self.vocabulary, "reference": self.reference}
        parts = {name: part.artifact() for name, part in stored.items() if part is not None}
        for name, encoder in self.encoders.items():
            identity, trained = self.config.modality(name).features.encoder, name in self.towers
            if trained or identity is None or not identity.by_name:
                part = encoder.artifact(trained=trained)
                if part is not None:
                    parts[encoder_part(name)] = part
        return Artifact(KIND, self.config.to_json(), tensors, parts)

    @classmethod
    def from_artifact(
        cls,
        artifact: Artifact,
        *,
        encoders: Mapping[str, Given] | None = None,
        allow_encoders: Collection[str] = (),
    ) -> Whisperer:
        """Build the model that was stored.

        Parameters
        ----------
        artifact
            What `artifact` returned, or what was read from a folder.
        encoders, allow_encoders
            See :meth:`load`.

        Raises
        ------
        KeyError
            If an encoder is of a modality that the model does not have.
        ValueError
            If the configuration is not one of this version, the weights do not fit it, or an encoder is not the one of the model.
        """
        config = ModelConfig.from_json(artifact.config)
        check_sizes(config, artifact.tensors)
        with untouched_rng():
            opened = open_encoders(config, artifact, encoders or {}, allow_encoders)
            with opening("The configuration of this model", own=(ValueError, KeyError)), sketched(artifact):
                model = cls(config, encoders=opened)
            with opening("The weights of this model", own=(ValueError,)):
                fill(model, artifact.tensors)
        parts = artifact.parts
        with opening("The predictor of expression of this model", own=(ValueError, KeyError)):
            if "expression" in parts:
                model.expression = ExpressionPredictor.from_artifact(parts["expression"])
        with opening("The vocabulary of this model", own=(ValueError, KeyError)):
            if "vocabulary" in parts:
                model.vocabulary = Vocabulary.from_artifact(parts["vocabulary"])
        with opening("The reference of this model", own=(ValueError, KeyError)):
            if "reference" in parts:
                model.reference = Reference.from_artifact(parts["reference"])
        return model.eval()

    @checked
    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder: ``config.json``, ``model.safetensors``, a subfolder for each part, and its card ``README.md``.

        The folder appears whole or not at all. An existing model there is replaced; other files in its folder stay, and so does a card
        that somebody edited.

        Returns
        -------
        The folder.

        Raises
        ------
        FileExistsError
            If the folder holds something else, or, beside a model, a file that could be taken for a part of it.
        """
        artifact = self.artifact()
        self.folder = artifact.write(folder, notes=self.notes_for(folder, artifact))
        return self.folder

    @classmethod
    @checked
    def load(
        cls,
        source: str | Path,
        *,
        encoders: Mapping[str, Given] | None = None,
        allow_encoders: Collection[str | Path] = (),
        **hub: Any,
    ) -> Whisperer:
        """Open a model from a folder, from a Hugging Face repository, or the embedded one by its name.

        Nothing is unpickled and no code of the folder is run: weights are safetensors, everything else is JSON. Other folders and
        models on the hub that the model names are not opened, unless they are allowed.

        Parameters
        ----------
        source
            Folder written by :meth:`save`, ``"owner/name"`` on the hub, or ``"her2st-mini"``.
        encoders
            Encoders by modality that the model was trained with and that cannot be opened by a registered name, as they were given to
            :func:`spatialwhisperer.tl.train`: a torch module, a folder, or an encoder. A module that was trained takes its weights
            from the model, so that a fresh one will do.
        allow_encoders
            Folders and ids of models on the hub that the model may open, where it names them as encoders. Registered names need no
            permission.
        **hub
            For the hub: ``revision`` (branch, tag or commit), ``token``, ``cache_dir``, ``local_files_only``, and
            ``force_download=True``, which downloads a model again whose file in the cache is damaged.

        Raises
        ------
        FileNotFoundError
            If the folder holds no model.
        KeyError
            If an encoder is of a modality that the model does not have.
        TypeError
            If another option is given for the hub.
        ValueError
            If a file is cut off, changed, missing or not one of the model's, or the folder holds a pickle; nothing is built then.
            If ``revision`` is given for a model that is on this machine.
            If an encoder is needed and not given, is not allowed, or is not the one that the model was trained with.
        """
        folder = store.locate(source, **hub)
        allowed = check_allowed(allow_encoders)
        with store.naming_download(source, folder, **hub):
            artifact = Artifact.read(folder, KIND)
        model = cls.from_artifact(artifact, encoders=encoders, allow_encoders=allowed)
        model.folder = folder
        if folder == store.embedded_folder():
            _introduce(introduction(model.config, None if model.reference is None else model.reference.config.mpp))
        if (card := model.config.card) is not None and card.licence:
            inform(f"{card.name}: {card.licence}; {card.use}.")
        return model


@lru_cache(maxsize=1)
def _introduce(text: str) -> None:
    """Tell the user once, however often the embedded model is opened."""
    inform(text)


def _no_history() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns=["phase", "epoch", "step", "loss"])
