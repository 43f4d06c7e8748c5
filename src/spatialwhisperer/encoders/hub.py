"""Whether the Hugging Face hub answers: its client repeats failed requests for most of a minute before it says no."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

WAIT_SECONDS = 5.0
"""How long a connection may take."""


def hub_answers() -> bool:
    """Whether a connection to the hub, or to the proxy in front of it, can be made now."""
    from huggingface_hub import constants

    place = urlsplit(constants.ENDPOINT)
    if place.hostname is None:
        return True  # its client knows what to say of an odd address
    proxy = None if proxy_bypass(place.hostname) else getproxies().get(place.scheme)
    if proxy is not None:
        place = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    try:
        port = place.port or (443 if place.scheme == "https" else 80)
        with socket.create_connection((place.hostname or "", port), timeout=WAIT_SECONDS):
            return True
    except (OSError, ValueError):
        return False
