"""Signatures of messages, as the worker protocol has them.

A message is signed over its canonical form: the message with ``timestamp``
(whole Unix seconds) and without ``signature``, as ``json.dumps(sort_keys=True)``
writes it. The signature is the HMAC-SHA256 of that in Base64; the key is text and
taken as its bytes, also when it looks like hexadecimal digits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, Optional

WINDOW_SECONDS = 60
"""How far the time of a signed message may be from ours, either way."""


def canonical(message: Mapping[str, Any]) -> str:
    """The text that a signature of the message is over."""
    return json.dumps({k: v for k, v in message.items() if k != "signature"}, sort_keys=True, allow_nan=False)


def signature(message: Mapping[str, Any], key: str) -> str:
    """The signature of a message that has its timestamp."""
    mac = hmac.new(key.encode(), canonical(message).encode(), hashlib.sha256)
    return base64.b64encode(mac.digest()).decode()


def sign(message: Mapping[str, Any], key: str, *, now: Optional[float] = None) -> dict[str, Any]:
    """The message with a timestamp, a nonce and its signature.

    The nonce is what makes two equal messages of one second two messages: the
    same signature is not accepted twice.
    """
    signed = dict(message)
    signed["timestamp"] = int(time.time() if now is None else now)
    signed.setdefault("nonce", secrets.token_hex(8))
    signed["signature"] = signature(signed, key)
    return signed


def verify(message: Mapping[str, Any], key: str, *, now: Optional[float] = None) -> bool:
    """Whether the message is signed with this key, within :data:`WINDOW_SECONDS` of now."""
    said, at = message.get("signature"), message.get("timestamp")
    if not isinstance(said, str) or not isinstance(at, int) or isinstance(at, bool):
        return False
    if abs((time.time() if now is None else now) - at) > WINDOW_SECONDS:
        return False
    try:
        return hmac.compare_digest(said.encode(), signature(message, key).encode())
    except (ValueError, TypeError):  # it holds what JSON cannot, e.g. NaN
        return False
