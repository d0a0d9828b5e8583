"""How stored secrets are sealed: AES-256-GCM, bound to their row, the key derived from a text in COSTAPP_FIELD_KEYS.

No Django, because the collectors open secrets of scrape targets too.
"""

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
KEY_LENGTH = 32  # characters at least of a key's text


class CannotSeal(RuntimeError):
    """No usable key; the message is a sentence for whoever runs Costapp."""


class CannotOpen(RuntimeError):
    """Sealed with a key that is gone, or changed since."""


def key_id(text: str) -> str:
    """Names a key without telling it."""
    return sha256(b"costapp field key " + text.encode()).hexdigest()[:16]


def seal(keys: Sequence[str], values: Mapping[str, str], bound_to: str) -> tuple[str, bytes]:
    """The id of the key (the first one), and what to store."""
    if not keys:
        raise CannotSeal("Set COSTAPP_FIELD_KEYS: secrets are only stored encrypted.")
    nonce = os.urandom(NONCE_BYTES)
    plain = json.dumps(dict(values), sort_keys=True).encode()
    return key_id(keys[0]), nonce + _cipher(keys[0]).encrypt(nonce, plain, bound_to.encode())


def unseal(keys: Sequence[str], sealed_by: str, sealed: bytes, bound_to: str) -> dict[str, str]:
    key = next((key for key in keys if key_id(key) == sealed_by), None)
    if key is None:
        raise CannotOpen("The key that sealed this secret is not among COSTAPP_FIELD_KEYS. Enter the secret again.")
    try:
        plain = _cipher(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode())
    except InvalidTag:
        raise CannotOpen("The stored secret was changed and cannot be opened. Enter it again.") from None
    found: dict[str, str] = json.loads(plain)
    return found


@lru_cache(maxsize=16)
def _cipher(key: str) -> AESGCM:
    if len(key) < KEY_LENGTH:
        raise CannotSeal(f"A key in COSTAPP_FIELD_KEYS is shorter than {KEY_LENGTH} characters.")
    return AESGCM(HKDF(SHA256(), 32, salt=None, info=b"costapp sealed fields").derive(key.encode()))
