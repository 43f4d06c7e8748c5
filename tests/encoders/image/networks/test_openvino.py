from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

import spatialwhisperer as sw
from spatialwhisperer._compute import precision
from spatialwhisperer.encoders.image.networks import openvino as _openvino_network
from spatialwhisperer.encoders.image.networks.openvino import computed_by_openvino
from spatialwhisperer.encoders.image.timm import TimmEncoder


class Means(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3)) * self.weight


def test_where_it_is_not_installed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with (
        sw.settings.override(backend="openvino"),
        pytest.raises(ImportError, match=r"spatialwhisperer\[openvino\]"),
    ):
        TimmEncoder("test_resnet.r160_in1k", pretrained=False).encode(
            np.zeros((1, 3, 32, 32), np.uint8), mpp=0.5, device="cpu"
        )


def test_other_backends_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match='settings.backend must be "torch" or "openvino", not \'onnx\''):
        sw.settings.backend = "onnx"  # type: ignore[assignment]
    monkeypatch.setenv("SPATIALWHISPERER_BACKEND", "onnx")
    with pytest.raises(ValueError, match="SPATIALWHISPERER_BACKEND must be"):
        type(sw.settings)()


# openvino is not imported by tests first: it would report to its makers
installed = pytest.mark.skipif(find_spec("openvino") is None, reason="needs OpenVINO: pip install openvino")


@pytest.mark.slow
@installed
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_vit.r160_in1k"])
def test_features_have_a_cosine_of_999_thousandths_to_those_of_torch(
    name: str, low: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoder = TimmEncoder(name, pretrained=False)
    tiles = np.random.default_rng(0).integers(0, 256, (7, 3, 8, 8), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
    plain = encoder.encode(tiles, mpp=0.5, device="cpu")
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: low)
    with sw.settings.override(backend="openvino", precision="auto", batch_size=4):
        fast = encoder.encode(tiles, mpp=0.5, device="cpu")
    assert not np.array_equal(fast, plain)
    cosine = (fast * plain).sum(axis=1) / np.linalg.norm(fast, axis=1) / np.linalg.norm(plain, axis=1)
    assert cosine.min() > (0.999 if low else 0.99999)


@installed
def test_a_network_is_converted_once_and_again_after_its_weights_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = _openvino_network._openvino()
    convert, converted = openvino.convert_model, []

    def counted(*args: Any, **options: Any) -> Any:
        converted.append(1)
        return convert(*args, **options)

    monkeypatch.setattr(openvino, "convert_model", counted)
    network, x = Means().eval(), torch.rand(5, 3, 8, 8)
    for _ in range(2):
        assert torch.allclose(computed_by_openvino(network, "means")(x), x.mean(dim=(2, 3)), atol=1e-6)
    assert len(converted) == 1
    network.weight.mul_(2)
    assert torch.allclose(computed_by_openvino(network, "means")(x), 2 * x.mean(dim=(2, 3)), atol=1e-6)
    assert len(converted) == 2


@installed
def test_a_network_that_takes_one_size_of_batch_alone_is_refused() -> None:
    class Fixed(Means):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # a constant of the batch that it is converted with
            return x.mean(dim=(2, 3)) * (-1) ** len(x)

    with pytest.raises(RuntimeError, match=r"'fixed' cannot be computed by OpenVINO: .*settings\.backend = \"torch\""):
        computed_by_openvino(Fixed().eval(), "'fixed'")(torch.rand(2, 3, 8, 8))


REPORTS = """
import torch
from spatialwhisperer.encoders.image.networks.openvino import computed_by_openvino

computed_by_openvino(torch.nn.Flatten(), "flatten")(torch.rand(2, 3, 8, 8))
from openvino.tools.ovc import telemetry_utils

print(telemetry_utils.tm.__name__)
"""


@pytest.mark.slow
@installed
def test_nothing_is_reported_to_its_makers() -> None:
    done = subprocess.run([sys.executable, "-c", REPORTS], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "openvino.tools.ovc.telemetry_stub"
