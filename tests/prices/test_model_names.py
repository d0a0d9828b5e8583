"""Names on the wire find the catalogue's price, at the seller that bills for them."""

import re

import pytest

from costapp.core.calls import resolve
from costapp.core.model_names import Names, compile_clause
from costapp.core.pricing import RateBook
from costapp.core.providers import HOSTS, is_private_host, seller_at
from costapp.core.values import ChargeFlag, CostStatus, Role, Span, SpanFacts
from tests.prices.factories import a_call

BEDROCK_SONNET = "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest.mark.parametrize(
    ("provider", "model", "seller", "found"),
    [
        ("openai", "gpt-4o", "openai", "gpt-4o"),
        ("openai", "gpt-4o-2024-08-06", "openai", "gpt-4o"),
        ("OpenAI", "GPT-4O", "openai", "gpt-4o"),
        ("openai.chat", "gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("openai", "openai/gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc", "openai", "ft:gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5-20250929", "anthropic", "claude-sonnet-4-5"),
        ("aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws", BEDROCK_SONNET),
        ("aws.bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws", BEDROCK_SONNET),
        ("aws.bedrock", "apac.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws", BEDROCK_SONNET),
        ("aws.bedrock", "claude-sonnet-4-5-20250929-v1:0", "aws", BEDROCK_SONNET),
        ("aws.bedrock", "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
         "aws", BEDROCK_SONNET),
        ("aws.bedrock", "apac.amazon.nova-2-lite-v1:0", "aws", "regional.amazon.nova-2-lite-v1:0"),
        ("", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws", BEDROCK_SONNET),
        ("aws.bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws",
         "global.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("gcp.vertex_ai", "publishers/anthropic/models/claude-sonnet-4-5@20250929", "google", "claude-sonnet-4-5"),
        ("gcp.vertex_ai", "publishers/google/models/gemini-2.5-pro", "google", "gemini-2.5-pro"),
        ("gcp.gemini", "models/gemini-2.5-flash", "google", "gemini-2.5-flash"),
        ("azure.ai.openai", "gpt-4o-2024-08-06", "azure", "gpt-4o"),
        ("azure.ai.openai", "gpt-35-turbo", "azure", "gpt-3.5-turbo"),
        ("azure.ai.openai", "o3-mini", "azure", "o3-mini"),
        ("openrouter", "anthropic/claude-sonnet-4.5", "openrouter", "anthropic/claude-sonnet-4.5"),
        ("together_ai", "meta-llama/Llama-3.3-70B-Instruct-Turbo", "together",
         "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("x_ai", "grok-4", "x-ai", "grok-4-0709"),
    ],
)  # fmt: skip
def test_a_wire_name_finds_its_catalogue_model(
    catalogue_book: RateBook, provider: str, model: str, seller: str, found: str
) -> None:
    call = a_call(model, provider)
    resolved = catalogue_book.entry(call).resolved
    assert (resolved.provider, resolved.model, resolved.guessed) == (seller, found, False)
    assert catalogue_book.price(call).cost_nano is not None


def test_azure_has_its_own_price_where_it_lists_one(catalogue_book: RateBook) -> None:
    own = catalogue_book.entry(a_call("o3-mini", "azure.ai.openai")).resolved
    resold = catalogue_book.entry(a_call("gpt-4o", "azure.ai.openai")).resolved
    assert (own.owner, resold.owner) == ("azure", "openai")


@pytest.mark.parametrize("provider", ["", "litellm", "langchain", "strands-agents", "unknown"])
def test_without_a_provider_the_models_own_vendor_is_taken_and_flagged(catalogue_book: RateBook, provider: str) -> None:
    priced = catalogue_book.price(a_call("claude-sonnet-4-5", provider))
    stated = catalogue_book.price(a_call("claude-sonnet-4-5", "anthropic"))
    assert priced.flags == ChargeFlag.PROVIDER_GUESSED
    assert stated.flags == 0
    assert priced.cost_nano == stated.cost_nano


def test_a_cut_off_bedrock_id_takes_the_dearer_regional_price_and_says_estimated(catalogue_book: RateBook) -> None:
    cut = catalogue_book.price(a_call("claude-sonnet-4-5-20250929-v1:0", "aws.bedrock"))
    whole = catalogue_book.price(a_call("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws.bedrock"))
    elsewhere = catalogue_book.price(a_call("global.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws.bedrock"))
    assert cut.cost_nano == whole.cost_nano
    assert (cut.cost_nano or 0) > (elsewhere.cost_nano or 0)
    assert (cut.status, whole.status) == (CostStatus.ESTIMATED, CostStatus.PRICED)


def test_a_fine_tuned_model_without_a_price_is_estimated_at_its_base(catalogue_book: RateBook) -> None:
    priced = catalogue_book.price(a_call("ft:gpt-4.1-mini-2025-04-14:acme::abc"))
    base = catalogue_book.price(a_call("gpt-4.1-mini"))
    assert (priced.cost_nano, priced.status) == (base.cost_nano, CostStatus.ESTIMATED)


def test_a_deployment_name_falls_back_to_the_model_that_was_asked_for(catalogue_book: RateBook) -> None:
    call = a_call("prod-chat", "azure", model_requested="gpt-4o")
    assert catalogue_book.entry(call).resolved.model == "gpt-4o"
    assert catalogue_book.price(call).status == CostStatus.ESTIMATED


@pytest.mark.parametrize(
    ("provider", "host", "model"),
    [
        ("openai", "localhost:8000", "meta-llama/Llama-3.1-8B-Instruct"),
        ("openai", "10.0.3.7:8000", "gpt-oss-120b"),
        ("openai", "vllm", "deepseek-chat"),
        ("openai", "http://llm.prod.svc.cluster.local/v1", "deepseek-chat"),
        ("vllm", "", "deepseek-chat"),
        ("ollama", "", "llama3.2"),
    ],
)
def test_a_self_hosted_server_never_gets_a_public_list_price(
    catalogue_book: RateBook, provider: str, host: str, model: str
) -> None:
    call = a_call(model, provider, host=host)
    assert catalogue_book.price(call).cost_nano is None
    assert "no public list price" in catalogue_book.entry(call).resolved.why


def test_a_closed_model_on_a_private_host_is_a_gateway_and_flagged(catalogue_book: RateBook) -> None:
    priced = catalogue_book.price(a_call("gpt-4o", host="127.0.0.1:4000"))
    assert priced.cost_nano == catalogue_book.price(a_call("gpt-4o")).cost_nano
    assert priced.flags == ChargeFlag.PROVIDER_GUESSED


@pytest.mark.parametrize(
    ("host", "seller"),
    [
        ("acme.openai.azure.com", "azure"),
        ("api.groq.com:443", "groq"),
        ("openrouter.ai", "openrouter"),
        ("api.openai.com", "openai"),
        ("llm.acme.com", "openai"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "aws"),
        ("vpce-0a1b.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "aws"),
        ("eu-west1-aiplatform.googleapis.com", "google"),
    ],
)
def test_the_host_tells_who_sells_an_openai_compatible_call(catalogue_book: RateBook, host: str, seller: str) -> None:
    assert catalogue_book.names.seller("openai", host, "gpt-4o").provider == seller


@pytest.mark.parametrize(
    ("host", "private"),
    [("127.0.0.1:80", True), ("[::1]:80", True), ("192.168.1.4", True), ("ollama:11434", True), ("a.internal", True),
     ("api.openai.com", False), ("8.8.8.8", False), ("", False)],
)  # fmt: skip
def test_private_hosts_are_told_from_public_ones(host: str, private: bool) -> None:
    assert is_private_host(host) is private


def test_an_unknown_model_is_unpriced_never_zero(catalogue_book: RateBook) -> None:
    priced = catalogue_book.price(a_call("acme-1"))
    assert (priced.status, priced.cost_nano, priced.rate_id) == (CostStatus.UNPRICED, None, None)


def test_match_clauses_combine() -> None:
    test = compile_clause({"and": [{"starts_with": "GPT-"}, {"or": [{"ends_with": "x"}, {"regex": "^gpt-\\d$"}]}]})
    assert test is not None
    assert [test(text) for text in ("gpt-4", "gpt-x", "gpt-4o", "x")] == [True, True, False, False]
    with pytest.raises(ValueError, match="Unknown match clause"):
        compile_clause({"sounds_like": "gpt"})


def test_without_a_catalogue_nothing_is_found_and_nothing_fails() -> None:
    assert Names().resolve(Names().seller("openai", "", "gpt-4o"), "gpt-4o").model == ""


def test_every_known_host_belongs_to_the_catalogues_provider_of_that_host(catalogue_book: RateBook) -> None:
    from genai_prices.data_snapshot import get_snapshot

    unknown_there = set()
    for host, provider in HOSTS.items():
        known = next(known for known in get_snapshot().providers if known.id == provider)
        paths = ("", "serving-endpoints/x", "client/v4/accounts/1/ai/run")
        urls = [f"https://{prefix}{host}/{path}" for prefix in ("", "acme.", "generativelanguage.") for path in paths]
        if not any(re.match(known.api_pattern, url) for url in urls):
            unknown_there.add(host)
        assert seller_at(f"{host}:443") == provider
    assert unknown_there == {"api.together.ai"}


@pytest.mark.parametrize(
    "raw", ["", "openai", "anthropic", "aws.bedrock", "azure.ai.openai", "vllm", "litellm", "acme"]
)
@pytest.mark.parametrize("host", ["", "localhost:8000", "acme.openai.azure.com", "openrouter.ai", "llm.acme.com"])
@pytest.mark.parametrize("model", ["gpt-4o", "claude-sonnet-4-5", "llama-3", "openai/gpt-4o-mini", "gpt-oss-120b"])
def test_a_stored_charge_is_priced_without_its_host_as_it_was_with_it(
    catalogue_book: RateBook, raw: str, host: str, model: str
) -> None:
    facts = SpanFacts(role=Role.CALL, provider_raw=raw, host=host, model_responded=model, input=10, output=5)
    (resolved,) = resolve([Span(b"t" * 16, 1, 0, 1_790_000_000_000_000_000, facts)])
    first = catalogue_book.price(resolved)
    stored = resolved._replace(host="", provider_raw="", flags=resolved.flags)
    again = catalogue_book.price(stored)
    assert again._replace(flags=0) == first._replace(flags=0)
    assert again.flags | resolved.flags == first.flags | resolved.flags


def test_a_twin_that_knows_the_host_decides_who_bills(catalogue_book: RateBook) -> None:
    facts = {"role": Role.CALL, "provider_raw": "openai", "model_responded": "llama-3", "input": 10, "output": 5}
    outer = Span(b"t" * 16, 1, 0, 1_790_000_000_000_000_000, SpanFacts(scope="a", duration_us=9, **facts))
    inner = Span(b"t" * 16, 2, 1, outer.start_ns, SpanFacts(scope="b", duration_us=5, host="localhost", **facts))
    (call,) = resolve([outer, inner])
    assert (call.members, call.provider) == (2, "self-hosted")
    assert catalogue_book.price(call).cost_nano is None
