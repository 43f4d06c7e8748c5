from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import spatialwhisperer as sw

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


TILES = sw.tl.ImageFeatures(tile_um=80, tile_px=64)


@pytest.fixture(scope="module")
def objects(simulated: Any) -> list[Any]:
    return [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]


def preset(**changes: Any) -> sw.models.Preset:
    return sw.models.get_preset("spatialwhisperer").replace(batch_size=64, **changes)


def embedded(section: Any, model: Any, device: str, modality: str = "image") -> np.ndarray:
    z = sw.tl.embed(section, model=model, modality=modality, device=device, inplace=False)
    assert z is not None
    return z


def test_embedding_on_the_gpu_is_that_of_the_cpu(section: Any, model: Any) -> None:
    for modality in ("image", "gene"):
        cpu, gpu = (embedded(section, model, device, modality) for device in ("cpu", "cuda"))
        assert np.allclose(cpu, gpu, atol=1e-4)
    assert next(model.parameters()).device.type == "cpu"


def test_training_in_full_precision_is_close_to_the_cpu(objects: list[Any]) -> None:
    options: dict[str, Any] = {"preset": preset(schedule="joint"), "image": TILES, "max_epochs": 3}
    cpu = sw.tl.train(objects, trainer={"accelerator": "cpu"}, **options)
    gpu = sw.tl.train(objects, trainer={"accelerator": "gpu", "precision": "32-true"}, **options)
    assert np.allclose(cpu.history["loss"], gpu.history["loss"], rtol=0.02)
    assert next(gpu.parameters()).device.type == "cpu"


def test_training_in_bf16(objects: list[Any], section: Any, labels: dict[str, str]) -> None:
    state = torch.cuda.get_rng_state()
    model = sw.tl.train(objects, image=TILES)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    sw.tl.zero_shot_annotate(section, labels, model=model, device="cuda")
    assert sw.tl.evaluate_annotation(section, "cell_type", min_rows=5)["auroc"]["macro"] > 0.8


def test_an_image_network_is_trained_on_the_gpu(objects: list[Any], section: Any) -> None:
    image = sw.tl.ImageFeatures("test_resnet.r160_in1k", tile_um=80, tile_px=32)
    model = sw.tl.train(objects, image=image, preset=preset(locking="LLu"), max_epochs=2)
    assert np.allclose(embedded(section, model, "cpu"), embedded(section, model, "cuda"), atol=1e-2)


def test_the_settings_choose_the_device(objects: list[Any]) -> None:
    with sw.settings.override(device="cuda:0"):
        model = sw.tl.train(objects, image=TILES, preset=preset(), max_epochs=1)
    assert model.modalities == ("gene", "image", "text")


def test_retrieval_on_the_gpu_is_that_of_the_cpu() -> None:
    from spatialwhisperer.retrieval.retrieval import retrieve

    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(50, 32)), rng.normal(size=(3000, 32))
    cpu, gpu = (retrieve(queries, keys, k=20, weights="softmax", device=device) for device in ("cpu", "cuda"))
    assert np.array_equal(cpu.index, gpu.index)
    assert np.allclose(cpu.weight, gpu.weight)


def test_stain_and_texture_on_the_gpu_are_those_of_the_cpu() -> None:
    from spatialwhisperer.encoders.image.stain_texture import StainTextureEncoder

    rng, encoder = np.random.default_rng(0), StainTextureEncoder()
    grain = rng.integers(0, 256, (40, 3, 28, 28)).repeat(8, axis=2).repeat(8, axis=3)
    tiles = np.clip(grain * rng.uniform(0.2, 1, (40, 1, 1, 1)) + rng.normal(0, 9, (40, 3, 224, 224)), 0, 255)
    cpu, gpu = (encoder.encode(tiles.astype(np.uint8), mpp=0.6875, device=device) for device in ("cpu", "cuda"))
    apart = np.abs(cpu - gpu) / np.maximum(cpu.std(axis=0), 0.01)
    # a pixel within rounding of a threshold may be on its other side
    assert np.quantile(apart, 0.995) < 1e-4
    assert apart.max() < 0.02


def test_every_gpu_computes_batches_of_a_network_and_the_order_stays() -> None:
    from spatialwhisperer._compute.devices import devices_of
    from spatialwhisperer.encoders.image.timm import TimmEncoder

    torch.manual_seed(0)
    encoder = TimmEncoder("resnet18", pretrained=False)
    grain = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    tiles = grain.repeat(8, axis=2).repeat(8, axis=3)
    with sw.settings.override(batch_size=4):
        cpu, gpu = (encoder.encode(tiles, mpp=0.5, device=device) for device in ("cpu", "cuda"))
        with sw.settings.override(precision="auto", compile=True):
            fast = encoder.encode(tiles, mpp=0.5, device="cuda")
    assert len(devices_of("cuda")) == torch.cuda.device_count()
    for other in (gpu, fast):
        cosine = (cpu * other).sum(axis=1) / np.linalg.norm(cpu, axis=1) / np.linalg.norm(other, axis=1)
        assert cosine.min() > 0.999
    assert next(encoder.network.parameters()).device.type == "cpu"


def test_pinned_copies_on_a_second_stream_bring_the_right_rows() -> None:
    from spatialwhisperer._compute.batched import Computing, by_batches

    rows = np.arange(64 * 100_000, dtype=np.float32).reshape(64, -1)

    def slow(batch: torch.Tensor) -> torch.Tensor:
        torch.cuda._sleep(10_000_000)
        return batch * 2

    assert np.array_equal(by_batches(rows, 4, [Computing(torch.device("cuda", 0), slow)]), rows * 2)
