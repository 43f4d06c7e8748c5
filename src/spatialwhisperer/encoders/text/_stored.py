"""What is checked of a stored transformer before the library builds it: its architecture, its tokenizer, its sizes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialwhisperer._messages import listing, require
from spatialwhisperer._storage.sketches import compare_shapes
from spatialwhisperer._storage.untrusted import networks_within, opening, parse_json
from spatialwhisperer.encoders._transformers import SAFE
from spatialwhisperer.encoders.text.files import TOKENIZER_FILES

if TYPE_CHECKING:
    import torch

_CODE = {"auto_map", "custom_pipelines", "quantization_config"}
_KERNELS = {"attn_implementation", "experts_implementation", "backbone", "use_pretrained_backbone", "backbone_config"}
# one entry of a dictionary is made for each label
_MOST_LABELS = 10_000
_LARGEST = 10_000_000


def build_network(transformer: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> torch.nn.Module:
    """Build a network of a stored architecture and fill it with stored weights, where there are some.

    Raises
    ------
    ValueError
        If the architecture is not that of a language model, asks for code, a kernel or a backbone from elsewhere, or for more than the
        weights hold; or the weights do not fit.
    """
    sizes = [value.size for value in tensors.values()]
    make = partial(_random_network, _checked(transformer, max(_LARGEST, sum(sizes))))
    if not tensors:
        # a trained one, whose weights the model holds
        with opening("The network of this text encoder"):
            return make()
    what, shapes = "this text encoder", {name: value.shape for name, value in tensors.items()}
    compare_shapes(make, shapes, what, networks_within(sum(sizes), len(sizes), what))
    with opening("The network of this text encoder"), networks_within(sum(sizes), len(sizes), what):
        network = make()
    fill(network, tensors)
    return network


def bare_network(transformer: Mapping[str, Any]) -> torch.nn.Module:
    """Build a network of a stored architecture with random weights.

    Raises
    ------
    ValueError
        If `build_network` refuses the architecture.
    """
    return _random_network(_checked(transformer, _LARGEST))


def _checked(transformer: Mapping[str, Any], largest: int) -> Any:
    """Return the architecture as transformers has it."""
    transformers = require("transformers", extra="text")
    _check_architecture(transformer, largest)
    architecture = dict(transformer)
    model_type = architecture.pop("model_type", None)
    if model_type not in _language_models():
        raise ValueError(
            f"The architecture {str(model_type)[:80]!r} of this text encoder is not one of a language model."
        )
    with opening("The architecture of this text encoder"):
        return transformers.AutoConfig.for_model(model_type, **architecture)


def _random_network(config: Any) -> Any:
    from transformers import AutoModel

    return AutoModel.from_config(config, trust_remote_code=False).eval()


def open_tokenizer(files: Mapping[str, bytes]) -> Any:
    """Open a tokenizer from the content of its files.

    Raises
    ------
    ValueError
        If a file is not one of a tokenizer, names another file, or cannot be read.
    """
    transformers = require("transformers", extra="text")
    _check_tokenizer(files)
    with tempfile.TemporaryDirectory() as temporary:
        for name, content in files.items():
            (Path(temporary) / name).write_bytes(content)
        with opening("The tokenizer of this text encoder"):
            return transformers.AutoTokenizer.from_pretrained(temporary, **SAFE)


def fill(network: torch.nn.Module, tensors: Mapping[str, np.ndarray]) -> None:
    """Load weights that fit exactly.

    Raises
    ------
    ValueError
        If weights are missing, not expected, or of another shape.
    """
    import torch

    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    actual = {name: value.shape for name, value in tensors.items()}
    wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    if wrong:
        raise ValueError(f"The weights of this text encoder do not fit its configuration: check {listing(wrong, 4)}.")
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in tensors.items()})


def _check_architecture(value: Any, largest: int, key: str = "") -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name in _CODE | _KERNELS or name.startswith("_attn"):
                raise ValueError(
                    f"The architecture of this text encoder names {name!r}, which is not read of a stored one."
                )
            _check_architecture(inner, largest, name)
    elif isinstance(value, list):
        for inner in value:
            _check_architecture(inner, largest, key)
    elif isinstance(value, int) and not isinstance(value, bool):
        # a token that is not there may be -1
        least, most = (0, _MOST_LABELS) if key == "num_labels" else (-1, largest)
        if not least <= value <= most:
            raise ValueError(f"{key!r} of this text encoder is {value}; its weights allow {least} to {most}.")


def _check_tokenizer(files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if Path(name).suffix not in TOKENIZER_FILES:
            raise ValueError(f"{name} is not a file of a tokenizer (those end in {listing(TOKENIZER_FILES)}).")
        if not name.endswith(".json"):
            continue
        value = parse_json(content, f"{name} of this text encoder")
        if name in (
            "vocab.json",
            "added_tokens.json",
            "special_tokens_map.json",
            "tokenizer_config.json",
        ) and not isinstance(value, dict):
            raise ValueError(f"{name} of this text encoder is not a mapping.")
        if name == "tokenizer_config.json":
            elsewhere = [k for k, v in value.items() if k in _CODE or (k.endswith(("_file", "_files")) and v)]
            if elsewhere:
                raise ValueError(
                    f"The tokenizer of this text encoder names files or code elsewhere ({listing(sorted(elsewhere), 4)}), which are "
                    "not read. Remove these entries, and save the model again."
                )


def _language_models() -> set[str]:
    """Names of the architectures of transformers that read text alone."""
    from transformers.models.auto import modeling_auto as known

    return {
        *known.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *known.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
        *known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
