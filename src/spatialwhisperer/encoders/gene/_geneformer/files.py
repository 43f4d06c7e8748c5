"""Files of Geneformer: the network of a folder, its dictionaries, and the published ones of the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import listing
from spatialwhisperer._settings import settings
from spatialwhisperer._storage.untrusted import LARGEST_JSON, opening, parse_json, read_bytes
from spatialwhisperer.encoders.gene._geneformer.architecture import Architecture
from spatialwhisperer.encoders.gene._geneformer.dictionaries import TABLES, check_published, read_gene_tokens
from spatialwhisperer.encoders.hub import first_line, hub_answers

if TYPE_CHECKING:
    from spatialwhisperer.encoders.gene._geneformer.dictionaries import GeneTokens

REPOSITORY = "ctheodoris/Geneformer"
REVISION = "9d41e7053af8a702003d99305cee01cd34b62ab7"
FOLDER = "geneformer-12L-30M"
CONFIG, SAFETENSORS, PICKLE = "config.json", "model.safetensors", "pytorch_model.bin"
_DICTIONARY_PLACES = ("geneformer", "geneformer/gene_dictionaries_30m")
_KINDS = ("token_dictionary", "gene_median_dictionary", "gene_name_id_dict")
_LAST = ("cls.", "bert.pooler.", "pooler.")


def published_folder() -> Path:
    """Folder with the published files at the pinned revision, from the cache of the hub or downloaded.

    Raises
    ------
    FileNotFoundError
        If they are not there and cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    patterns = [f"{FOLDER}/{name}" for name in (CONFIG, SAFETENSORS, PICKLE)]
    patterns += [f"{place}/{kind}*.pkl" for place in _DICTIONARY_PLACES for kind in _KINDS]
    # what lies in the cache needs no network, which may be away or slow
    here = _in_cache(snapshot_download, patterns)
    if here is not None:
        return here
    why = "settings.offline is set" if settings.offline else "the hub cannot be reached"
    try:
        if not settings.offline and hub_answers():
            return Path(snapshot_download(REPOSITORY, revision=REVISION, allow_patterns=patterns))
    # a connection that breaks raises errors of whichever HTTP library the client has, which share no class
    except Exception as error:
        raise FileNotFoundError(_elsewhere(f"the hub did not give them ({first_line(error)[:200]})")) from error
    raise FileNotFoundError(_elsewhere(why))


def _elsewhere(why: str) -> str:
    return (
        f"The files of Geneformer are not in the Hugging Face cache, and {why}. Fetch them on another machine (hf download "
        f"{REPOSITORY} --revision {REVISION} --include '{FOLDER}/*' 'geneformer/*.pkl'), copy the folder and pass it: "
        "sw.models.open_encoder('geneformer', 'gene', weights=folder)."
    )


def _in_cache(download: Any, patterns: list[str]) -> Path | None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(download(REPOSITORY, revision=REVISION, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    # a download that was interrupted leaves a part of them
    whole = any(os.path.isfile(folder / FOLDER / name) for name in (SAFETENSORS, PICKLE))
    return folder if whole and os.path.isfile(folder / FOLDER / CONFIG) and _pickles(folder) is not None else None


def files_are_here() -> bool:
    """Whether the published files open without a download."""
    with settings.override(offline=True):
        try:
            published_folder()
        except FileNotFoundError:
            return False
    return True


def gene_tokens_of(folder: Path, *, published: bool = False) -> GeneTokens:
    """Gene tokens of a folder: a table ``genes.tsv`` (``.csv``, ``.json``, ``.gz``), or the published pickles.

    Raises
    ------
    FileNotFoundError
        If there are none.
    ValueError
        If they cannot be read, or are not the published ones where these are expected.
    """
    for name in (*(f"genes{suffix}" for suffix in TABLES), "genes.json"):
        if os.path.isfile(folder / name):
            return read_gene_tokens(folder / name)
    found = _pickles(folder)
    if found is None:
        raise FileNotFoundError(
            f"{folder} holds no gene tokens: a table genes.tsv with the columns ensembl_id, token and median (found: "
            f"{listing(sorted(p.name for p in folder.iterdir()))}), or the published token_dictionary.pkl and "
            "gene_median_dictionary.pkl."
        )
    genes = read_gene_tokens(found)
    if published:
        check_published(genes)
    return genes


def _pickles(folder: Path) -> list[Path] | None:
    """Published dictionaries of a folder, or of the repository whose subfolder it is: tokens, medians and perhaps symbols."""
    # the dictionaries of other generations of the model lie beside each other, and say so by their names
    for place in (folder, *(folder / place for place in reversed(_DICTIONARY_PLACES))):
        found = [next(iter(sorted(place.glob(f"{kind}*.pkl"))), None) for kind in _KINDS]
        if found[0] is not None and found[1] is not None:
            if found[2] is None:
                found[2] = next(iter(sorted(folder.rglob(f"{_KINDS[2]}*.pkl"))), None)
            return [path for path in found if path is not None]
    return None


def network_folder(folder: Path) -> Path:
    """The folder that holds the network: itself, or the subfolder of the repository.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    for place in (folder, folder / FOLDER):
        if os.path.isfile(place / CONFIG):
            return place
    there = listing(sorted(p.name for p in folder.iterdir())) if os.path.isdir(folder) else "no such folder"
    raise FileNotFoundError(f"{folder} holds no Geneformer: {CONFIG} and {SAFETENSORS} are needed (found: {there}).")


def read_architecture(folder: Path) -> Architecture:
    """Sizes of a network as its ``config.json`` states them.

    Raises
    ------
    ValueError
        If it is no BERT, or has fewer than two layers.
    """
    path = folder / CONFIG
    stated = parse_json(read_bytes(path, LARGEST_JSON), str(path))
    kind = stated.get("model_type") if isinstance(stated, dict) else None
    if kind != "bert" or stated.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(
            f"{path} describes a {str(kind)[:40]!r} network; Geneformer is a BERT with absolute positions."
        )
    with opening(f"The architecture in {path}", own=(ValueError,)):
        sizes = {
            "vocab_size": stated["vocab_size"],
            "hidden_size": stated["hidden_size"],
            "n_layers": stated["num_hidden_layers"] - 1,
            "n_heads": stated["num_attention_heads"],
            "intermediate_size": stated["intermediate_size"],
            "max_positions": stated["max_position_embeddings"],
            "hidden_act": stated.get("hidden_act", "gelu"),
            "layer_norm_eps": stated.get("layer_norm_eps", 1e-12),
            "dropout": stated.get("hidden_dropout_prob", 0.02),
        }
        return Architecture(**sizes)


def read_weights(folder: Path, n_layers: int) -> dict[str, np.ndarray]:
    """Weights of the layers that are used, by the names they have in :class:`GeneformerNetwork`.

    Parameters
    ----------
    folder
        Folder with ``model.safetensors``, else with ``pytorch_model.bin``, of which torch reads tensors alone.
    n_layers
        Layers that are used.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    ValueError
        If it cannot be read.
    """
    if os.path.isfile(folder / SAFETENSORS):
        from safetensors.numpy import load_file

        with opening(f"{folder / SAFETENSORS}"):
            return of_bert(load_file(folder / SAFETENSORS), n_layers)
    if not os.path.isfile(folder / PICKLE):
        there = listing(sorted(p.name for p in folder.iterdir()))
        raise FileNotFoundError(f"{folder} holds no weights of Geneformer: {SAFETENSORS} is needed (found: {there}).")
    import torch

    with opening(f"{folder / PICKLE}"):
        state = torch.load(folder / PICKLE, map_location="cpu", weights_only=True)
        return of_bert({name: value.detach().float().numpy() for name, value in state.items()}, n_layers)


def of_bert(state: dict[str, np.ndarray], n_layers: int) -> dict[str, np.ndarray]:
    """Weights of a whole network without those of its last layer, its pooler and its masked language model."""
    out = {}
    for name, value in state.items():
        if name.startswith(_LAST) or name.endswith("position_ids"):
            continue
        name = name.removeprefix("bert.")
        layer = name.removeprefix("encoder.layer.").partition(".")[0]
        if name.startswith("encoder.layer.") and layer.isdecimal() and int(layer) == n_layers:
            continue
        out[f"bert.{name}"] = np.asarray(value, np.float32)
    return out
