"""A model comes back with the encoders that were trained with it, whoever wrote them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer._messages import SpatialWhispererWarning
from spatialwhisperer.encoders.image.networks.module import ModuleEncoder
from spatialwhisperer.encoders.recipe import FeatureRecipe
from spatialwhisperer.encoders.spec import EncoderSpec
from spatialwhisperer.models import ModelConfig, Whisperer
from spatialwhisperer.models.configuration.model import HeadConfig, ModalityConfig

if TYPE_CHECKING:
    from pathlib import Path

TILES = np.random.default_rng(0).integers(0, 256, (5, 3, 9, 9), dtype=np.uint8)


class Net(torch.nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = torch.nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean(dim=(2, 3))


def of_module(trained: bool, encoder: Any = None) -> Whisperer:
    encoder = encoder or sw.models.image_encoder(Net())
    recipe = FeatureRecipe(encoder.identity, tile_um=(80.0,), tile_px=9)
    image = ModalityConfig(recipe, 4, HeadConfig("linear_norm", 4), trained=trained)
    torch.manual_seed(0)
    return Whisperer(ModelConfig(3, {"image": image}), encoders={"image": encoder})


@pytest.mark.parametrize("given", [Net(7), ModuleEncoder(Net(7), EncoderSpec("net", "image", 4))])
def test_a_trained_module_of_ones_own_is_passed_when_the_model_is_opened(tmp_path: Path, given: Any) -> None:
    own = ModuleEncoder(Net(), EncoderSpec("net", "image", 4)) if isinstance(given, ModuleEncoder) else None
    model = of_module(trained=True, encoder=own)
    with torch.no_grad():
        next(model.towers["image"].parameters()).add_(0.1)
    z = model.project("image", TILES)
    folder = model.save(tmp_path / "m")
    with pytest.raises(
        ValueError, match=r"'net'\) was trained with it .* Pass it: .*load\(folder, encoders={'image': …}\)"
    ):
        Whisperer.load(folder)
    opened = Whisperer.load(folder, encoders={"image": given})
    assert np.array_equal(opened.project("image", TILES), z)
    hub = Whisperer.from_pretrained(folder, encoders={"image": given})
    assert np.array_equal(hub.project("image", TILES), z)
    again = Whisperer.load(opened.save(tmp_path / "again"), encoders={"image": given})
    assert np.array_equal(again.project("image", TILES), z)


def test_a_module_that_cannot_be_the_one_is_refused(tmp_path: Path) -> None:
    folder = of_module(trained=True).save(tmp_path / "m")
    other = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with pytest.raises(
        ValueError, match=r"encoder of this model is 'net', and encoders={'image': …} gives 'sequential'"
    ):
        Whisperer.load(folder, encoders={"image": other})
    with pytest.raises(ValueError, match="weights of this model do not fit its configuration: check towers.image"):
        Whisperer.load(folder, encoders={"image": ModuleEncoder(other, EncoderSpec("net", "image", 3))})
    with pytest.raises(KeyError, match="no modality 'imge' .it has: image"):
        Whisperer.load(folder, encoders={"imge": Net()})
    with pytest.raises(TypeError, match="name, a torch module"):
        Whisperer.load(folder, encoders={"image": 3})  # type: ignore[dict-item]


def test_normalisation_belongs_to_a_module(tmp_path: Path) -> None:
    """A module that was trained with facts of its own must not be opened as a plain one."""
    facts = EncoderSpec("scaled", "image", 4, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    model = of_module(trained=True, encoder=ModuleEncoder(Net(), facts))
    folder = model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"this model is 'scaled', .*Give a module the name and the normalisation"):
        Whisperer.load(folder, encoders={"image": Net()})
    opened = Whisperer.load(folder, encoders={"image": ModuleEncoder(Net(3), facts)})
    assert np.array_equal(opened.project("image", TILES), model.project("image", TILES))


def test_a_frozen_module_of_ones_own_is_compared_with_the_one_of_training(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    model = of_module(trained=False)
    folder = model.save(tmp_path / "m")
    # it may be opened without, for everything that needs no image features
    assert "image" not in Whisperer.load(folder).encoders
    assert (
        Whisperer.load(folder, encoders={"image": Net()}).encoders["image"].identity == model.encoders["image"].identity
    )
    assert not recwarn.list
    with pytest.warns(SpatialWhispererWarning, match="image encoder .* is not exactly the one this model was"):
        Whisperer.load(folder, encoders={"image": Net(7)})


def test_a_module_that_cannot_be_read_is_taken_with_a_warning(tmp_path: Path) -> None:
    def streamed() -> Net:
        net = Net()
        net.numbers = (i for i in range(3))  # type: ignore[assignment]
        return net

    folder = of_module(trained=False, encoder=sw.models.image_encoder(streamed())).save(tmp_path / "m")
    with pytest.warns(
        SpatialWhispererWarning, match=r"because its attribute numbers \(of type generator\) cannot be read"
    ):
        assert "image" in Whisperer.load(folder, encoders={"image": streamed()}).encoders


# ------------------------------------------------------------------------------------------------- from training to annotation


@pytest.fixture
def objects(simulated: Any) -> list[Any]:
    """Two sections with tables of their own, because training stores features in them, and the reference."""
    import spatialdata as sd

    sections = [
        sd.SpatialData(images=dict(s.images), shapes=dict(s.shapes), tables={"table": s["table"].copy()})
        for s in (simulated.sections[name] for name in ("P1", "P2"))
    ]
    return [*sections, simulated.reference]


@pytest.fixture
def tiny_text(tmp_path: Path, labels: dict[str, str]) -> Path:
    """A random BERT of 16 dimensions over the words of the captions, as a local folder."""
    from transformers import BertConfig, BertModel, BertTokenizerFast  # type: ignore[attr-defined]

    folder = tmp_path / "tiny"
    folder.mkdir()
    words = sorted({w for caption in labels.values() for w in caption.lower().replace("-", " - ").split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)
    return folder


def train(objects: list[Any], locking: str, **features: Any) -> Whisperer:
    preset = sw.models.get_preset("spatialwhisperer").replace(locking=locking, batch_size=64)
    features = {"image": sw.tl.ImageFeatures(tile_um=80, tile_px=64)} | features
    return sw.tl.train(objects, preset=preset, max_epochs=2, **features)


def scores(section: Any, labels: dict[str, str], model: Whisperer) -> np.ndarray:
    table: Any = sw.tl.zero_shot_annotate(section, labels, model=model, inplace=False)
    return table.to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize("locking", ["LUL", "LuL", "LLL"])
def test_a_text_encoder_from_a_folder_travels_with_the_model(
    objects: list[Any], tiny_text: Path, section: Any, labels: dict[str, str], tmp_path: Path, locking: str
) -> None:
    """Trained, its tokenizer travels and its weights are the model's; frozen, it travels whole."""
    pytest.importorskip("transformers")
    model = train(objects, locking, text=tiny_text)
    expected = scores(section, labels, model)
    folder = model.save(tmp_path / "m")
    stored = {p.name for p in (folder / "text_encoder").iterdir()}
    assert {"config.json", "tokenizer.json"} <= stored
    assert ("model.safetensors" in stored) == (locking == "LLL")
    shutil.rmtree(tiny_text)
    opened = Whisperer.load(folder)
    assert np.array_equal(scores(section, labels, opened), expected)
    again = Whisperer.load(opened.save(tmp_path / "again"))
    assert np.array_equal(scores(section, labels, again), expected)
    assert opened.config == model.config
    # neither the place of the folder nor that of the user is written down
    assert not [p for p in folder.rglob("*.json") if str(tmp_path) in p.read_text(encoding="utf-8")]


def test_an_image_module_of_ones_own_trains_and_is_passed_again(
    objects: list[Any], section: Any, labels: dict[str, str], tmp_path: Path
) -> None:
    model = train(objects, "LLU", image=sw.tl.ImageFeatures(Net(), tile_um=80, tile_px=32))
    expected = scores(section, labels, model)
    opened = Whisperer.load(model.save(tmp_path / "m"), encoders={"image": Net(5)})
    assert np.array_equal(scores(section, labels, opened), expected)


def test_an_image_module_of_ones_own_that_stays_frozen_is_passed_for_new_images(
    objects: list[Any], section: Any, labels: dict[str, str], tmp_path: Path
) -> None:
    model = train(objects, "LLL", image=sw.tl.ImageFeatures(Net(), tile_um=80, tile_px=32))
    expected = scores(section, labels, model)
    folder = model.save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"Pass it when you open the model: .*load\(folder, encoders={'image': …}\)"):
        scores(section, labels, Whisperer.load(folder))
    opened = Whisperer.load(folder, encoders={"image": Net()})
    assert np.array_equal(scores(section, labels, opened), expected)


@pytest.mark.slow
def test_a_timm_model_of_any_id_trains_and_comes_back_by_its_name(
    objects: list[Any], section: Any, labels: dict[str, str], tmp_path: Path
) -> None:
    model = train(objects, "LLu", image=sw.tl.ImageFeatures("test_resnet.r160_in1k", tile_um=80, tile_px=32))
    expected = scores(section, labels, model)
    assert np.array_equal(scores(section, labels, Whisperer.load(model.save(tmp_path / "m"))), expected)
