"""Opening a transformer in a folder: its network, its tokenizer, and how its tokens become one vector."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from spatialwhisperer._messages import listing
from spatialwhisperer.encoders._transformers import SAFE, open_model, quiet
from spatialwhisperer.encoders.hub import first_line
from spatialwhisperer.encoders.text.files import MINILM, MINILM_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spatialwhisperer.encoders.spec import EncoderSpec

Pooling = Literal["mean", "cls", "pooler"]

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
_MANY_TOKENS = 100_000
_OWN_WAY: tuple[Pooling, bool] = ("mean", True)
_MODULES = "modules.json"


@dataclass(frozen=True)
class Opened:
    """What a call asks for.

    Attributes
    ----------
    folder
        Folder with the files.
    pooling, normalize
        As the caller states them; ``None`` takes what is usual.
    pretrained
        Whether to read the weights.
    """

    folder: Path
    pooling: Pooling | None
    normalize: bool | None
    pretrained: bool


@dataclass(frozen=True)
class Parts:
    """What a text encoder is made of."""

    network: Any
    tokenizer: Any
    dim: int
    pooling: Pooling
    normalize: bool
    max_length: int


@dataclass(frozen=True)
class _Sentences:
    """What a folder of sentence-transformers states."""

    transformer: Path
    pooling: Pooling
    normalize: bool
    max_length: int | None


def usual_pooling(known: EncoderSpec | None) -> tuple[Pooling, bool]:
    """Pooling of a registered encoder, and whether its vectors get unit length; the pooler output is used as it is."""
    for pooling in POOLINGS:
        if known is not None and known.pooling == pooling:
            return pooling, pooling != "pooler"
    return _OWN_WAY


def open_parts(asked: Opened, known: EncoderSpec) -> Parts:
    """Open a network and its tokenizer.

    Raises
    ------
    ValueError
        If the folder holds no text encoder, its pooling is not supported, or weights are missing.
    """
    stated = None if known.pooling else _sentences(asked.folder, asked.pooling)
    usual = usual_pooling(known) if stated is None else (stated.pooling, stated.normalize)
    pooling = usual[0] if asked.pooling is None else asked.pooling
    normalize = usual[1] if asked.normalize is None else asked.normalize
    folder = asked.folder if stated is None else stated.transformer
    network = open_model(folder, pretrained=asked.pretrained, needs_pooler=lambda _: pooling == "pooler").eval()
    size = getattr(network.config, "hidden_size", None)
    if size is None or getattr(network.config, "is_encoder_decoder", False):
        raise ValueError(
            f"{known.name} ({type(network).__name__}) is not a plain text encoder; pass a BERT-like model."
        )
    if pooling == "pooler" and getattr(network, "pooler", None) is None:
        raise ValueError(f"{known.name} ({type(network).__name__}) has no pooler; use pooling='mean'.")
    tokenizer = _tokenizer(folder)
    limits = [
        getattr(network.config, "max_position_embeddings", None),
        tokenizer.model_max_length,
        MINILM_TOKENS if known.name == MINILM else None,
        None if stated is None else stated.max_length,
    ]
    # a tokenizer without a limit states an astronomical one
    max_length = min([int(n) for n in limits if n and n < _MANY_TOKENS], default=512)
    return Parts(network, tokenizer, int(size), pooling, normalize, max_length)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(str(folder), **SAFE)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{folder} is not a model that transformers can read ({first_line(error)}).") from error


# --------------------------------------------------------------------------------------------- sentence-transformers


def _sentences(folder: Path, given: Pooling | None) -> _Sentences | None:
    """What sentence-transformers states of a folder; ``None`` where it is none of its folders.

    How the folder pools is not looked at where the caller says it.
    """
    modules = _read(folder / _MODULES)
    if not isinstance(modules, list):
        return None
    transformer, pooling, normalize = folder, given or _OWN_WAY[0], False
    for module in modules:
        kind, place = str(module.get("type", "")).rpartition(".")[2], folder / str(module.get("path", ""))
        if kind == "Transformer":
            transformer = place
        elif kind == "Pooling":
            pooling = given or _pooling(place)
        elif kind == "Normalize":
            normalize = True
        else:
            raise ValueError(f"{folder} has a layer {kind!r} behind its pooling, which is not supported.")
    if not transformer.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder / _MODULES} names a network outside of its folder.")
    length = _read(transformer / "sentence_bert_config.json")
    longest = length.get("max_seq_length") if isinstance(length, dict) else None
    return _Sentences(transformer, pooling, normalize, longest)


def _pooling(place: Path) -> Pooling:
    stated = _read(place / "config.json")
    if not isinstance(stated, dict):
        raise ValueError(f"{place} states no pooling. Pass pooling=….")
    modes = _modes(stated)
    match modes:
        case ["mean"] | ["mean_tokens"]:
            return "mean"
        case ["cls"] | ["cls_token"]:
            return "cls"
    raise ValueError(f"{place} pools tokens by {listing(modes)}; only 'mean' and 'cls' are supported. Pass pooling=….")


def _modes(stated: Mapping[str, Any]) -> list[str]:
    """Names of the ways of pooling, of both generations of the format."""
    mode = stated.get("pooling_mode")
    if mode is not None:
        return [mode] if isinstance(mode, str) else list(mode)
    return [key.removeprefix("pooling_mode_") for key, on in stated.items() if key.startswith("pooling_mode_") and on]


def _read(file: Path) -> Any:
    """Content of a JSON file; ``None`` where there is none."""
    if not os.path.isfile(file):
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}).") from error
