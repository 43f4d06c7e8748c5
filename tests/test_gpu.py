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


@pytest.fixture(scope="module")
def objects(simulated: Any) -> list[Any]:
    return [simulated.sections["P1"], simulated.sections["P2"], simulated.reference]


def test_embedding_on_the_gpu_is_that_of_the_cpu(section: Any, model: Any) -> None:
    for modality in ("image", "gene"):
        cpu = sw.tl.embed(section, model=model, modality=modality, device="cpu", inplace=False)
        gpu = sw.tl.embed(section, model=model, modality=modality, device="cuda", inplace=False)
        assert np.allclose(cpu, gpu, atol=1e-4)
    assert next(model.parameters()).device.type == "cpu"


def test_training_in_full_precision_is_close_to_the_cpu(objects: list[Any]) -> None:
    options = {"schedule": "joint", "max_epochs": 3, "batch_size": 64}
    cpu = sw.tl.train(objects, accelerator="cpu", **options)
    gpu = sw.tl.train(objects, accelerator="gpu", precision="32-true", **options)
    assert np.allclose(cpu.history["loss"], gpu.history["loss"], rtol=0.02)
    assert next(gpu.parameters()).device.type == "cpu"


def test_training_in_bf16(objects: list[Any], section: Any, labels: dict[str, str]) -> None:
    state = torch.cuda.get_rng_state()
    model = sw.tl.train(objects)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    sw.tl.zero_shot_annotate(section, labels, model=model, device="cuda")
    assert sw.tl.evaluate_annotation(section, "cell_type", min_rows=5).loc["macro", "auroc"] > 0.8


def test_an_image_tower_on_the_gpu(objects: list[Any], section: Any) -> None:
    model = sw.tl.train(
        objects,
        image_encoder="test_resnet.r160_in1k",
        locking="LLu",
        tile_um=80,
        tile_px=32,
        max_epochs=2,
        batch_size=64,
    )
    cpu = sw.tl.embed(section, model=model, device="cpu", inplace=False)
    gpu = sw.tl.embed(section, model=model, device="cuda", inplace=False)
    assert np.allclose(cpu, gpu, atol=1e-2)


def test_settings_choose_the_device(objects: list[Any]) -> None:
    with sw.settings.override(device="cuda:0"):
        assert sw.tl.train(objects, max_epochs=1).modalities == ("gene", "image", "text")
