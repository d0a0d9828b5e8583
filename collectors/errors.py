"""Why a request was not accepted.

    Refusal
    ├── bad data (400, INVALID_ARGUMENT) and other faults of the sender: never retried by OTLP clients
    └── ours, or "not now" (429, 503, UNAVAILABLE with retry_seconds): clients retry

Every refusal has a reason (a counter), one HTTP status and one gRPC code. Messages help a developer
and hold nothing of the payload.
"""

from dataclasses import dataclass
from typing import NamedTuple

import orjson

from collectors import wire


class Kind(NamedTuple):
    http_status: int
    grpc_code: int  # google.rpc.Code
    retry_seconds: int  # 0 = do not retry


BAD_DATA = Kind(400, 3, 0)  # INVALID_ARGUMENT
NO_KEY = Kind(401, 16, 0)  # UNAUTHENTICATED
KEY_REFUSED = Kind(403, 7, 0)  # PERMISSION_DENIED
NOT_FOUND = Kind(404, 5, 0)
WRONG_METHOD = Kind(405, 12, 0)  # UNIMPLEMENTED
BODY_TIMEOUT = Kind(408, 4, 0)  # DEADLINE_EXCEEDED
TOO_LARGE = Kind(413, 8, 0)  # RESOURCE_EXHAUSTED without RetryInfo: do not retry
WRONG_TYPE = Kind(415, 3, 0)
TOO_FAST = Kind(429, 14, 1)
UNAVAILABLE = Kind(503, 14, 1)


@dataclass(slots=True)
class Refusal(Exception):
    kind: Kind
    reason: str  # counted under this name
    message: str
    retry_seconds: int = 0  # 0 = the kind's own

    @property
    def retry_after(self) -> int:
        return self.retry_seconds or self.kind.retry_seconds

    def body(self, *, json: bool) -> bytes:
        """google.rpc.Status in the request's encoding."""
        if json:
            status: dict[str, object] = {"code": self.kind.grpc_code, "message": self.message}
            if self.retry_after:
                delay = {"@type": _RETRY_INFO, "retryDelay": f"{self.retry_after}s"}
                status["details"] = [delay]
            return orjson.dumps(status)
        return self.status_bytes()

    def status_bytes(self) -> bytes:
        status = wire.Status(code=self.kind.grpc_code, message=self.message)
        if self.retry_after:
            info = wire.RetryInfo(delay={"seconds": self.retry_after})
            status.details.add(type_url=_RETRY_INFO, value=info.SerializeToString())
        return bytes(status.SerializeToString())


_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def bad_data(reason: str, message: str) -> Refusal:
    return Refusal(BAD_DATA, reason, message)


def too_large(limit: int) -> Refusal:
    return Refusal(
        TOO_LARGE, "too_large",
        f"The request is larger than {limit} bytes (also counted after decompression). Send smaller batches: "
        "lower OTEL_BSP_MAX_EXPORT_BATCH_SIZE, or let the operator raise COSTAPP_MAX_BODY_BYTES.",
    )  # fmt: skip


def unavailable(reason: str, message: str, *, retry_seconds: int = 1) -> Refusal:
    return Refusal(UNAVAILABLE, reason, message, retry_seconds)
