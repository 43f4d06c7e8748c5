"""Protocols that compare the presets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer.protocols.commands.common import common

if TYPE_CHECKING:
    from spatialwhisperer.protocols.commands.common import Commands


def add(commands: Commands) -> None:
    """Add the commands of this file."""
    _her2st(commands)
    _peers(commands)
    _her2st_regression(commands)


def _her2st(commands: Commands) -> None:
    parser = commands.add_parser("her2st", help="compare the presets: expression, spatial domains, patch classes")
    common(parser, "her2st")
    parser.add_argument("--presets", nargs="*", default=[], help="names of presets (default: all)")
    parser.add_argument("--split", nargs="*", default=["section", "patient"], choices=["section", "patient"])
    parser.add_argument("--protocol", nargs="*", default=["strict"], choices=["strict", "peer"])
    parser.add_argument(
        "--features",
        nargs="*",
        default=["stain_texture"],
        help="stain_texture, mobilenet_v2 (weights/ in the data folder), both, any timm model whose weights are here, or "
        "trained:NAME, a timm model that is trained end to end",
    )
    parser.add_argument("--epochs", type=int, help="epochs of trained:NAME (default: those of the preset)")
    parser.add_argument("--spots", type=int, help="spots of each training section, for trained:NAME (default: all)")
    parser.add_argument("--batch-size", type=int, help="pairs in a step of trained:NAME (default: that of the preset)")
    parser.add_argument("--pretrained", action="store_true", help="start trained:NAME from its published weights")
    parser.set_defaults(run=_run_her2st)


def _run_her2st(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.her2st import comparison
    from spatialwhisperer.protocols.her2st.trained_networks import NetworkOptions

    comparison.run(
        o["data"],
        o["out"],
        presets=o["presets"],
        splits=o["split"],
        protocols=o["protocol"],
        features=o["features"],
        n_seeds=o["seeds"],
        networks=NetworkOptions(o["epochs"], o["spots"], o["pretrained"], o["batch_size"]),
        smoke=o["smoke"],
    )


def _peers(commands: Commands) -> None:
    parser = commands.add_parser(
        "peers",
        help="what training an image network end to end adds to the same network frozen, for the published presets",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds her2st/")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for peers.csv and peers.md")
    parser.add_argument("--presets", nargs="*", default=[], help="names of presets (default: all that train a network)")
    parser.add_argument("--network", help="timm model for all presets (default: that of each paper)")
    parser.add_argument("--pretrained", action="store_true", help="start from the published weights of the network")
    parser.add_argument("--epochs", type=int, help="epochs (default: those of the preset)")
    parser.add_argument("--batch-size", type=int, help="pairs in a step (default: that of the preset)")
    parser.add_argument("--spots", type=int, help="spots of each training section (default: all)")
    parser.add_argument("--tile-px", type=int, help="pixels of a tile of 154 µm (default: 224)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--smoke", action="store_true", help="few spots, small tiles, few epochs: shows that it runs")
    parser.set_defaults(run=_run_peers)


def _run_peers(o: dict[str, Any]) -> None:
    from dataclasses import replace

    from spatialwhisperer.protocols.her2st import end_to_end

    size = end_to_end.SMOKE if o["smoke"] else end_to_end.Options()
    stated = {name: o[name] for name in ("epochs", "batch_size", "spots", "tile_px") if o[name] is not None}
    options = replace(size, network=o["network"], pretrained=o["pretrained"], seed=o["seed"], **stated)
    end_to_end.run(o["data"], o["out"], presets=o["presets"], options=options)


def _her2st_regression(commands: Commands) -> None:
    parser = commands.add_parser(
        "her2st-regression", help="what image features of its own add to the regression of expression"
    )
    common(parser, "her2st_regression", seeds=False)
    parser.set_defaults(run=_run_her2st_regression)


def _run_her2st_regression(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.her2st import regression

    regression.run(o["data"], o["out"], smoke=o["smoke"])
