"""Where the node is, and the key for it: the same rules as the command line's."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union
from urllib.parse import urlsplit

from .errors import DeniedError, InvalidError, UnavailableError

URLs = Union[str, Sequence[str]]
"""One address, several in a list, or several in a text with commas between them."""

API_FILE = "api.json"
"""What a node leaves in its data dir for the person at its machine."""


@dataclass(frozen=True)
class Found:
    """Nodes to talk to, the API key for them, and where they were found."""

    urls: tuple[str, ...]
    api_key: Optional[str]
    source: Optional[str] = None


def parse_urls(text: URLs) -> tuple[str, ...]:
    """Addresses as people write them: ``HOST:PORT`` is ``http://HOST:PORT``."""
    several = text.split(",") if isinstance(text, str) else text
    found = tuple(dict.fromkeys(_parse_url(one.strip()) for one in several if one.strip()))
    if not found:
        raise InvalidError("no address of a node is given: write one as http://HOST:PORT", field="url")
    return found


def _parse_url(text: str) -> str:
    raw = text if "://" in text else "http://" + text
    wrong = InvalidError(f"{text!r} is not the address of a node: write it as http://HOST:PORT or HOST:PORT", field="url")
    try:
        parts = urlsplit(raw)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or set(parts.netloc) & set("@ \t") or port == 0:
        raise wrong
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def discover(
    url: Optional[URLs] = None,
    api_key: Optional[str] = None,
    data_dir: Optional[Union[str, Path]] = None,
    env: Optional[Mapping[str, str]] = None,
) -> Found:
    """Find a node: the one that ``url`` or ``LABMESH_ADDR`` names, else that of this machine.

    The key is ``api_key`` or ``LABMESH_API_KEY``, else that in the ``api.json`` of the
    data dir (``data_dir``, ``LABMESH_DATA_DIR``, or the usual one), which is sent to no
    other address than the one it was left for.
    """
    env = os.environ if env is None else env
    url = url or env.get("LABMESH_ADDR") or None
    api_key = api_key or env.get("LABMESH_API_KEY") or None
    directory = Path(data_dir or env.get("LABMESH_DATA_DIR") or default_data_dir(env))
    path = directory / API_FILE
    if url is not None:
        urls = parse_urls(url)
        return Found(urls, api_key or _local_key(urls, path))
    try:
        own_url, own_key = _read(path)
    except FileNotFoundError:
        raise UnavailableError(
            f"no labmesh node found (there is no {path}): start one with `labmesh up`, "
            "or name one: Client(\"http://HOST:PORT\"), or LABMESH_ADDR"
        ) from None
    except PermissionError:
        raise DeniedError(f"{path} may be read only by whoever runs the node: ask them for a key, and give address and key") from None
    return Found((own_url,), api_key or own_key, str(path))


def default_data_dir(env: Mapping[str, str]) -> Path:
    """Where a node keeps its data when nobody says otherwise."""
    data_home = env.get("XDG_DATA_HOME", "")
    if os.path.isabs(data_home):
        return Path(data_home) / "labmesh"
    home = env.get("HOME") or os.path.expanduser("~")
    return Path(home) / ".local" / "share" / "labmesh"


def _local_key(urls: tuple[str, ...], path: Path) -> Optional[str]:
    """This machine's key, if all the addresses are those of this machine's node."""
    try:
        own_url, own_key = _read(path)
    except (OSError, InvalidError):
        return None  # it was a courtesy
    return own_key if set(urls) == {own_url} else None


def _read(path: Path) -> tuple[str, Optional[str]]:
    try:
        said = json.loads(path.read_bytes())
        url, key = said["url"], said.get("api_key")
        if not isinstance(url, str) or not (key is None or isinstance(key, str)):
            raise TypeError
        return _parse_url(url), key or None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidError(f"{path} is damaged: restart the node with `labmesh up`, which writes it anew") from None
