"""Facts come back as they were stored, whichever form they took; and stored forms stay readable for ever."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costapp.core.values import SpanFacts
from costapp.storage import facts as stored

texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
counts = st.none() | st.integers(0, 10**9)


def call(**fields: Any) -> SpanFacts:
    known = {
        "name": "chat gpt-4o", "service": "api", "duration_us": 900_000, "kind": 3, "role": 1, "feature": "search",
        "scope": "opentelemetry.instrumentation.openai_v2", "operation": "chat", "provider_raw": "openai",
        "model_requested": "gpt-4o", "model_responded": "gpt-4o-2024-08-06", "response_id": "chatcmpl-0123456789abcdef",
        "input": 1200, "output": 80, "finish_reason": "stop",
    }  # fmt: skip
    return SpanFacts(**known | fields)


@given(st.builds(
    SpanFacts, name=st.text(st.characters(exclude_categories=["Cs"]), max_size=40), service=texts, user=texts,
    session=texts, model_requested=texts, input=counts, output=counts, output_chars=counts, image_out=counts,
    units=counts, unit=texts, flags=st.integers(0, 255), prompt_hash=st.none() | st.integers(-(2**63), 2**63 - 1),
    link_trace=st.none() | st.binary(min_size=16, max_size=16),
))  # fmt: skip
def test_facts_come_back_as_they_were_stored(facts):
    assert stored.decode_facts(stored.encode_facts(facts)) == facts


def test_a_call_takes_less_than_half_of_its_plain_size():
    assert len(stored.encode_facts(call())) < len(stored.encode_plain(call())) / 2


def test_plain_spans_are_stored_as_they_are_and_without_their_trailing_defaults():
    document = stored.encode_facts(SpanFacts(name="GET /", service="api", duration_us=3))
    assert document == stored.encode_plain(SpanFacts(name="GET /", service="api", duration_us=3))
    assert len(document) < 20


def test_what_does_not_get_smaller_is_stored_as_it_is():
    facts = SpanFacts(name="".join(chr(0x4E00 + number * 37 % 20_000) for number in range(120)))
    assert stored.decode_facts(stored.encode_facts(facts)) == facts


@pytest.mark.parametrize("duration_us", [0, 127, 128, 65_536, 2**40])
@pytest.mark.parametrize(
    "facts", [SpanFacts(name="x"), SpanFacts(name="q", service="s", user="u", variant="b"), call()]
)
def test_a_filled_template_is_the_document_of_those_facts(facts, duration_us):
    template, short = stored.FactsTemplate(facts), stored.bytes_template(facts)
    facts.duration_us = duration_us
    assert template.fill(duration_us) == stored.encode_facts(facts)
    assert short is None or short.fill(duration_us) == stored.encode_facts(facts)


def test_a_template_puts_every_value_in_its_place():
    template = stored.FactsTemplate(call(), ("user", "input", "response_id"))
    other = msgspec.structs.replace(call(), user="somebody", input=5, response_id="other", duration_us=3)
    assert template.fill(3, ["somebody", 5, "other"]) == stored.encode_facts(other)


def test_documents_that_may_be_compressed_have_no_template_of_bytes():
    assert stored.bytes_template(call()) is None
    assert stored.bytes_template(SpanFacts(name="x")) is not None


def test_the_dictionary_never_changes_because_stored_rows_need_it():
    digest = hashlib.sha256(stored._DICTIONARY.as_bytes()).hexdigest()
    assert digest == "2ad99b6b42f988b8c987b8036921371f3fea689232d07f738e83d589be4fb218"


def test_a_document_stored_by_the_first_release_can_still_be_read():
    assert (
        stored.decode_facts(
            bytes.fromhex(
                "0120a83d0200e3c2093a25d4298bbe428d1e3b3fbed62b9d32c2e79a18c92e5a825a56208711eb8e918e97d165c65a05"
                "09fc80a3a8646771ea1f6753ff8b76672108f46b617f2dc8aaf6959f02"
            )
        )
        == call()
    )


def test_threads_do_not_disturb_each_other():
    def round_trip(number: int) -> bool:
        facts = call(user=f"user-{number}", input=number)
        return all(stored.decode_facts(stored.encode_facts(facts)) == facts for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(round_trip, range(40)))
