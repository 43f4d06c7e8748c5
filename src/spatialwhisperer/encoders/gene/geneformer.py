"""Geneformer: a transformer over the genes of a row in the order of their rank values."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._checks.checked import checked
from spatialwhisperer._storage.schema import from_plain, to_plain
from spatialwhisperer._storage.sketches import compare_shapes
from spatialwhisperer._storage.untrusted import networks_within, opening
from spatialwhisperer.encoders.gene._geneformer.architecture import Architecture
from spatialwhisperer.encoders.gene._geneformer.dictionaries import GeneTokens, read_gene_tokens
from spatialwhisperer.encoders.gene._geneformer.files import (
    REVISION,
    files_are_here,
    gene_tokens_of,
    network_folder,
    published_folder,
    read_architecture,
    read_weights,
)
from spatialwhisperer.encoders.gene._geneformer.rank_values import MOST_TOKENS, ranked_tokens
from spatialwhisperer.encoders.gene.base import GeneEncoder, take_tensors
from spatialwhisperer.encoders.recipe import EncoderIdentity
from spatialwhisperer.encoders.registry import register_encoder
from spatialwhisperer.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import scipy.sparse as sp
    import torch

    from spatialwhisperer._artifact.artifact import Artifact

_TOKENS_IN_A_PASS = 65_536


@register_encoder(
    EncoderSpec(
        "geneformer",
        "gene",
        512,
        licence="apache-2.0",
        commercial=True,
        url="https://huggingface.co/ctheodoris/Geneformer",
        citation="Theodoris et al. 2023, Nature 618:616",
    ),
)
class GeneformerEncoder(GeneEncoder):
    """Geneformer-12L-30M (Theodoris et al., Nature 2023), as it was published: 512 features of human raw counts, and nothing is fitted.

    The count of a gene is divided by the total of the row and by the median of the gene in 30 million cells. The genes of a row are
    sorted by this value, the highest first and ties in the order of their tokens; the first 2,048 are its tokens. The embedding is
    the mean over them of the hidden state before the last layer (`hidden_states[11]` of 12 layers). Padding is masked, so that a row
    does not depend on its batch, up to rounding.

    Genes that were not measured count as zero, which leaves them out. Fewer genes than the encoder knows are usual; a panel of some
    hundred genes makes short rows, which the network has hardly seen.

    Parameters
    ----------
    tokens
        The genes, their tokens and medians.
    weights
        Weights of the network by name; ``None`` leaves it at random.
    sizes
        Its architecture.
    by_name
        Whether the weights are the published ones, which the name stands for.
    """

    library = "transformers"
    fits = False
    fewest_genes = 10

    def __init__(
        self,
        tokens: GeneTokens,
        weights: Mapping[str, np.ndarray] | None,
        sizes: Architecture,
        *,
        fitted: Mapping[str, Any] | None = None,
        by_name: bool = False,
    ) -> None:
        if tokens.vocabulary != sizes.vocab_size:
            raise ValueError(
                f"The dictionary of tokens does not match the network: its largest token is {tokens.vocabulary - 1}, and the network has "
                f"{sizes.vocab_size} tokens. Take the dictionary that was published with it (25,426 tokens for Geneformer-12L-30M)."
            )
        super().__init__(_names(tokens), tokens.ids, fitted)
        self.tokens, self.sizes, self._by_name = tokens, sizes, by_name
        self.spec = replace(type(self).spec, dim=sizes.hidden_size)
        self._identity: EncoderIdentity | None = None
        self._network = _filled(sizes, weights)

    # ------------------------------------------------------------------------------------------- opening

    @classmethod
    def open(cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True) -> GeneformerEncoder:  # noqa: ARG003
        """Open the published network, or the one of a folder.

        Parameters
        ----------
        name
            ``"geneformer"``.
        weights
            Folder with ``config.json``, ``model.safetensors`` (or ``pytorch_model.bin``) and the gene tokens: a table ``genes.tsv``,
            or the published pickles. A folder without gene tokens takes the published ones.
        pretrained
            Whether to read the weights; otherwise they are random.

        Raises
        ------
        FileNotFoundError
            If files are missing and cannot be downloaded.
        ValueError
            If weights and dictionaries cannot be read, or do not fit each other.
        """
        if weights is not None:
            return cls.from_folder(weights, pretrained=pretrained)
        folder = published_folder()
        return cls._read(folder, gene_tokens_of(folder, published=True), pretrained=pretrained, by_name=pretrained)

    @classmethod
    @checked
    def from_folder(
        cls,
        folder: str | Path,
        *,
        dictionary: str | Path | Sequence[str | Path] | None = None,
        pretrained: bool = True,
    ) -> GeneformerEncoder:
        """Open the network of a folder.

        Parameters
        ----------
        folder
            Folder with ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``, as transformers writes them.
        dictionary
            Gene tokens: a table (``.tsv``, ``.csv``) with the columns ``ensembl_id``, ``token``, ``median`` and perhaps ``symbol``, or
            the files with the tokens, the medians and perhaps the symbols (``.json``, or ``.pkl`` as published). ``None`` takes those
            of the folder, else the published ones.
        pretrained
            Whether to read the weights; otherwise they are random.

        Raises
        ------
        FileNotFoundError
            If files are missing and cannot be downloaded.
        ValueError
            If weights and dictionaries cannot be read, or do not fit each other.
        """
        place = Path(folder).expanduser()
        network_folder(place)
        if dictionary is not None:
            return cls._read(place, read_gene_tokens(dictionary), pretrained=pretrained)
        try:
            tokens = gene_tokens_of(place)
        except FileNotFoundError as error:
            try:
                tokens = gene_tokens_of(published_folder(), published=True)
            except FileNotFoundError as other:
                raise FileNotFoundError(f"{error} {other}") from other
        return cls._read(place, tokens, pretrained=pretrained)

    @classmethod
    def _read(cls, folder: Path, tokens: GeneTokens, *, pretrained: bool, by_name: bool = False) -> GeneformerEncoder:
        place = network_folder(folder)
        sizes = read_architecture(place)
        weights = read_weights(place, sizes.n_layers) if pretrained else None
        return cls(tokens, weights, sizes, by_name=by_name)

    @classmethod
    def is_here(cls, name: str) -> bool:  # noqa: ARG003
        """Whether transformers is installed, and the published files have been downloaded before."""
        from importlib.util import find_spec

        return find_spec("transformers") is not None and files_are_here()

    @classmethod
    def identify(
        cls, name: str, *, weights: str | Path | None = None, pretrained: bool = True
    ) -> EncoderIdentity | None:
        """Return the identity of the published network; ``None`` for others, which have to be opened first."""
        return EncoderIdentity(name, revision=REVISION) if weights is None and pretrained else None

    @property
    def identity(self) -> EncoderIdentity:
        """Name with the published revision, or with a digest of other weights and gene tokens."""
        if self._by_name:
            return EncoderIdentity(self.name, revision=REVISION)
        if self._identity is None:
            self._identity = super().identity
        return self._identity

    @property
    def dim(self) -> int:
        """Columns of the embedding."""
        return self.sizes.hidden_size

    # ------------------------------------------------------------------------------------------- computing

    def rank_tokens(self, counts: sp.csr_matrix, present: np.ndarray | None = None) -> list[np.ndarray]:
        """Tokens of each row, the gene with the highest rank value first.

        Parameters
        ----------
        counts
            Raw counts, CSR, shape (n, len(genes)), columns in the order of ``genes``.
        present
            Which genes were measured, bool (len(genes),); ``None`` means all.

        Returns
        -------
        Tokens of each row, int32, of different length, at most 2,048.
        """
        tokens = np.array(self.tokens.tokens, np.int64)
        if present is not None:
            tokens = np.where(present, tokens, -1)
        most = min(MOST_TOKENS, self.sizes.max_positions)
        return ranked_tokens(counts, tokens, np.array(self.tokens.medians), most=most)

    def encode_counts(
        self, counts: sp.csr_matrix, present: np.ndarray | None, batch_size: int, device: str | None
    ) -> np.ndarray:
        """Embed checked counts. Rows of like length share a pass, and a pass has at most 65,536 tokens."""
        import torch

        from spatialwhisperer._compute.devices import ready
        from spatialwhisperer._settings import settings
        from spatialwhisperer.encoders.gene._geneformer.network import padded

        device = settings.resolve_device(device)
        tokens = self.rank_tokens(counts, present)
        # a row without genes is the mean over none: zeros
        out = np.zeros((len(tokens), self.dim), np.float32)
        order = [i for i in np.argsort([-len(row) for row in tokens], kind="stable") if len(tokens[i])]
        with ready(self._network, device) as network, torch.inference_mode():
            while order:
                n = min(batch_size, max(1, _TOKENS_IN_A_PASS // len(tokens[order[0]])))
                rows, order = order[:n], order[n:]
                batch = {name: value.to(device) for name, value in padded([tokens[i] for i in rows]).items()}
                out[rows] = network(batch).float().cpu().numpy()
        return out

    def module(self) -> torch.nn.Module:
        """Return a copy of the network: tokens and their attention mask in, the mean hidden state out."""
        return copy.deepcopy(self._network).requires_grad_(True)

    def prepare(self, inputs: Any) -> list[np.ndarray]:
        """Turn counts into tokens, which `collate` takes too."""
        return self.rank_tokens(_csr(inputs))

    def collate(self, inputs: Any) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """Turn counts, or tokens of rows, into padded tokens and their attention mask."""
        from spatialwhisperer.encoders.gene._geneformer.network import padded

        return padded(inputs if isinstance(inputs, list) else self.rank_tokens(_csr(inputs)))

    # ------------------------------------------------------------------------------------------- storage

    def options(self) -> dict[str, Any]:
        """Gene tokens and architecture, as plain values."""
        return {"tokens": self.tokens.tokens, "medians": self.tokens.medians, "network": to_plain(self.sizes)}

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights of the network by name."""
        return {name: value.detach().cpu().numpy() for name, value in self._network.state_dict().items()}

    def artifact(self, *, trained: bool = False) -> Artifact:
        """Return genes, tokens, architecture, and the weights unless the model stores them."""
        whole = super().artifact()
        return replace(whole, tensors={}) if trained else whole

    @classmethod
    def bare_module(cls, artifact: Artifact) -> torch.nn.Module:
        """Return the network with random weights."""
        from spatialwhisperer.encoders.gene._geneformer.network import GeneformerNetwork

        return GeneformerNetwork(_stored_sizes(artifact.config))

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> GeneformerEncoder:
        """Build the encoder of a stored configuration and its tensors; without tensors the weights are random."""
        sizes = _stored_sizes(config)
        ids, tokens, medians = config["gene_ids"], config.get("tokens"), config.get("medians")
        if not isinstance(tokens, list) or not isinstance(medians, list) or not len(ids) == len(tokens) == len(medians):
            raise ValueError(f"A stored Geneformer needs one token and one median for each of its {len(ids)} genes.")
        if not all(type(t) is int and 0 <= t < sizes.vocab_size for t in tokens) or not all(
            type(m) is float and 0 < m < np.inf for m in medians
        ):
            raise ValueError("The tokens of a stored Geneformer must be in its vocabulary, and its medians positive.")
        symbols = tuple("" if name == gene else name for name, gene in zip(config["genes"], ids, strict=True))
        known = GeneTokens(tuple(ids), symbols, tuple(tokens), tuple(medians), sizes.vocab_size)
        return cls(known, tensors or None, sizes, fitted=config.get("fitted"))


def _names(tokens: GeneTokens) -> list[str]:
    """Symbols where they are known, and ids for the others and for symbols that another gene has already."""
    taken: set[str] = set()
    names = []
    for symbol, gene in zip(tokens.symbols, tokens.ids, strict=True):
        name = gene if not symbol or symbol in taken else symbol
        taken.add(name)
        names.append(name)
    return names


def _filled(sizes: Architecture, weights: Mapping[str, np.ndarray] | None) -> torch.nn.Module:
    """The network in evaluation mode; weights are compared with it before it takes memory."""
    import torch

    from spatialwhisperer._random import untouched_rng
    from spatialwhisperer.encoders.gene._geneformer.network import GeneformerNetwork

    make = functools.partial(GeneformerNetwork, sizes)
    if weights is None:
        with untouched_rng(), torch.device("cpu"):
            return make().eval()
    count, values = len(weights), sum(value.size for value in weights.values())
    what = "this Geneformer"
    compare_shapes(make, {n: v.shape for n, v in weights.items()}, what, networks_within(values, count, what))
    with untouched_rng(), opening("The network of this Geneformer"), networks_within(values, count, what):
        network = make()
    taken = take_tensors(weights, {n: tuple(v.shape) for n, v in network.state_dict().items()}, "Geneformer")
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in taken.items()})
    return network.eval()


def _stored_sizes(config: Mapping[str, Any]) -> Architecture:
    return from_plain(Architecture, config.get("network"), "the architecture of a stored Geneformer")


def _csr(counts: Any) -> sp.csr_matrix:
    import scipy.sparse as sp

    return sp.csr_matrix(counts)
