"""What a model does to be passed on: its card, and saving and publishing it the Hugging Face way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from huggingface_hub import PyTorchModelHubMixin

from spatialwhisperer._artifact.layout import names_in
from spatialwhisperer._artifact.verify import in_the_way
from spatialwhisperer._checks.checked import checked
from spatialwhisperer._messages import inform, listing
from spatialwhisperer.models.opening import encoder_part
from spatialwhisperer.models.sharing.hub import README, publish
from spatialwhisperer.models.sharing.licences import check_may_be_passed_on, parts_of
from spatialwhisperer.models.sharing.readme import Described, readme, was_edited

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from huggingface_hub import ModelCard

    from spatialwhisperer._artifact.artifact import Artifact
    from spatialwhisperer.encoders.base import Encoder
    from spatialwhisperer.models.configuration.model import ModelConfig
    from spatialwhisperer.models.expression.predictor import ExpressionPredictor
    from spatialwhisperer.models.reference import Reference
    from spatialwhisperer.models.sharing.licences import Part

_PARTS = ("expression", "vocabulary", "reference")


def _check_place(folder: Path, parts: Sequence[str]) -> None:
    """Refuse a place that a model cannot be written to.

    Raises
    ------
    FileExistsError
        If it is none.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file. A model is a folder; choose another name.")
    there = names_in(folder, parts)
    if there:
        raise FileExistsError(
            f"{folder} holds {listing(there)} already. model.save(folder) replaces a model; save_pretrained needs a new folder."
        )
    if refused := in_the_way(folder, ()):
        raise FileExistsError(
            f"{folder} holds {listing(refused, 4)}, beside which a model could not be opened. Move it elsewhere, or choose a new folder."
        )


class OnHub(PyTorchModelHubMixin):
    """A model that can be written beside its card, and published. It reads what the model states of itself."""

    config: ModelConfig
    encoders: dict[str, Encoder]
    expression: ExpressionPredictor | None
    reference: Reference | None

    if TYPE_CHECKING:

        def artifact(self) -> Artifact:
            """Return everything that is stored of the model."""

        @classmethod
        def load(cls, source: str | Path, **options: Any) -> Self:
            """Open a model."""

    @checked
    def generate_model_card(self, *, address: str = "folder or owner/name", licence: str | None = None) -> ModelCard:
        """Describe the model for people and for the hub: its training, held-out figures, and the licence of every part.

        :meth:`save`, :meth:`save_pretrained` and :meth:`push_to_hub` write it as ``README.md``.

        Parameters
        ----------
        address
            What ``sw.models.load`` opens the model by.
        licence
            Licence of the weights that were trained here, by its name on the hub, such as "cc-by-4.0"; ``None`` takes that of
            ``model.config.card``, and states none where there is none.

        Returns
        -------
        A ``huggingface_hub.ModelCard``; ``str(…)`` is its text.
        """
        from huggingface_hub import ModelCard

        return ModelCard(self.notes(self.artifact(), address=address, licence=licence)[README])

    def notes(self, artifact: Artifact, *, address: str | None = None, licence: str | None = None) -> Mapping[str, str]:
        """Texts for people that are written beside what is stored: the card."""
        described = Described(self.config, self._licensed(artifact), self.expression, self.reference)
        options = {} if address is None else {"address": address}
        return {README: readme(described, licence=licence, **options)}

    def notes_for(self, folder: str | Path, artifact: Artifact) -> Mapping[str, str]:
        """The card, unless somebody edited the one that lies in a folder: then none, and a line says so."""
        place = Path(folder).expanduser() / README
        if not was_edited(place):
            return self.notes(artifact)
        inform(
            f"{place} was edited, or written by something else, and stays as it is. str(model.generate_model_card()) is the card of this model."
        )
        return {}

    def _licensed(self, artifact: Artifact) -> list[Part]:
        parts = artifact.parts
        named = {name: parts.get(encoder_part(name)) for name in self.config.modalities}
        stored = [name for name, part in named.items() if part is not None and part.tensors]
        return parts_of(self.config, stored, self.encoders)

    @checked
    def save_pretrained(
        self, save_directory: str | Path, *, repo_id: str | None = None, push_to_hub: bool = False, **hub: Any
    ) -> str | None:
        """Write the model and its card to a new folder, the Hugging Face way; :meth:`save` also replaces a model.

        Parameters
        ----------
        save_directory
            The folder.
        repo_id
            Id on the hub, where the model is pushed; ``None`` takes the name of the folder.
        push_to_hub
            Whether to push it too.
        **hub
            See :meth:`push_to_hub`.

        Raises
        ------
        FileExistsError
            If the folder holds files of a model, or others beside which it could not be opened; or if a file lies in its place.
        TypeError
            If options of the hub are given and the model is not pushed.
        """
        if hub and not push_to_hub:
            raise TypeError(
                f"{listing(sorted(hub))}: options of push_to_hub, which is off. Pass push_to_hub=True, or leave them out."
            )
        folder = Path(save_directory).expanduser()
        _check_place(folder, (*_PARTS, *map(encoder_part, self.config.modalities)))
        folder.mkdir(parents=True, exist_ok=True)
        artifact = self.artifact()
        artifact.write_into(folder, notes={} if (folder / README).exists() else self.notes(artifact))
        return self.push_to_hub(repo_id or folder.name, **hub) if push_to_hub else None

    @checked
    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        licence: str | None = None,
        commit_message: str = "Save a model of spatialwhisperer",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Publish the model and its card on the Hugging Face hub, in one commit that replaces the model that is there.

        Other files of a repository stay, except its ``README.md``.
        Encoders that are opened by their names are not sent. The predictor of expression holds training data, which are sent: the card says
        how many.

        Parameters
        ----------
        repo_id
            ``"owner/name"``; the repository is made where there is none.
        licence
            See :meth:`generate_model_card`.
        commit_message
            Message of the commit.
        private
            Whether a repository that is made is private; ``None`` leaves that to the hub.
        token
            Token with the right to write; ``None`` takes ``HF_TOKEN``, or that of ``hf auth login``.
        branch
            Branch; ``None`` takes the main one.
        create_pr
            Open a pull request instead of changing the branch.

        Returns
        -------
        Address of the commit.

        Raises
        ------
        ValueError
            If the model holds weights whose licence forbids to pass them on, or the id is not valid. Nothing is sent then.
        FileExistsError
            If the repository holds no model of this package and more than a README and a licence, or another file in the place of one
            of the model. Nothing is sent then.
        OSError
            If the hub cannot be reached, or does not take it.
        """
        artifact = self.artifact()
        check_may_be_passed_on(self._licensed(artifact))
        card = self.notes(artifact, address=repo_id, licence=licence)
        return publish(
            repo_id,
            lambda folder: artifact.write_into(folder, notes=card),
            message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Open a model the Hugging Face way; see :meth:`load`."""
        return cls.load(pretrained_model_name_or_path, **options)
