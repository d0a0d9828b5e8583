"""A loopback stand-in for OpenAI and Anthropic: right shapes, made-up words, a ledger of what it "billed".

    python examples/fake_provider.py --port 8099

Serves POST /v1/chat/completions, /v1/responses and /v1/embeddings (OpenAI) and POST /v1/messages (Anthropic),
plain and streamed, with prompt caching. GET /ledger lists every call with its tokens: what an observability
tool should arrive at. Standard library only.
"""

import argparse
import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CACHEABLE_TOKENS = 1024  # of the prompt's beginning; shorter prompts are not cached, as at the real providers
ANSWER = "The parcel left our warehouse this morning and should reach you on Thursday. "
RESPONDED = {
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4o": "gpt-4o-2024-08-06",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
}


class Provider:
    """Counts tokens, remembers how the prompts it has seen began, and keeps the ledger."""

    def __init__(self) -> None:
        self.ledger: list[dict[str, Any]] = []
        self._seen: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def book(self, api: str, request: dict[str, Any], *, prompt: str, answer: str) -> dict[str, Any]:
        """One served call: its response id, models and disjoint token counts."""
        prompt_tokens, prefix = tokens(prompt), (api, prompt[: 4 * CACHEABLE_TOKENS])
        cacheable = prompt_tokens >= CACHEABLE_TOKENS
        with self._lock:
            cached = CACHEABLE_TOKENS if cacheable and prefix in self._seen else 0
            wrote = CACHEABLE_TOKENS if cacheable and not cached and api == "messages" else 0
            self._seen.add(prefix)
            call = {
                "api": api,
                "response_id": response_id(api),
                "model": RESPONDED.get(request["model"], request["model"]),
                "input": prompt_tokens - cached - wrote,
                "cache_read": cached,
                "cache_write": wrote,
                "output": tokens(answer) if answer else 0,
                "user": request.get("user") or (request.get("metadata") or {}).get("user_id"),
            }
            self.ledger.append(call)
        return call


def tokens(text: str) -> int:
    """About four characters each, at least one."""
    return max(1, len(text) // 4)


def response_id(api: str) -> str:
    prefix = {"chat": "chatcmpl-", "responses": "resp_", "messages": "msg_", "embeddings": "embd-"}[api]
    return prefix + uuid.uuid4().hex[:24]


def prompt_text(request: dict[str, Any]) -> str:
    """All words of a request: system prompt, messages, inputs."""
    parts = [request.get("system"), request.get("instructions"), request.get("input"), request.get("messages")]
    return " ".join(_words(part) for part in parts if part)


def _words(node: Any) -> str:
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return " ".join(_words(child) for child in node)
    if isinstance(node, dict):
        return _words(node.get("content") or node.get("text") or "")
    return ""


# -- answers in the providers' shapes ----------------------------------------------------------


def chat_usage(call: dict[str, Any]) -> dict[str, Any]:
    prompt = call["input"] + call["cache_read"]  # OpenAI: cached tokens lie inside the prompt tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": call["output"],
        "total_tokens": prompt + call["output"],
        "prompt_tokens_details": {"cached_tokens": call["cache_read"]},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def chat_answer(call: dict[str, Any], answer: str) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
    return {
        "id": call["response_id"], "object": "chat.completion", "created": 1_700_000_000, "model": call["model"],
        "choices": [choice], "usage": chat_usage(call),
    }  # fmt: skip


def chat_events(call: dict[str, Any], answer: str, with_usage: bool) -> list[str]:
    frame = {
        "id": call["response_id"], "object": "chat.completion.chunk", "created": 1_700_000_000, "model": call["model"],
    }  # fmt: skip
    pieces = [answer[start : start + 40] for start in range(0, len(answer), 40)]
    chunks = [
        frame | {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces
    ]
    chunks.append(frame | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if with_usage:
        chunks.append(frame | {"choices": [], "usage": chat_usage(call)})
    return [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]


def responses_answer(call: dict[str, Any], answer: str) -> dict[str, Any]:
    prompt = call["input"] + call["cache_read"]
    content = [{"type": "output_text", "text": answer, "annotations": []}]
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
    return {
        "id": call["response_id"], "object": "response", "created_at": 1_700_000_000, "status": "completed",
        "model": call["model"], "output": [message], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": {
            "input_tokens": prompt, "input_tokens_details": {"cached_tokens": call["cache_read"]},
            "output_tokens": call["output"], "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + call["output"],
        },
    }  # fmt: skip


def embeddings_answer(call: dict[str, Any], count: int) -> dict[str, Any]:
    vectors = [{"object": "embedding", "index": index, "embedding": [0.1, 0.2, 0.3]} for index in range(count)]
    usage = {"prompt_tokens": call["input"], "total_tokens": call["input"]}
    return {"object": "list", "model": call["model"], "data": vectors, "usage": usage}


def messages_usage(call: dict[str, Any]) -> dict[str, Any]:
    return {  # Anthropic: three disjoint input counts
        "input_tokens": call["input"],
        "cache_read_input_tokens": call["cache_read"],
        "cache_creation_input_tokens": call["cache_write"],
        "cache_creation": {"ephemeral_5m_input_tokens": call["cache_write"], "ephemeral_1h_input_tokens": 0},
        "output_tokens": call["output"],
        "service_tier": "standard",
    }


def messages_answer(call: dict[str, Any], answer: str) -> dict[str, Any]:
    return {
        "id": call["response_id"], "type": "message", "role": "assistant", "model": call["model"],
        "content": [{"type": "text", "text": answer}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": messages_usage(call),
    }  # fmt: skip


def messages_events(call: dict[str, Any], answer: str) -> list[str]:
    start = messages_answer(call, "") | {"content": [], "stop_reason": None}
    start["usage"] = messages_usage(call) | {"output_tokens": 1}
    events = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": answer}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": call["output"]},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]


# -- server ------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        if self.path == "/ledger":
            self._json(self.server.provider.ledger)
        else:
            self._json({"error": {"message": "not found"}}, status=404)

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        prompt, book = prompt_text(request), self.server.provider.book
        if "fail" in prompt:  # for trying out errors: any prompt with the word "fail"
            self._json({"error": {"type": "rate_limit_error", "message": "Slow down."}}, status=429)
        elif self.path.endswith("/chat/completions"):
            call = book("chat", request, prompt=prompt, answer=ANSWER)
            with_usage = bool((request.get("stream_options") or {}).get("include_usage"))
            events = chat_events(call, ANSWER, with_usage) if request.get("stream") else None
            self._answer(events, chat_answer(call, ANSWER))
        elif self.path.endswith("/responses"):
            self._json(responses_answer(book("responses", request, prompt=prompt, answer=ANSWER), ANSWER))
        elif self.path.endswith("/embeddings"):
            texts = request["input"] if isinstance(request["input"], list) else [request["input"]]
            self._json(embeddings_answer(book("embeddings", request, prompt=prompt, answer=""), len(texts)))
        elif self.path.endswith("/messages"):
            call = book("messages", request, prompt=prompt, answer=ANSWER)
            self._answer(
                messages_events(call, ANSWER) if request.get("stream") else None, messages_answer(call, ANSWER)
            )
        else:
            self._json({"error": {"message": f"no such path: {self.path}"}}, status=404)

    def _answer(self, events: list[str] | None, document: dict[str, Any]) -> None:
        if events is None:
            self._json(document)
            return
        self._send(200, "text/event-stream", "".join(events).encode())

    def _json(self, document: Any, status: int = 200) -> None:
        self._send(status, "application/json", json.dumps(document).encode())

    def _send(self, status: int, content_type: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the ledger is the log."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.provider = Provider()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=8099)
    server = Server(parser.parse_args().port)
    print(f"fake provider on http://127.0.0.1:{server.server_port}, ledger at /ledger", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
