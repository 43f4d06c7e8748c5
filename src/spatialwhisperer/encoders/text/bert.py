"""A BERT of given shapes as a text encoder: for weights that another file holds, with a tokenizer of its own."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import listing
from spatialwhisperer._settings import settings
from spatialwhisperer._storage.untrusted import LARGEST_JSON, parse_json, read_bytes
from spatialwhisperer.encoders.hub import HUB, hub_answers
from spatialwhisperer.encoders.registry import registered
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.encoders.text._stored import build_network, open_tokenizer
from spatialwhisperer.encoders.text.transformer import TransformerEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD_WIDTH = 64
"""Width of an attention head in every published BERT. The weights do not tell how many heads there are."""

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt")
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")
Shape = tuple[int, ...]


def bert_sizes(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """Architecture of a BERT with a pooler, from the shapes of its weights.

    Raises
    ------
    ValueError
        If they are not those of a BERT.
    """
    try:
        vocabulary, hidden = shapes["embeddings.word_embeddings.weight"]
        positions, _ = shapes["embeddings.position_embeddings.weight"]
        types, _ = shapes["embeddings.token_type_embeddings.weight"]
        inner, _ = shapes["encoder.layer.0.intermediate.dense.weight"]
    except (KeyError, ValueError) as error:
        raise ValueError(f"The text tower is no BERT ({listing(sorted(shapes), 4)}).") from error
    layers = {int(found[1]) for name in shapes if (found := _LAYER.match(name))}
    if layers != set(range(len(layers))):
        raise ValueError(f"The text tower lacks layers: it has {listing(sorted(layers), 20)}.")
    if hidden % HEAD_WIDTH:
        raise ValueError(f"The text tower has {hidden} hidden units, which are no attention heads of {HEAD_WIDTH}.")
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": hidden // HEAD_WIDTH,
        "intermediate_size": inner,
        "max_position_embeddings": positions,
        "type_vocab_size": types,
    }


def bert_shapes(sizes: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes of all weights of a BERT with a pooler."""
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    at = "embeddings"
    out: dict[str, Shape] = {
        f"{at}.word_embeddings.weight": (sizes["vocab_size"], hidden),
        f"{at}.position_embeddings.weight": (sizes["max_position_embeddings"], hidden),
        f"{at}.token_type_embeddings.weight": (sizes["type_vocab_size"], hidden),
        "pooler.dense.weight": (hidden, hidden),
        "pooler.dense.bias": (hidden,),
    }
    norms = [f"{at}.LayerNorm"]
    for i in range(sizes["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        maps = {f"attention.self.{part}": (hidden, hidden) for part in ("query", "key", "value")}
        maps |= {"attention.output.dense": (hidden, hidden)}
        maps |= {"intermediate.dense": (inner, hidden), "output.dense": (hidden, inner)}
        for part, shape in maps.items():
            out |= {f"{at}.{part}.weight": shape, f"{at}.{part}.bias": shape[:1]}
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
    return out | {f"{norm}.{part}": (hidden,) for norm in norms for part in ("weight", "bias")}


def pooled_bert(
    name: str, sizes: Mapping[str, Any], tokenizer: Mapping[str, bytes], max_length: int
) -> TransformerEncoder:
    """A BERT whose features are its pooler output, not scaled to unit length, with random weights.

    Parameters
    ----------
    name
        Name of the encoder.
    sizes
        What `bert_sizes` returned.
    tokenizer
        Content of the files of its tokenizer by name.
    max_length
        Longest input in tokens.

    Raises
    ------
    ValueError
        If the tokenizer cannot be read, or has another vocabulary.
    """
    opened = open_tokenizer(tokenizer)
    if len(opened) != sizes["vocab_size"]:
        raise ValueError(
            f"The tokenizer has {len(opened)} tokens, and the text tower {sizes['vocab_size']}: it is another one. The checkpoint of "
            "SpatialWhisperer takes that of dmis-lab/biobert-v1.1 (28,996 tokens, upper and lower case)."
        )
    spec = registered(name, "text") or EncoderSpec(name, "text", None)
    return TransformerEncoder(
        EncoderSpec(
            spec.name, "text", sizes["hidden_size"], licence=spec.licence, url=spec.url, citation=spec.citation
        ),
        build_network(sizes, {}),
        opened,
        pooling="pooler",
        normalize=False,
        max_length=min(max_length, sizes["max_position_embeddings"]),
    )


def tokenizer_files(source: str | Path | None, name: str) -> dict[str, bytes]:
    """Files of a tokenizer: of a folder, of a vocabulary (``vocab.txt``), or of a registered encoder on the hub.

    A vocabulary alone says nothing about upper and lower case; both are kept then, as in a BERT for which they matter.

    Raises
    ------
    FileNotFoundError
        If there are none, and they cannot be downloaded.
    """
    place = _download(name) if source is None else Path(source).expanduser()
    paths = [place] if os.path.isfile(place) else [place / file for file in _TOKENIZER]
    files = {("vocab.txt" if path == place else path.name): read_bytes(path) for path in paths if os.path.isfile(path)}
    if not files.keys() & {"tokenizer.json", "vocab.txt"}:
        there = listing(sorted(p.name for p in place.iterdir())) if os.path.isdir(place) else "no such folder"
        raise FileNotFoundError(f"{place} holds no tokenizer: tokenizer.json or vocab.txt is needed (found: {there}).")
    stated: Any = {"do_lower_case": False}
    if "tokenizer_config.json" in files:
        what = "tokenizer_config.json"
        stated = parse_json(files[what][: LARGEST_JSON + 1], what)
    if isinstance(stated, dict) and not stated.get("tokenizer_class"):
        # the repository of the encoder says it in its configuration, which is not a file of the tokenizer
        files["tokenizer_config.json"] = json.dumps(stated | {"tokenizer_class": "BertTokenizer"}).encode()
    return files


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    known = registered(name, "text")
    repository = name if known is None else known.url.removeprefix(HUB)
    away = settings.offline or not hub_answers()
    try:
        return Path(snapshot_download(repository, allow_patterns=list(_TOKENIZER), local_files_only=away))
    # a connection that breaks raises errors of whichever HTTP library the client has, which share no class
    except Exception as error:
        why = "the hub cannot be reached" if away else "the hub did not give it"
        why = "settings.offline is set" if settings.offline else why
        raise FileNotFoundError(
            f"The tokenizer of {repository} is not in the Hugging Face cache, and {why}. It is one small file, vocab.txt: fetch it on "
            f"another machine (hf download {repository} vocab.txt) and pass it as tokenizer='…/vocab.txt'."
        ) from error
