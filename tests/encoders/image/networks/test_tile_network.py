from __future__ import annotations

import pytest
import torch
from torch import nn

from spatialwhisperer.encoders.image.networks.tile_network import TileNetwork
from spatialwhisperer.models import get_spec


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float64, 1e-6), (torch.bfloat16, 0.02)])
def test_a_network_in_another_precision_gets_its_tiles_in_it(kind: torch.dtype, tolerance: float) -> None:
    """As training in "64-true" and "bf16-true" converts it, with the default type of torch; tiles stay whole numbers."""
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = TileNetwork(plain, get_spec("resnet18"))
    tiles = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    before = torch.get_default_dtype()
    with torch.no_grad():
        expected = network(tiles)
        try:
            torch.set_default_dtype(kind)
            found = network.to(kind)(tiles)
        finally:
            torch.set_default_dtype(before)
    assert found.dtype == kind
    assert torch.allclose(found.float(), expected, atol=tolerance)
