"""Command line of the papers: ``python -m spatialwhisperer.protocols paper NAME --data FOLDER``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spatialwhisperer.protocols.commands.common import Commands

PAPERS = ("spatialwhisperer", "mclstexp", "heclip", "tpirbae", "bleep")


def add(commands: Commands) -> None:
    """Add the command ``paper``."""
    parser = commands.add_parser(
        "paper", help="the table of a paper from a folder of its data, with the published numbers beside"
    )
    parser.add_argument("paper", choices=PAPERS, help="which one")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds her2st/, cscc/, liver/, dlpfc/, lizard/, …"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder for paper_NAME.csv and paper_NAME.md")
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="rows of the table (default: all)")
    parser.add_argument(
        "--image",
        default="stain_texture",
        help="image encoder, which stays frozen, or trained:NAME, a timm model that is trained end to end as in the papers",
    )
    parser.add_argument("--epochs", type=int, help="epochs (default: those of the preset)")
    parser.add_argument("--spots", type=int, help="spots of each training section, for trained:NAME (default: all)")
    parser.add_argument("--batch-size", type=int, help="pairs in a step of trained:NAME (default: that of the preset)")
    parser.add_argument("--pretrained", action="store_true", help="start trained:NAME from its published weights")
    parser.add_argument("--seeds", type=int, default=1, help="training runs of each fold")
    parser.add_argument("--model", help="model that labels tiles (spatialwhisperer): a folder, or its name on the hub")
    parser.add_argument("--smoke", action="store_true", help="one fold of each row, few spots: shows that it runs")
    parser.set_defaults(run=_run)


def _run(o: dict[str, Any]) -> None:
    from spatialwhisperer.protocols.her2st.trained_networks import NetworkOptions
    from spatialwhisperer.protocols.papers import run

    networks = NetworkOptions(o["epochs"], o["spots"], o["pretrained"], o["batch_size"])
    options = run.Options(
        image=o["image"],
        networks=networks,
        seeds=o["seeds"],
        model=o["model"],
        rows=tuple(o["rows"]),
        smoke=o["smoke"],
    )
    try:
        run.run(o["paper"], o["data"], o["out"], options=options)
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from error
