"""Models of open_clip, read from a folder: the library is never asked to fetch anything, nor to open a checkpoint."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import require
from spatialwhisperer.encoders import hub
from spatialwhisperer.encoders.image.weights import load_weights
from spatialwhisperer.encoders.image_text.tower import Tower

if TYPE_CHECKING:
    import torch

CONFIG = "open_clip_config.json"
TOKENIZER = ("*.json", "vocab.txt", "merges.txt", "*.model")
WANTED = hub.Wanted(
    weights=(
        "open_clip_model.safetensors",
        "*.safetensors",
        "open_clip_pytorch_model.bin",
        "pytorch_model.bin",
    ),
    others=TOKENIZER,
)
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def text_tower(folder: Path, wanted: hub.Wanted, architecture: str) -> Tower:
    """Text tower of the model in a folder; see `read`."""
    from spatialwhisperer.encoders.image_text.networks import ClipText

    model = read(folder, wanted, architecture=architecture)
    # its tokenizer pads every text to one length, so that a row depends on its text alone
    return Tower(
        ClipText(model.network),
        lambda texts: {"tokens": model.tokenizer(list(texts))},
        float(model.network.logit_scale.detach().exp()),
    )


@dataclass(frozen=True)
class ClipModel:
    """A model of images and texts, as open_clip builds it.

    Attributes
    ----------
    network
        The whole model.
    tokenizer
        Turns texts into token ids of one length.
    input_px, mean, std
        How it takes images.
    """

    network: Any
    tokenizer: Any
    input_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def image(self) -> torch.nn.Module:
        """The image tower, as a module of its own."""
        from spatialwhisperer.encoders.image_text.networks import ClipImage

        return ClipImage(self.network)

    @property
    def dim(self) -> int:
        """Width of the space that images and texts share."""
        import torch

        with torch.inference_mode():
            return int(self.image.eval()(torch.zeros(1, 3, self.input_px, self.input_px)).shape[1])


def read(folder: Path, wanted: hub.Wanted, *, architecture: str = "", pretrained: bool = True) -> ClipModel:
    """Build the model in a folder and load its weights.

    Parameters
    ----------
    folder
        Folder with ``open_clip_config.json``, unless `architecture` names a configuration of open_clip itself.
    wanted
        Which of its files holds the weights.
    architecture
        Name of a configuration of open_clip.
    pretrained
        Whether to load weights.

    Raises
    ------
    ImportError
        If open_clip is not installed.
    ValueError
        If the configuration or the weights do not fit.
    """
    open_clip = require("open_clip", extra="open-clip")
    stated = {} if architecture else _stated(folder)
    with tempfile.TemporaryDirectory() as temporary:
        name = architecture or f"local-dir:{_without_downloads(stated, folder, Path(temporary))}"
        try:
            network = open_clip.create_model(name, pretrained=None, pretrained_hf=False, load_weights=False)
            tokenizer = open_clip.get_tokenizer(architecture or f"local-dir:{folder}")
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"open_clip cannot build the model in {folder} ({hub.first_line(error)}).") from error
    if pretrained:
        names = wanted.weights_in(path.name for path in folder.iterdir())
        if len(names) != 1:
            raise ValueError(f"{folder} must hold one file with weights; found {names or 'none'}.")
        load_weights(network, folder / names[0])
    size = network.visual.image_size
    given = stated.get("preprocess_cfg", {})
    return ClipModel(
        network,
        tokenizer,
        int(size[0] if isinstance(size, tuple | list) else size),
        tuple(given.get("mean", _CLIP_MEAN)),
        tuple(given.get("std", _CLIP_STD)),
    )


def _stated(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not os.path.isfile(file):
        raise ValueError(f"{folder} holds no {CONFIG}; it is no model of open_clip.")
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); delete it, and load again.") from error
    if not isinstance(held, dict) or not isinstance(held.get("model_cfg"), dict):
        raise ValueError(f"{file} states no model_cfg.")
    return held


def _without_downloads(stated: dict[str, Any], folder: Path, place: Path) -> Path:
    """Write a configuration that names no network of the hub: that of a text tower is built from its own configuration."""
    text = stated["model_cfg"].get("text_cfg", {})
    named = text.get("hf_model_name")
    if named:
        own = json.loads((folder / "config.json").read_text()) if os.path.isfile(folder / "config.json") else {}
        # a configuration of the model as a whole states no kind of text tower
        text |= {
            "hf_model_name": str(folder if "hidden_size" in own else _text_configuration(str(named))),
        }
    (place / CONFIG).write_text(json.dumps(stated), encoding="utf-8")
    return place


def _text_configuration(repository: str) -> Path:
    from spatialwhisperer.encoders.spec import EncoderSpec

    spec = EncoderSpec(repository, "text", None, url=hub.HUB + repository)
    return hub.fetch(spec, repository, hub.Wanted(weights=("config.json",), others=()))
