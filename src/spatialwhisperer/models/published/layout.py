"""What the published checkpoint holds: three heads, a temperature, and the towers that were trained, by their names and shapes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import listing, warn
from spatialwhisperer._storage.torch_files import StoredTensor
from spatialwhisperer.encoders.text.bert import bert_shapes, bert_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PACKAGES = (
    "argparse",
    "cellwhisperer",
    "jsonargparse",
    "lightning",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "spatialwhisperer",
    "torch",
    "transformers",
)
"""Packages whose classes stand in the pickled configuration. None of it is built; only the tensors are used."""

BLOCKS = {"gene": "transcriptome_block", "image": "image_block", "text": "text_block"}
_TEMPERATURE = "discriminator.temperature"
_RENAMED = {
    "feature_nonlinear.0": "nonlinear.0",
    "feature_nonlinear.1": "nonlinear.1",
    "feature_nonlinear.3": "nonlinear.4",
    "feature_shortcut": "shortcut",
    "feature_block_ln": "norm",
}
_FROZEN = ("image_model.", "transcriptome_model.")
# what the published code wraps around a network
_WRAPPED = re.compile(r"image_model\.(?:_models\.(?:\d+\.)?)?(?:model\.)?")
_WRAPPERS = ("_orig_mod", "module")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Tensors of a checkpoint, found by their names and compared with the shapes that they must have.

    Attributes
    ----------
    projection_dim
        Dimension of the joint space.
    dims
        Number of features of each modality.
    heads
        Tensors of the heads and the temperature, by their names in the model of this package.
    text
        Tensors of the text tower by their names in BERT; empty where it was locked.
    text_sizes
        Architecture of the text tower.
    image_tower
        Tensors of the frozen image tower by their names in timm; empty in a stripped file.
    """

    projection_dim: int
    dims: Mapping[str, int]
    heads: Mapping[str, StoredTensor]
    text: Mapping[str, StoredTensor]
    text_sizes: Mapping[str, Any]
    image_tower: Mapping[str, StoredTensor]


def find_layout(values: Any, path: Path) -> Layout:
    """Find the parts of the published model in the values of a checkpoint. Sizes are those of the tensors.

    Raises
    ------
    ValueError
        If it is another model's, or tensors are missing or of another shape.
    """
    state = _state(values, path)
    dims = {name: _shape(state, f"discriminator.{block}.feature_shortcut.weight") for name, block in BLOCKS.items()}
    unknown_sizes = [name for name, shape in dims.items() if len(shape) != 2]
    if unknown_sizes:
        block = BLOCKS[unknown_sizes[0]]
        raise ValueError(
            f"{path} lacks the matrix discriminator.{block}.feature_shortcut.weight, which states the sizes of the {unknown_sizes[0]} "
            f"head. {_WHICH}"
        )
    u = dims["text"][0]
    expected: dict[str, tuple[str, Shape]] = {_TEMPERATURE: ("log_scale", ())}
    for name, block in BLOCKS.items():
        expected |= _block(name, f"discriminator.{block}", dims[name][1], u)
    text = {key.removeprefix("text_model."): key for key in state if key.startswith("text_model.")}
    text.pop("embeddings.position_ids", None)  # a buffer of older versions of transformers
    sizes = bert_sizes({name: state[key].shape for name, key in text.items()}) if text else {}
    frozen = {key for key in state if key.startswith(_FROZEN)}
    shapes = {key: shape for key, (_, shape) in expected.items()}
    if sizes:
        shapes |= {f"text_model.{name}": shape for name, shape in bert_shapes(sizes).items()}
        if sizes["hidden_size"] != dims["text"][1]:
            raise ValueError(
                f"The text tower of {path} gives {sizes['hidden_size']} features, and its head takes {dims['text'][1]}. {_WHICH}"
            )
    _compare(state, shapes, path, frozen)
    return Layout(
        u,
        {name: shape[1] for name, shape in dims.items()},
        {ours: state[key] for key, (ours, _) in expected.items()},
        {name: state[key] for name, key in text.items() if key in shapes},
        sizes,
        {_WRAPPED.sub("", key, count=1): state[key] for key in frozen if key.startswith(_FROZEN[0])},
    )


_WHICH = "It is not a checkpoint of SpatialWhisperer, or it was changed."


def _state(values: Any, path: Path) -> dict[str, StoredTensor]:
    """Tensors by their names, without what the training code put before each of them."""
    stored = values.get("state_dict", _bare(values)) if isinstance(values, dict) else None
    if not isinstance(stored, dict):
        found = listing(values, 6) if isinstance(values, dict) else type(values).__name__
        raise ValueError(
            f"{path} holds neither a checkpoint of Lightning ('state_dict') nor the weights of a model by their names (found: {found}). "
            "Save the model again with torch.save(model.state_dict(), path)."
        )
    named = {_unwrapped(str(key)): value for key, value in stored.items()}
    if len(named) < len(stored):
        count = Counter(_unwrapped(str(key)) for key in stored)
        twice = [str(key) for key in stored if count[_unwrapped(str(key))] > 1]
        raise ValueError(
            f"{path} holds {len(twice)} tensors under two names each: {listing(twice, 4)}. Keep one of each."
        )
    ends = [key for key in named if key.endswith(_TEMPERATURE)]
    if len(ends) > 1:
        raise ValueError(
            f"{path} holds {len(ends)} models, of which {listing(ends)} are the temperatures; one may be an average of the weights. Keep the "
            "tensors of one in 'state_dict', and save the file again with torch.save."
        )
    if not ends:
        raise ValueError(
            f"{path} is another model's checkpoint: it has no {_TEMPERATURE} (found {len(named)} tensors: {listing(sorted(named), 4)})."
        )
    prefix = ends[0].removesuffix(_TEMPERATURE)
    odd = [key for key, value in named.items() if not isinstance(value, StoredTensor)]
    if odd:
        raise ValueError(f"{path} holds something else than a tensor as {listing(odd, 4)}.")
    # a key without the prefix keeps its name, and is reported as unknown
    return {key.removeprefix(prefix) if key.startswith(prefix) else key: value for key, value in named.items()}


def _bare(values: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    """The values themselves where they are the weights of a model, saved without what Lightning stores beside them."""
    return values if values and all(isinstance(value, StoredTensor) for value in values.values()) else None


def _unwrapped(key: str) -> str:
    """Name of a tensor without what torch.compile and DataParallel put before the names of what they wrap."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def _block(name: str, block: str, d: int, u: int) -> dict[str, tuple[str, Shape]]:
    """Names here and shapes of the tensors of a head."""
    shapes: dict[str, Shape] = {
        "feature_nonlinear.0.weight": (u, d),
        "feature_nonlinear.1.num_batches_tracked": (),
        "feature_nonlinear.3.weight": (u, u),
        "feature_shortcut.weight": (u, d),
    }
    vectors = ["feature_nonlinear.3.bias", "feature_shortcut.bias"]
    vectors += [f"feature_nonlinear.1.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    vectors += [f"feature_block_ln.{part}" for part in ("weight", "bias")]
    shapes |= dict.fromkeys(vectors, (u,))
    out = {}
    for theirs, shape in shapes.items():
        module, _, part = theirs.rpartition(".")
        out[f"{block}.{theirs}"] = (f"heads.{name}.{_RENAMED[module]}.{part}", shape)
    return out


def _compare(state: Mapping[str, StoredTensor], shapes: Mapping[str, Shape], path: Path, known: set[str]) -> None:
    missing = sorted(shapes.keys() - state.keys())
    misfit = [f"{k}: {state[k].shape}, expected {s}" for k, s in shapes.items() if k in state and state[k].shape != s]
    if missing or misfit:
        raise ValueError(
            f"{path} does not fit SpatialWhisperer. Missing: {listing(missing, 4)}. Of another shape: {listing(misfit, 4)}. {_WHICH}"
        )
    unknown = sorted(state.keys() - shapes.keys() - known - {"text_model.embeddings.position_ids"})
    if unknown:
        warn(
            f"{path} holds {len(unknown)} tensors that SpatialWhisperer does not have, which are left out: {listing(unknown, 4)}."
        )


def _shape(state: Mapping[str, StoredTensor], key: str) -> Shape:
    return state[key].shape if key in state else ()
