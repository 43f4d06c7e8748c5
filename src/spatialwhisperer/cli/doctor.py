"""``spatialwhisperer doctor``: whether this installation works, and what it has."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from spatialwhisperer._compute.blocks import cores
from spatialwhisperer._messages import import_torch_stack
from spatialwhisperer._settings import settings
from spatialwhisperer.cli.errors import one_line
from spatialwhisperer.cli.text_table import text_table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

_OWN = "spatialwhisperer"
_EXTRAS = {
    "text": "sentence encoders, for labels that the embedded model does not know",
    "wsi": "SVS, NDPI, MRXS and other files of slide scanners; image encoders of lazyslide-models",
    "nuclei": "nuclei by InstanSeg",
    "open-clip": "QuiltNet, BiomedCLIP, OmiCLIP and other encoders of open_clip",
    "efficientnet": "a pretrained image encoder without a download",
    "openvino": "faster image networks on a CPU",
    "census": "cells of the CELLxGENE Census",
    "plot": "pictures by spatialdata-plot",
    "leiden": "spatial domains by Leiden clustering",
    "harmony": "batch correction by Harmony",
    "demo": "the demo",
}
"""What each extra is for; those of development are left out."""
_GIB = 2**30
_LEAST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One line of the answer.

    Attributes
    ----------
    state
        "ok"; "absent", of what is optional; "note"; or "BROKEN", of what is needed.
    name, text
        What was looked at, and what was found.
    """

    state: str
    name: str
    text: str


def run(_options: Namespace) -> int:
    """Print what was found; 1 where something that is needed does not work."""
    findings = [one for check in (_python, _packages, _torch, _memory, _places, _extras, _model) for one in check()]
    print(text_table([(one.state, one.name, one.text) for one in findings]))
    broken = [one.name for one in findings if one.state == "BROKEN"]
    print(f"\nDoes not work: {', '.join(broken)}." if broken else "\nEverything that is needed works.")
    return int(bool(broken))


def _python() -> Iterator[Finding]:
    text = f"{platform.python_version()} ({sys.executable}) on {platform.platform(terse=True)}"
    if sys.version_info[:2] < _LEAST_PYTHON:
        yield Finding("BROKEN", "Python", f"{text}; {'.'.join(map(str, _LEAST_PYTHON))} or later is needed")
        return
    yield Finding("ok", "Python", text)


def _packages() -> Iterator[Finding]:
    """The package itself and what it needs."""
    yield Finding("ok", _OWN, version(_OWN))
    for requirement in _requirements():
        state, text = _installed(requirement)
        yield Finding("ok" if state else "BROKEN", requirement.name, text)


def _requirements(extra: str = "") -> list[Requirement]:
    """What the package needs, or what an extra adds."""
    every = [Requirement(line) for line in requires(_OWN) or ()]
    if not extra:
        return [one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [
        one
        for one in every
        if one.marker is not None and one.marker.evaluate({"extra": extra}) and not one.marker.evaluate({"extra": ""})
    ]


def _installed(requirement: Requirement) -> tuple[bool, str]:
    """Whether a package is there in a version that fits, and which it is."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return False, f"not installed: pip install '{requirement.name}{requirement.specifier}'"
    if not requirement.specifier.contains(found, prereleases=True):
        return (
            False,
            f"{found}, {requirement.specifier} is needed: pip install '{requirement.name}{requirement.specifier}'",
        )
    return True, found


def _torch() -> Iterator[Finding]:
    def look() -> str:
        torch: Any = import_module("torch")
        import_torch_stack("torchvision")
        device = settings.resolve_device()
        card = f" ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else ""
        return f"{device}{card}; {torch.get_num_threads()} of {cores()} cores compute"

    yield _tried("device", look)


def _memory() -> Iterator[Finding]:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (page * os.sysconf(name) / _GIB for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        yield Finding("note", "memory", "not known on this system")
        return
    yield Finding("ok", "memory", f"{total:.1f} GiB, {free:.1f} GiB of them unused")


def _places() -> Iterator[Finding]:
    """The cache folder and whether anything is downloaded."""
    folder = settings.cache_dir
    there = next((p for p in (folder, *folder.parents) if p.exists()), Path.cwd())
    if there.is_dir() and os.access(there, os.W_OK):
        free = shutil.disk_usage(there).free / _GIB
        made = "" if there == folder else ", made when it is needed"
        yield Finding("ok", "cache folder", f"{folder} ({free:.1f} GiB free on the disk{made})")
    else:
        yield Finding(
            "note",
            "cache folder",
            f"{folder} cannot be written to: set SPATIALWHISPERER_CACHE_DIR to a folder that can",
        )
    on = "on: nothing is downloaded" if settings.offline else "off: missing weights are downloaded"
    yield Finding("ok", "offline switch", f"{on} (SPATIALWHISPERER_OFFLINE)")


def _extras() -> Iterator[Finding]:
    for extra, what in _EXTRAS.items():
        needed = _requirements(extra)
        if needed and all(_installed(one)[0] for one in needed):
            yield Finding("ok", f"extra {extra}", what)
        else:
            yield Finding("absent", f"extra {extra}", f"{what}: pip install '{_OWN}[{extra}]'")


def _model() -> Iterator[Finding]:
    def look() -> str:
        from spatialwhisperer.models.default import default_model

        with settings.override(verbose=False):
            model = default_model()
        name = "it" if model.config.card is None else model.config.card.name
        return f"{name} opens, with {len(model.labels)} labels"

    yield _tried("embedded model", look)


def _tried(name: str, look: Callable[[], str]) -> Finding:
    """What a look finds; an error of any kind is a finding too."""
    try:
        return Finding("ok", name, look())
    except Exception as error:  # noqa: BLE001 - whatever is broken is what was asked for
        return Finding("BROKEN", name, one_line(error))
