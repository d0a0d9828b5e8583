"""Providers, error classes and identifiers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core import ids
from costapp.core.errors import CLASSES, error_class
from costapp.core.merge import model_key
from costapp.core.providers import FRAMEWORKS, provider_of


@pytest.mark.parametrize(("raw", "model", "name", "guessed"), [
    ("OpenAI", "gpt-4o", "openai", False),
    ("openai.chat", "gpt-4o", "openai", False),
    ("anthropic.messages", "claude-sonnet-4-5", "anthropic", False),
    ("aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws", False),
    ("azure.ai.openai", "gpt-4o", "azure", False),
    ("gcp.vertex_ai", "gemini-2.5-pro", "google", False),
    ("gemini", "gemini-2.5-flash", "google", False),
    ("strands-agents", "gpt-4o", "openai", True),
    ("langchain", "claude-haiku-4-5", "anthropic", True),
    ("", "openai/gpt-4o-mini", "openai", True),
    ("", "anthropic.claude-3-haiku-20240307-v1:0", "aws", True),
    ("", "gpt-5-mini", "openai", True),
    ("acme-ai", "acme-7b", "acme-ai", False),
    ("", "acme-7b", "", False),
])  # fmt: skip
def test_the_provider_is_who_bills(raw: str, model: str, name: str, guessed: bool) -> None:
    assert provider_of(raw, model) == (name, guessed)


def test_no_framework_is_ever_a_provider() -> None:
    assert {provider_of(framework, "").name for framework in FRAMEWORKS} == {""}


@pytest.mark.parametrize(("raw", "found"), [
    ("openai.RateLimitError", "rate_limit"), ("rate_limit_error", "rate_limit"), ("429", "rate_limit"),
    ("ThrottlingException", "rate_limit"), ("RESOURCE_EXHAUSTED", "rate_limit"), ("529", "overloaded"),
    ("OverloadedError", "overloaded"), ("InternalServerError", "server_error"), ("500", "server_error"),
    ("openai.APITimeoutError", "timeout"), ("APIConnectionError", "connection"), ("CancelledError", "cancelled"),
    ("AuthenticationError", "authentication"), ("BadRequestError", "invalid_request"),
    ("ContextWindowExceededError", "context_length"), ("insufficient_quota", "quota"), ("NotFoundError", "not_found"),
    ("Kaboom", "error"), ("", ""),
])  # fmt: skip
def test_one_word_for_one_kind_of_failure(raw: str, found: str) -> None:
    assert error_class(raw) == found


def test_a_class_is_its_own_class() -> None:
    assert [error_class(name) for name, _ in CLASSES] == [name for name, _ in CLASSES]


@pytest.mark.parametrize(("one", "other"), [
    ("gpt-4o", "gpt-4o-2024-08-06"), ("openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18"),
    ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
    ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929-v1:0"),
])  # fmt: skip
def test_two_spellings_of_one_model_have_one_key(one: str, other: str) -> None:
    assert model_key(one) == model_key(other)


def test_different_models_have_different_keys() -> None:
    assert len({model_key(m) for m in ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "claude-3-5-haiku", "o3", "o3-mini")}) == 6


@given(st.text())
def test_a_response_hash_is_a_stable_bigint_and_never_zero(text: str) -> None:
    found = ids.response_hash(text)
    assert found == ids.response_hash(text) != 0
    assert -(1 << 63) <= found < 1 << 63


@given(st.binary(min_size=8, max_size=8))
def test_span_ids_survive_the_way_to_text_and_back(raw: bytes) -> None:
    number = ids.span_id_of(raw)
    assert ids.span_id_text(number) == raw.hex()
    assert ids.span_id_from_text(raw.hex()) == number


def test_no_parent_is_zero() -> None:
    assert ids.span_id_of(b"") == 0
    assert ids.trace_id_text(bytes(16)) == "0" * 32
