"""Where the network of a timm encoder and its weights come from: the table, a repository on the hub, a package, or timm itself."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialwhisperer._messages import import_torch_stack
from spatialwhisperer.encoders import hub
from spatialwhisperer.encoders.image._published.packaged import package_file, packaged
from spatialwhisperer.encoders.image._published.timm_weights import Architecture, with_layers
from spatialwhisperer.encoders.image.weights import load_in_order
from spatialwhisperer.encoders.published.table import row_of

if TYPE_CHECKING:
    import torch

    from spatialwhisperer.encoders.spec import EncoderSpec

HUB_PREFIX = "hf-hub:"


class Source:
    """Network of an encoder.

    Parameters
    ----------
    spec
        The encoder.
    pretrained
        Whether its published weights are loaded; otherwise they are random.
    revision
        Commit, tag or branch of the hub; ``None`` takes what the cache holds, else the latest.

    Attributes
    ----------
    commit
        Commit that the files are of, after the network was built; ``None`` where there are none from the hub.
    """

    commit: str | None = None

    def __init__(self, spec: EncoderSpec, *, pretrained: bool, revision: str | None = None) -> None:
        self.spec, self.pretrained, self.revision = spec, pretrained, revision
        self.row = row_of(spec.name)
        self.repository = _repository(spec) if self.row is None else self.row.repository

    @cached_property
    def wanted(self) -> hub.Wanted:
        """Files of the repository."""
        files = () if self.row is None else self.row.files
        return hub.Wanted(weights=files) if files else hub.Wanted()

    def is_here(self) -> bool:
        """Whether the weights are here."""
        if self.row is not None and not self.repository:
            return packaged(self.row) is not None
        if self.repository:
            return hub.in_cache(self.repository, self.wanted) is not None
        return _cache_exists() and _cached(self.spec.name) is not None

    def load(self, network: torch.nn.Module, file: Path) -> None:
        """Load the weights in a file into the network that was built.

        Raises
        ------
        ValueError
            If anything but a classifier does not fit exactly.
        """
        self._architecture.load(network, file)

    def network(self) -> torch.nn.Module:
        """Build the network.

        Raises
        ------
        FileNotFoundError
            If its weights are not here, and cannot be fetched.
        ValueError
            If they do not fit, or the repository states no network that timm has.
        """
        if self.row is not None and not self.repository:
            return self._packaged()
        if self.repository:
            return self._of_hub()
        self._architecture = Architecture(self.spec.name)
        return _of_timm_itself(self.spec, self.pretrained)

    def _packaged(self) -> torch.nn.Module:
        assert self.row is not None
        self._architecture = Architecture(self.row.architecture, self.row.options)
        file = package_file(self.row) if self.pretrained else None
        network = _create(self.row.architecture, self.row.options, classifier=file is not None)
        if file is not None:
            # a classifier is part of the order
            load_in_order(network, file)
            network.reset_classifier(0)  # type: ignore[operator]
        return network

    def _of_hub(self) -> torch.nn.Module:
        needs_files = self.pretrained or self.row is None
        # fetched before timm is imported, which takes seconds: what is wrong is said at once
        folder = hub.fetch(self.spec, self.repository, self.wanted, revision=self.revision) if needs_files else None
        self.commit = None if folder is None else folder.name
        stated = {} if folder is None else _stated(folder)
        of_row = None if self.row is None else (self.row.architecture, self.row.options)
        name: Any
        name, options = of_row or (stated.get("architecture"), stated.get("model_args", {}))
        network = _create(name, options, stated.get("pretrained_cfg"))
        classes = stated.get("num_classes")
        self._architecture = Architecture(
            name, options, stated.get("pretrained_cfg"), classes if isinstance(classes, int) else None
        )
        if folder is not None and self.pretrained:
            names = [path.name for path in folder.iterdir()]
            self.load(network, folder / self.wanted.weights_in(names)[0])
        return network


def _create(architecture: Any, options: Any, config: Any = None, *, classifier: bool = False) -> torch.nn.Module:
    timm = import_torch_stack("timm")
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        raise ValueError(f"The repository states the architecture {architecture!r}, which timm does not have.")
    arguments = with_layers(options)
    if not classifier:
        arguments["num_classes"] = 0
    try:
        return timm.create_model(architecture, pretrained=False, pretrained_cfg=config, **arguments)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"timm cannot build {architecture} as the repository states it ({hub.first_line(error)})."
        ) from error


def _stated(folder: Path) -> dict[str, Any]:
    """What the configuration of a repository says; empty where it has none."""
    file = folder / "config.json"
    if not os.path.isfile(file):
        return {}
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); delete it, and load again.") from error
    return held if isinstance(held, dict) else {}


def _repository(spec: EncoderSpec) -> str:
    """Id on the hub of an encoder that is not in the table; empty for a model id of timm."""
    if spec.name.startswith(HUB_PREFIX):
        return spec.name.removeprefix(HUB_PREFIX)
    return "" if _of_timm(spec.name) or not spec.url.startswith(hub.HUB) else spec.url.removeprefix(hub.HUB)


# --------------------------------------------------------------------------------------------- models of timm by id


def _of_timm(name: str) -> bool:
    return bool(import_torch_stack("timm").is_model(name))


def _of_timm_itself(spec: EncoderSpec, pretrained: bool) -> torch.nn.Module:
    """Network of a timm id, with the weights that timm publishes for it or without."""
    timm = import_torch_stack("timm")
    file = _cached(spec.name) if pretrained else None
    if not pretrained or file is not None:
        network = timm.create_model(spec.name, pretrained=False, num_classes=0)
        if file is not None:
            # what it published at another size, timm resizes
            Architecture(spec.name).load(network, file, resized=True)
        return network
    hub.check_network(spec)
    hub.announce(spec)
    try:
        return timm.create_model(spec.name, pretrained=True, num_classes=0)
    # a connection that breaks raises errors of whichever HTTP library the client has, which share no class
    except Exception as error:
        raise FileNotFoundError(hub.failed(spec, error)) from error


def _cache_exists() -> bool:
    from huggingface_hub import constants

    # timm is not imported to look into a cache that is not there
    return Path(constants.HF_HUB_CACHE).is_dir()


def _cached(name: str) -> Path | None:
    """Published weights of a timm id where they have been downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    config = import_torch_stack("timm").get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    file = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    return Path(file) if isinstance(file, str) else None
