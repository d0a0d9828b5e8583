"""Deliver recorded bodies to a running collector, over OTLP/HTTP or OTLP/gRPC."""

import http.client
import json
import time
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from costapp.services.replay.messages import REQUESTS, from_json
from costapp.services.replay.recording import Body

_BUSY = (429, 503)
_GRPC_PATH = "/opentelemetry.proto.collector.{package}.v1.{service}/Export"
_GRPC_SERVICE = {
    "traces": ("trace", "TraceService"),
    "logs": ("logs", "LogsService"),
    "metrics": ("metrics", "MetricsService"),
}
TIMEOUT_S = 30.0


class SendError(Exception):
    """Nothing can be delivered; the text says why and what to do."""


class Outcome(NamedTuple):
    """What became of one body."""

    accepted: bool
    says: str  # the collector's words, or why nothing was sent; "" = accepted without a remark


class Sender(Protocol):
    """Delivers one body at a time. Raises SendError when no further body could succeed."""

    def send(self, body: Body, data: bytes) -> Outcome: ...

    def close(self) -> None: ...


class HttpSender:
    """OTLP/HTTP over one kept connection. Waits as told while the collector is busy."""

    def __init__(self, url: str, key: str, *, patience_s: float) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SendError(f"{url!r} is not an http address. Use one such as http://localhost:4318.")
        self._url, self._key, self._patience_s = f"{parts.scheme}://{parts.netloc}", key, patience_s
        self._base_path = parts.path.rstrip("/")
        secure = parts.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = connect(parts.hostname, parts.port or (443 if secure else 4318), timeout=TIMEOUT_S)

    def close(self) -> None:
        self._connection.close()

    def send(self, body: Body, data: bytes) -> Outcome:
        if not body.signal:
            return Outcome(False, "not OTLP, not sent")
        deadline = time.monotonic() + self._patience_s
        while True:
            status, headers, answer = self._post(body.endpoint, body, data)
            if status == 404 and body.endpoint != f"/v1/{body.signal}":
                status, headers, answer = self._post(f"/v1/{body.signal}", body, data)
            if status not in _BUSY:
                return self._outcome(status, body, answer)
            if time.monotonic() >= deadline:
                raise SendError(f"The collector at {self._url} stays busy ({status}): {_words(body, answer)}")
            time.sleep(min(_seconds(headers.get("Retry-After")), max(0.0, deadline - time.monotonic()) + 0.01))

    def _post(self, path: str, body: Body, data: bytes) -> tuple[int, Any, bytes]:
        headers = {"content-type": body.content_type, "authorization": f"Bearer {self._key}"}
        if body.content_encoding != "identity":
            headers["content-encoding"] = body.content_encoding
        try:
            return self._exchange(path, data, headers)
        except (http.client.HTTPException, ConnectionError):  # a kept connection the server has closed meanwhile
            self._connection.close()
        except OSError as error:
            raise self._unreachable(error) from error
        try:
            return self._exchange(path, data, headers)
        except (http.client.HTTPException, OSError) as error:
            raise self._unreachable(error) from error

    def _exchange(self, path: str, data: bytes, headers: dict[str, str]) -> tuple[int, Any, bytes]:
        self._connection.request("POST", self._base_path + path, body=data, headers=headers)
        response = self._connection.getresponse()
        return response.status, response.headers, response.read()

    def _unreachable(self, error: Exception) -> SendError:
        return SendError(
            f"No collector answers at {self._url} ({error}). Start one with `make run` or name another with --http."
        )

    def _outcome(self, status: int, body: Body, answer: bytes) -> Outcome:
        if status in (401, 403):
            raise SendError(
                f"The collector at {self._url} refused the key ({status}): {_words(body, answer) or 'no reason given'}"
            )
        if status == 200:
            return Outcome(True, _partial(body, answer))
        return Outcome(False, f"{status} {_words(body, answer)}".strip())


class GrpcSender:
    """OTLP/gRPC. Bodies recorded as JSON are translated; compressed ones are sent gzip-compressed."""

    def __init__(self, endpoint: str, key: str, *, patience_s: float) -> None:
        self._endpoint, self._patience_s = endpoint, patience_s
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._channel = grpc.insecure_channel(endpoint)

    def close(self) -> None:
        self._channel.close()

    def send(self, body: Body, data: bytes) -> Outcome:
        if not body.signal:
            return Outcome(False, "not OTLP, not sent")
        plain = body._replace(data=data).decoded()
        if body.is_json:
            try:
                plain = from_json(body.signal, json.loads(plain)).SerializeToString()
            except ValueError as error:
                return Outcome(False, f"cannot be translated to protobuf for gRPC: {error}")
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return Outcome(
                    True, _partial(body._replace(content_type="application/x-protobuf"), self._call(body, plain))
                )
            except grpc.RpcError as error:
                self._raise_if_hopeless(error)
                busy = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
                if not busy:
                    return Outcome(False, f"{error.code().name} {error.details()}")
                if time.monotonic() >= deadline:
                    raise SendError(f"The collector at {self._endpoint} stays busy: {error.details()}") from error
                time.sleep(0.5)

    def _call(self, body: Body, plain: bytes) -> bytes:
        package, service = _GRPC_SERVICE[body.signal]
        export: Any = self._channel.unary_unary(_GRPC_PATH.format(package=package, service=service))
        compression = grpc.Compression.Gzip if body.content_encoding != "identity" else grpc.Compression.NoCompression
        answer: bytes = export(plain, metadata=self._metadata, timeout=TIMEOUT_S, compression=compression)
        return answer

    def _raise_if_hopeless(self, error: Any) -> None:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise SendError(f"The collector at {self._endpoint} refused the key: {error.details()}")
        if error.code() == grpc.StatusCode.UNAVAILABLE and "failed to connect" in (error.details() or "").lower():
            raise SendError(f"No collector answers at {self._endpoint} ({error.details()}). Start one with `make run`.")


def _seconds(text: str | None) -> float:
    try:
        return max(0.1, float(text or 1))
    except ValueError:
        return 1.0


def _partial(body: Body, answer: bytes) -> str:
    """The remark of a partial success: how many items were not taken, and why."""
    try:
        if body.is_json:
            partial = (json.loads(answer or b"{}") or {}).get("partialSuccess") or {}
            rejected = next((value for name, value in partial.items() if name.startswith("rejected")), 0)
            message = partial.get("errorMessage", "")
        else:
            partial = _answer_type(body.signal).FromString(answer).partial_success
            rejected = next((value for field, value in partial.ListFields() if field.name.startswith("rejected")), 0)
            message = partial.error_message
    except (ValueError, DecodeError):
        return ""
    return f"{rejected} not stored: {message}" if int(rejected) else str(message)


def _answer_type(signal: str) -> Any:
    module = __import__(REQUESTS[signal].__module__, fromlist=["x"])
    return getattr(module, REQUESTS[signal].__name__.replace("Request", "Response"))


def _words(body: Body, answer: bytes) -> str:
    """The message of a google.rpc.Status in the encoding of the request."""
    if body.is_json:
        try:
            return str(json.loads(answer).get("message", ""))
        except (ValueError, AttributeError):
            return answer[:300].decode("utf-8", "replace")
    return _status_message(answer)


def _status_message(answer: bytes) -> str:
    """Field 2 (message) of a protobuf google.rpc.Status; the whole answer if it is not one."""
    try:
        return str(Status.FromString(answer).message)
    except DecodeError:
        return answer[:300].decode("utf-8", "replace")
