"""Prompt and completion text: never kept by default, only its size and a keyed hash.

The hash is HMAC-SHA-256 with the project's secret (a plain hash of short text can be guessed), cut to 8
bytes. Each message is hashed alone, with white space collapsed, and the prompt is the hash of those hashes;
so one conversation has one hash whether a client sends one document or one attribute per message.
"""

import hmac
import re
from typing import NamedTuple

from collectors.dialects.scalars import DOCUMENT_LIMIT, document_of
from collectors.dialects.types import Scalar

#: Attribute -> rank among those that hold the whole prompt (or answer); the lowest is believed.
PROMPTS = {
    "gen_ai.input.messages": 0, "ai.prompt.messages": 1, "langfuse.observation.input": 2, "gen_ai.prompt": 3,
    "ai.prompt": 4, "request_data": 5, "mlflow.spanInputs": 6, "input.value": 7, "llm.prompts": 8,
    "gcp.vertex.agent.llm_request": 9, "traceloop.entity.input": 9,
}  # fmt: skip
ANSWERS = {
    "gen_ai.output.messages": 0, "ai.response.text": 1, "langfuse.observation.output": 2, "gen_ai.completion": 3,
    "response_data": 5, "mlflow.spanOutputs": 6, "output.value": 7, "gcp.vertex.agent.llm_response": 9,
    "traceloop.entity.output": 9,
}  # fmt: skip
#: One attribute per message.
PROMPT_PART = re.compile(r"(?:gen_ai\.prompt|llm\.input_messages|llm\.prompts)\.(\d{1,4})\.(?:message\.)?content$")
ANSWER_PART = re.compile(r"(?:gen_ai\.completion|llm\.output_messages)\.(\d{1,4})\.(?:message\.)?content$")
#: Other attributes with text of users or models: counted as dropped, not hashed.
OTHERS = frozenset({
    "gen_ai.system_instructions", "gen_ai.tool.definitions", "gen_ai.tool.call.arguments", "gen_ai.tool.call.result",
    "pydantic_ai.all_messages", "all_messages_events", "final_result", "ai.response.toolCalls", "ai.toolCall.args",
    "ai.toolCall.result", "ai.values", "ai.value", "gen_ai.task.input", "gen_ai.task.output", "user_prompt", "response",
})  # fmt: skip

_SPACE = re.compile(r"\s+")
#: Keys below which a message document holds its text.
_TEXT_KEYS = ("messages", "contents", "content", "parts", "text", "prompt", "input", "system", "data", "kwargs")


class Digest(NamedTuple):
    """A keyed hash and a size in characters."""

    hash: bytes  # 8 bytes
    chars: int


def digest(secret: bytes, value: Scalar) -> Digest | None:
    """The digest of a prompt or answer; None if it holds no text."""
    if isinstance(value, str) and len(value) > DOCUMENT_LIMIT:
        texts = [value]
    else:
        document = document_of(value)
        texts = []
        _collect(document if document is not None else value, texts, 0)
    return combined(secret, [of_text(secret, text) for text in texts]) if texts else None


def of_text(secret: bytes, text: str) -> Digest:
    """The digest of one message."""
    normal = _SPACE.sub(" ", text).strip()
    return Digest(hmac.digest(secret, normal.encode("utf-8", "replace"), "sha256")[:8], len(text))


def combined(secret: bytes, parts: list[Digest]) -> Digest:
    """The digest of a conversation, from its messages in order."""
    joined = b"".join(part.hash for part in parts)
    return Digest(hmac.digest(secret, joined, "sha256")[:8], sum(part.chars for part in parts))


def _collect(value: Scalar, texts: list[str], depth: int) -> None:
    """Message texts in reading order. Depth and number are capped: the document is untrusted."""
    if depth > 12 or len(texts) > 2000:
        return
    if isinstance(value, str):
        if value:
            texts.append(value)
    elif isinstance(value, list):
        for item in value:
            _collect(item, texts, depth + 1)
    elif isinstance(value, dict):
        for key in _TEXT_KEYS:
            if key in value:
                _collect(value[key], texts, depth + 1)
