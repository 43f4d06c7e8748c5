"""Transformers of the Hugging Face libraries as text encoders."""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._artifact.artifact import Artifact
from spatialwhisperer._checks.values import check_batch_size
from spatialwhisperer._messages import listing, require, warn
from spatialwhisperer._settings import settings
from spatialwhisperer._storage.schema import Stored, from_plain, to_plain
from spatialwhisperer.encoders._transformers import quiet
from spatialwhisperer.encoders.digests import module_digest
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.registry import opens_other_names, register_encoder, registered
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.encoders.text._opening import POOLINGS, Opened, Pooling, open_parts, usual_pooling
from spatialwhisperer.encoders.text._stored import bare_network, build_network, open_tokenizer
from spatialwhisperer.encoders.text.base import TextEncoder, check_texts
from spatialwhisperer.encoders.text.files import (
    MINILM,
    TOKENIZER_FILES,
    digest_of,
    files_are_here,
    text_files,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

KIND = "text encoder"


@opens_other_names("text")
@register_encoder(
    EncoderSpec(
        "minilm",
        "text",
        384,
        licence="apache-2.0",
        commercial=True,
        url="https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
        citation="Reimers & Gurevych 2019, EMNLP",
        loader="transformers",
        pooling="mean",
    ),
    EncoderSpec(
        "biobert",
        "text",
        768,
        url="https://huggingface.co/dmis-lab/biobert-v1.1",
        citation="Lee et al. 2020, Bioinformatics 36:1234",
        loader="transformers",
        pooling="pooler",
    ),
    EncoderSpec(
        "pubmedbert",
        "text",
        768,
        licence="mit",
        commercial=True,
        url="https://huggingface.co/microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext",
        citation="Gu et al. 2021, ACM Trans Comput Healthcare 3:2",
        loader="transformers",
        pooling="cls",
    ),
)
class TransformerEncoder(TextEncoder):
    """A transformer that turns texts into vectors of one length.

    Parameters
    ----------
    spec
        Name, dimension and licence.
    network, tokenizer
        The parts, as transformers gives them.
    pooling
        "mean" over the tokens, the first one ("cls"), or the model's own "pooler" output (BERT).
    normalize
        Divide each vector by its length.
    max_length
        Longest input, in tokens.
    identity
        What tells the network from others; ``None`` computes a digest of it.
    """

    library = "transformers"

    def __init__(
        self,
        spec: EncoderSpec,
        network: torch.nn.Module,
        tokenizer: Any,
        *,
        pooling: Pooling = "mean",
        normalize: bool = True,
        max_length: int = 512,
        identity: EncoderIdentity | None = None,
    ) -> None:
        self.spec, self.network, self.tokenizer = spec, network, tokenizer
        self.pooling, self.normalize, self.max_length = pooling, normalize, max_length
        self._identity = identity

    @property
    def identity(self) -> EncoderIdentity:
        """Name, and a digest where the name does not define the encoder."""
        if self._identity is None:
            self._identity = EncoderIdentity(self.spec.name, digest=module_digest(self.network))
        # the way of pooling that goes with the name is not said again
        usual = (self.pooling, self.normalize) == usual_pooling(registered(self.spec.name, "text"))
        if usual or self._identity.unread:
            return self._identity
        how = f"{self._identity.digest} {self.pooling} {self.normalize}"
        return replace(self._identity, digest=hashlib.sha256(how.encode()).hexdigest())

    @classmethod
    def open(
        cls,
        name: str | Path,
        *,
        weights: str | Path | None = None,
        pretrained: bool = True,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        revision: str | None = None,
    ) -> TransformerEncoder:
        """Open a registered name, a folder or the id of a model on the hub. No code from a repository is run.

        Parameters
        ----------
        name
            Registered name, folder, or id of a model on the hub.
        weights
            Folder with its files, instead of a download.
        pretrained
            Whether to read the weights; otherwise they are random.
        pooling
            "mean" over the tokens, the first one ("cls"), or the model's own "pooler" output (BERT). ``None`` takes that of the
            registered name, else what a folder of sentence-transformers states, else the mean.
        normalize
            Divide each vector by its length; ``None`` as for ``pooling``. The pooler output of a registered name keeps its length.
        revision
            Commit, tag or branch of the hub; ``None`` takes what the cache holds, else the latest.

        Raises
        ------
        FileNotFoundError
            If files are missing and ``settings.offline`` forbids to fetch them.
        ImportError
            If transformers is not installed.
        ValueError
            If weights have another checksum, are not in safetensors, or are not those of a text encoder; or ``revision`` is given for
            something that is not on the hub, or has a fixed one ("minilm").
        """
        if pooling is not None and pooling not in POOLINGS:
            raise ValueError(f"pooling must be {listing(map(repr, POOLINGS))}, not {pooling!r}.")
        require("transformers", extra="text")
        known = registered(name, "text") if isinstance(name, str) else None
        folder = text_files(name if weights is None else weights, known, revision)
        asked = Opened(folder, pooling, normalize, pretrained)
        if name == MINILM and weights is None and pretrained:
            return _minilm(asked)
        # the place of a folder says nothing about what it holds
        spec = known or EncoderSpec(
            Path(name).name if os.path.isdir(os.path.expanduser(name)) else str(name), "text", None
        )
        identity = None
        if pretrained:
            by_name = known is not None and weights is None
            pinned = folder.name if by_name and revision is not None else None
            identity = EncoderIdentity(spec.name, pinned, None if by_name else digest_of(folder))
        encoder = _opened(asked, spec, identity)
        encoder.commit = folder.name if folder.parent.name == "snapshots" else None
        return encoder

    @classmethod
    def known(cls, name: str) -> EncoderSpec | None:
        """Return facts about a folder or the id of a model on the hub; ``None`` for other names."""
        # "hf-hub:owner/model" is how timm writes its own
        on_hub = name.count("/") == 1 and ":" not in name
        return EncoderSpec(name, "text", None) if on_hub or os.path.isdir(os.path.expanduser(name)) else None

    @classmethod
    def is_here(cls, name: str) -> bool:
        """Whether transformers is installed, and the files of a registered name are in a package or the cache of the hub."""
        known = registered(name, "text")
        return find_spec("transformers") is not None and files_are_here(name, known)

    @classmethod
    def identify(
        cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True
    ) -> EncoderIdentity | None:
        """Return the identity of registered weights; ``None`` for others, which have to be opened first."""
        by_name = registered(name, "text") is not None and weights is None and pretrained
        return EncoderIdentity(name) if by_name else None

    def encode(self, inputs: Sequence[str], *, batch_size: int | None = None, device: str | None = None) -> np.ndarray:
        """Embed texts.

        Each different text is computed once, and texts of like length share a batch. A row depends on its text alone, up to
        rounding: the padding that a batch needs moved values by at most 1e-6 in the tests of this package.

        Parameters
        ----------
        inputs
            The texts. Words beyond the model's longest input are cut off, with a warning.
        batch_size
            Texts in one pass; ``None`` takes ``settings.batch_size``.
        device
            Torch device; ``None`` takes ``settings.device``.

        Returns
        -------
        Embedding, float32, shape (n, d), rows of unit length where the encoder normalises.

        Raises
        ------
        TypeError
            If ``inputs`` is one string, or an entry is not a string.
        ValueError
            If there is no text, or an empty one.
        """
        import torch

        from spatialwhisperer._compute.devices import ready
        from spatialwhisperer.encoders.text._text_network import TextNetwork

        texts = check_texts(inputs)
        check_batch_size(batch_size)
        batch_size = settings.batch_size if batch_size is None else batch_size
        device = settings.resolve_device(device)
        distinct = list(dict.fromkeys(texts))
        self._warn_of_cut(distinct, ids := self._tokens(distinct))
        order = np.argsort([-len(i) for i in ids], kind="stable")
        parts = []
        with ready(self.network, device) as own, torch.inference_mode():
            network = TextNetwork(own, self.pooling, self.normalize).eval()
            for start in range(0, len(order), batch_size):
                batch = [ids[i] for i in order[start : start + batch_size]]
                parts.append(network(self._padded(batch, device)).float().cpu().numpy())
        rows = np.empty((len(distinct), parts[0].shape[1]), np.float32)
        rows[order] = np.concatenate(parts)
        position = {text: i for i, text in enumerate(distinct)}
        return rows[[position[text] for text in texts]]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, truncation=True, max_length=self.max_length, return_attention_mask=False)[
            "input_ids"
        ]

    def _warn_of_cut(self, texts: list[str], ids: list[list[int]]) -> None:
        full = [text for text, tokens in zip(texts, ids, strict=True) if len(tokens) >= self.max_length]
        whole = self.tokenizer(full, verbose=False)["input_ids"] if full else []
        if cut := sum(len(tokens) > self.max_length for tokens in whole):
            warn(
                f"{self.spec.name!r} reads {self.max_length} tokens of a text: {cut} of {len(texts)} texts are cut off there. "
                "Shorten them, or pass their parts as several texts."
            )

    def _padded(self, batch: list[list[int]], device: str) -> dict[str, torch.Tensor]:
        import torch

        longest = max(len(ids) for ids in batch)
        padding = self.tokenizer.pad_token_id or 0
        tokens = torch.tensor([ids + [padding] * (longest - len(ids)) for ids in batch], device=device)
        length = torch.tensor([len(ids) for ids in batch], device=device)
        mask = torch.arange(longest, device=device) < length[:, None]
        return {"input_ids": tokens, "attention_mask": mask.long()}

    def module(self) -> torch.nn.Module:
        """Return a copy of the network with its pooling."""
        from spatialwhisperer.encoders.text._text_network import TextNetwork

        network = copy.deepcopy(self.network).requires_grad_(True)
        return TextNetwork(network, self.pooling, self.normalize)

    def prepare(self, inputs: Sequence[str]) -> list[Any]:
        """Turn texts into token ids, which `collate` takes too."""
        # a class with a `collate` of its own expects texts there
        if type(self).collate is not TransformerEncoder.collate:
            return list(inputs)
        self._warn_of_cut(list(inputs), ids := self._tokens(list(inputs)))
        return ids

    def collate(self, inputs: Sequence[str] | Sequence[list[int]]) -> dict[str, torch.Tensor]:
        """Turn texts, or the token ids of texts, into padded token ids and their attention mask."""
        texts = [x for x in inputs if isinstance(x, str)]
        ids: Any = self._tokens(texts) if texts else list(inputs)
        return self._padded(ids, "cpu")

    def artifact(self, *, trained: bool = False) -> Artifact:
        """Return architecture, tokenizer and pooling, and the weights unless the model stores them."""
        with tempfile.TemporaryDirectory() as temporary:
            self.tokenizer.save_pretrained(temporary)
            written = [path for path in Path(temporary).iterdir() if path.suffix in TOKENIZER_FILES]
            files = {path.name: path.read_bytes() for path in written}
        _ = self.identity  # computes the digest of a network that came without one
        config = _Stored(
            name=self.spec.name,
            dim=self.spec.dim,
            pooling=self.pooling,
            normalize=self.normalize,
            max_length=self.max_length,
            transformer=self.network.config.to_diff_dict(),  # type: ignore[union-attr, operator]
            identity=None if trained else self._identity,
        )
        return Artifact(KIND, to_plain(config), {} if trained else _arrays(self.network), files=files)

    @classmethod
    def bare_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return the network with its pooling and random weights."""
        from spatialwhisperer.encoders.text._text_network import TextNetwork

        stated = from_plain(_Stored, artifact.config, "the configuration of a text encoder")
        with quiet():
            return TextNetwork(bare_network(stated.transformer), stated.pooling, stated.normalize)

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> TransformerEncoder:
        """Open an encoder from what `artifact` returned.

        Raises
        ------
        ValueError
            If a value is missing or of another type, or the weights do not fit.
        """
        stated = from_plain(_Stored, artifact.config, "the configuration of a text encoder")
        if stated.max_length < 1:
            raise ValueError(f"max_length of this text encoder must be at least 1, not {stated.max_length}.")
        with quiet():
            tokenizer = open_tokenizer(artifact.files)
            network = build_network(stated.transformer, artifact.tensors)
        spec = registered(stated.name, "text") or EncoderSpec(stated.name, "text", None)
        return cls(
            replace(spec, dim=stated.dim),
            network,
            tokenizer,
            pooling=stated.pooling,
            normalize=stated.normalize,
            max_length=stated.max_length,
            identity=stated.identity,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.spec.name!r} -> {self.spec.dim})"


@dataclass(frozen=True)
class _Stored(Stored):
    """What is stored of a text encoder beside its weights and its tokenizer."""

    name: str
    dim: int | None
    pooling: Pooling
    normalize: bool
    max_length: int
    transformer: Mapping[str, Any]
    identity: EncoderIdentity | None


def _arrays(network: torch.nn.Module) -> dict[str, np.ndarray]:
    """Weights of a network by name; NumPy has no bfloat16, which float32 holds exactly."""
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    return {name: (v.float() if v.is_floating_point() else v).numpy() for name, v in state.items()}


def _opened(asked: Opened, spec: EncoderSpec, identity: EncoderIdentity | None) -> TransformerEncoder:
    parts = open_parts(asked, spec)
    return TransformerEncoder(
        replace(spec, dim=parts.dim),
        parts.network,
        parts.tokenizer,
        pooling=parts.pooling,
        normalize=parts.normalize,
        max_length=parts.max_length,
        identity=identity,
    )


# the loaded model is kept, because every annotation embeds its prompts
@lru_cache(maxsize=4)
def _minilm(asked: Opened) -> TransformerEncoder:
    spec = registered(MINILM, "text") or EncoderSpec(MINILM, "text", None)
    return _opened(asked, spec, EncoderIdentity(MINILM))
