"""JSON to any address, signed: HMAC-SHA256 over timestamp, dot and body. docs/alerts.md says how to verify."""

import hmac
import json
import time
from hashlib import sha256
from typing import Any

from costapp.services.channels import http
from costapp.services.channels.message import Message, Outcome

VERSION = 1


def send(config: dict[str, Any], secret: dict[str, str], message: Message) -> Outcome:
    body = json.dumps(payload(message), ensure_ascii=False).encode()
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Idempotency-Key": message.dedupe_key,
        "X-Costapp-Timestamp": timestamp,
        "X-Costapp-Signature": f"v1={signature(secret['signing_key'], timestamp, body)}",
    }
    return http.deliver(secret["url"], body, headers, who="The receiver")[0]


def signature(key: str, timestamp: str, body: bytes) -> str:
    return hmac.new(key.encode(), timestamp.encode() + b"." + body, sha256).hexdigest()


def payload(message: Message) -> dict[str, Any]:
    return {
        "version": VERSION,
        "id": message.dedupe_key,
        "kind": message.kind,
        "project": message.project,
        "heading": message.heading,
        "items": [
            {**item._asdict(), "facts": [fact._asdict() for fact in item.facts]} for item in message.items
        ],
        "more": message.more,
        "more_url": message.more_url,
    }  # fmt: skip
