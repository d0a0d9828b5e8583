"""Clients without a recording of their own, as their documentation, source and reports describe them."""

import json
import math

from costapp.core.calls import resolve
from costapp.core.meters import input_total, output_total
from costapp.core.values import Call, ChargeFlag, Span, UsageState
from tests.dialects.synthetic import Client

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
USED = {"gen_ai.usage.input_tokens": 642, "gen_ai.usage.output_tokens": 45}
RAW_CHAT = (
    "{'completion_tokens': 640, 'prompt_tokens': 2143, 'total_tokens': 2783, 'completion_tokens_details': "
    "{'reasoning_tokens': 576, 'audio_tokens': None}, 'prompt_tokens_details': {'cached_tokens': 2048}}"
)


def only(*spans: Span | None) -> Call:
    (found,) = resolve([s for s in spans if s is not None])
    return found


def sums(calls: list[Call]) -> tuple[int, int, int]:
    return len(calls), sum(input_total(c.usage) for c in calls), sum(output_total(c.usage) for c in calls)


# --- Google ADK -------------------------------------------------------------------------------------------


def test_google_adk_counts_the_model_calls_and_none_of_its_wrappers() -> None:
    adk = Client("gcp.vertex.agent", "1.20.0")
    flow = adk.span("flow", {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": "wf"}, lasts=9)
    agent = adk.span(
        "invoke_agent weather",
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "weather",
            "gen_ai.conversation.id": "s-1",
            **USED,
        },
        flow,
        lasts=9,
    )
    one = adk.span(
        "generate_content openai/gpt-4o-mini",
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.system": "gcp.vertex.agent",
            "gen_ai.request.model": "openai/gpt-4o-mini",
            **USED,
        },
        agent,
        at=1,
    )
    tool = adk.span("execute_tool x", {"gen_ai.operation.name": "execute_tool"}, agent, at=3)
    found = only(flow, agent, one, tool)
    assert (found.session, found.provider, found.feature) == ("s-1", "openai", "wf")
    assert found.flags & ChargeFlag.PROVIDER_GUESSED


def test_google_adk_before_its_conventions_named_the_span_call_llm() -> None:
    adk = Client("gcp.vertex.agent")
    outer = adk.span(
        "call_llm",
        {
            "gen_ai.system": "gcp.vertex.agent",
            "gen_ai.request.model": "gemini-2.5-flash",
            "gcp.vertex.agent.session_id": "s-2",
            **USED,
        },
        lasts=2,
    )
    assert (only(outer).provider, only(outer).session) == ("google", "s-2")
    inner = adk.span(
        "generate_content gemini-2.5-flash",
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.request.model": "gemini-2.5-flash",
            "gen_ai.provider.name": "gcp.gemini",
            **USED,
        },
        outer,
        at=0.1,
        scope="opentelemetry.instrumentation.google_genai",
    )
    assert sums(resolve([outer, inner])) == (1, 642, 45)


# --- coding agents ----------------------------------------------------------------------------------------

GEMINI = {
    "model": "gemini-2.5-pro",
    "session.id": "g-1",
    "input_token_count": 1204,
    "output_token_count": 80,
    "cached_content_token_count": 1024,
    "thoughts_token_count": 180,
    "tool_token_count": 0,
    "duration_ms": 900,
}


def test_gemini_cli_bills_the_thoughts_beside_the_output() -> None:
    cli = Client("gemini-cli", service="gemini-cli")
    found = only(cli.log({"event.name": "gemini_cli.api_response", **GEMINI}, at=5))
    assert (input_total(found.usage), found.usage.cache_read) == (1204, 1024)
    assert (output_total(found.usage), found.usage.reasoning) == (260, 180)
    assert (found.session, found.provider, found.duration_us) == ("g-1", "google", 900_000)


def test_gemini_cli_numbers_written_as_text_are_numbers() -> None:
    cli = Client("gemini-cli", service="gemini-cli")
    as_text = {key: str(value) for key, value in GEMINI.items()}
    assert output_total(only(cli.log({"event.name": "gemini_cli.api_response", **as_text})).usage) == 260


def test_gemini_cli_events_and_span_of_one_call_are_one_call_with_the_thoughts() -> None:
    cli = Client("gemini-cli", service="gemini-cli")
    span = cli.span(
        "llm_call",
        {
            "gen_ai.operation.name": "llm_call",
            "gen_ai.request.model": "gemini-2.5-pro",
            "gen_ai.usage.input_tokens": 1204,
            "gen_ai.usage.output_tokens": 80,
        },
    )
    details = {
        "event.name": "gen_ai.client.inference.operation.details",
        "gen_ai.usage.input_tokens": 1204,
        "gen_ai.usage.output_tokens": 80,
        "gen_ai.response.id": "r",
    }
    request = {"event.name": "gen_ai.client.inference.operation.details", "gen_ai.request.model": "gemini-2.5-pro"}
    for inside in (span, None):
        logs = [
            cli.log({"event.name": "gemini_cli.api_response", **GEMINI}, at=1, inside=inside),
            cli.log(details, at=1, inside=inside),
            cli.log(request, at=0, inside=inside),
        ]
        found = only(span, *logs)
        assert (found.span_id, output_total(found.usage), found.usage.cache_read) == (span.span_id, 260, 1024)


def test_a_gemini_cli_stream_has_its_tokens_only_in_an_event_without_the_trace_of_its_span() -> None:
    cli = Client("gemini-cli", service="gemini-cli")
    asked = {"gen_ai.operation.name": "llm_call", "gen_ai.request.model": "gemini-2.5-pro"}
    response = cli.log({"event.name": "gemini_cli.api_response", **GEMINI}, at=1)
    failure = cli.log({"event.name": "gemini_cli.api_error", "session.id": "g-1", "status_code": 429}, at=9)
    spans = [cli.span("llm_call", asked), cli.span("llm_call", asked, at=8, status=2)]
    good, failed = resolve([*spans, *(event for event in (response, failure) if event)])
    assert (output_total(good.usage), good.usage.cache_read, good.error) == (260, 1024, "")
    assert failed.error == "rate_limit"


CLAUDE = {
    "model": "claude-sonnet-4-5-20250929",
    "session.id": "c-1",
    "user.id": "hash",
    "input_tokens": 14,
    "output_tokens": 310,
    "cache_read_tokens": 0,
    "cache_creation_tokens": 5200,
}


def claude() -> Client:
    return Client(
        "com.anthropic.claude_code.tracing",
        "1.0.0",
        service="claude-code",
        resource={"app.feature": "code-assist", "team.id": "platform"},
    )


def test_claude_code_spans_and_events_of_one_call_are_one_call() -> None:
    cli = claude()
    root = cli.span("claude_code.interaction", {"span.type": "interaction", "session.id": "c-1"}, lasts=9)
    span = cli.span(
        "claude_code.llm_request",
        {
            "span.type": "llm_request",
            "gen_ai.system": "anthropic",
            "gen_ai.request.model": "claude-sonnet-4-5-20250929",
            "ttft_ms": 80,
            **CLAUDE,
        },
        root,
        at=1,
    )
    cli.scope = cli.scope._replace(name="com.anthropic.claude_code.events")
    log = cli.log(
        {"event.name": "api_request", "prompt.id": "p1", "cost_usd_micros": 24192, "cost_usd": 0.024192, **CLAUDE},
        body="claude_code.api_request",
        at=2,
    )
    found = only(root, span, log)
    assert (found.usage.input, found.usage.cache_write_5m, found.usage.output) == (14, 5200, 310)
    assert (found.feature, found.team, found.session, found.user) == ("code-assist", "platform", "c-1", "hash")
    assert (found.reported_nano, found.ttft_us, found.members) == (24_192_000, 80_000, 2)


def test_claude_code_calls_share_an_id_where_the_api_gave_one() -> None:
    cli = claude()
    span = cli.span("claude_code.llm_request", {"span.type": "llm_request", "request_id": "req_1", **CLAUDE})
    log = cli.log({"event.name": "api_request", "request_id": "req_1", **CLAUDE}, body="claude_code.api_request", at=1)
    assert only(span, log).members == 2


def test_claude_code_errors_are_failed_calls_and_other_events_are_nothing() -> None:
    cli = claude()
    log = cli.log(
        {
            "event.name": "api_error",
            "model": "claude-sonnet-4-5",
            "status_code": "529",
            "attempt": 1,
            "error": "Overloaded",
            "session.id": "c-1",
        },
        body="claude_code.api_error",
    )
    assert only(log).error == "overloaded"
    assert cli.log({"event.name": "user_prompt", "session.id": "c-1"}, body="claude_code.user_prompt") is None


def test_codex_spans_and_events_of_one_call_are_one_call() -> None:
    thread = "01a1fb9d-3349-70d2-9195-a01c66ee60cc"
    cli = Client("codex_exec", service="codex_exec")
    usage = {
        "gen_ai.usage.input_tokens": 7644,
        "gen_ai.usage.output_tokens": 420,
        "gen_ai.usage.cache_read.input_tokens": 6144,
    }
    turn = cli.span(
        "session_task.turn",
        {"thread.id": thread, "model": "gpt-5-mini", "gen_ai.conversation.id": "turn-1", **usage},
        lasts=9,
    )
    noise = cli.span("receiving", {"thread.id": 10}, turn, at=1)
    step = cli.span("handle_responses", {"thread.id": 10, **usage}, turn, at=2)
    logs = [
        cli.log(
            {
                "event.name": "codex.sse_event",
                "event.kind": "response.completed",
                "model": "gpt-5-mini",
                "conversation.id": thread,
                **extra,
            },
            at=3,
        )
        for extra in (
            {},
            {
                "input_token_count": "7644",
                "output_token_count": "420",
                "cached_token_count": 6144,
                "reasoning_token_count": 256,
                "tool_token_count": "8064",
            },
        )
    ]
    assert logs[0] is None
    found = only(turn, noise, step, logs[1])
    assert (found.session, found.model, found.feature) == (thread, "gpt-5-mini", "")
    assert found.usage == (1500, 6144, 0, 0, 164, 256, 0, 0, 0, 0, 0)


# --- logfire, pydantic-ai -----------------------------------------------------------------------------------


def logfire_pair(client: Client, parent: Span | None, usage: bool = True) -> list[Span]:
    request = {
        "request_data": '{"model":"gpt-4o","stream":true}',
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.operation.name": "chat_completions",
        "gen_ai.provider.name": "openai",
    }
    late = {**request, "logfire.span_type": "log", **(USED if usage else {})}
    return [
        client.span(
            "Chat Completion with 'gpt-4o'",
            {**request, "logfire.span_type": "span"},
            parent,
            at=1,
            lasts=0.2,
            scope="logfire.openai",
        ),
        client.span("streaming response from 'gpt-4o' took 1s", late, parent, at=2, lasts=0, scope="logfire.openai"),
    ]


def test_logfire_streams_are_one_call_of_a_request_and_a_later_log() -> None:
    app = Client("logfire")
    root = app.span("handle", {"app.feature": "search", "session.id": "[Scrubbed due to 'session']"}, lasts=9)
    found = only(root, *logfire_pair(app, root))
    assert (found.usage.input, found.feature, found.session) == (642, "search", "")
    assert only(root, *logfire_pair(app, root, usage=False)).usage_state == UsageState.UNKNOWN


def test_a_logfire_stream_without_anything_around_it_is_one_call_in_two_traces() -> None:
    app = Client("logfire")
    prompt = {"gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"Say hello"}]}]'}
    request, result = (
        app.span(
            "x",
            {**CHAT, **prompt, "request_data": '{"model":"gpt-4o","stream":true}', **more},
            at=at,
            scope="logfire.openai",
            trace=trace * 16,
        )
        for trace, at, more in ((b"a", 1, {}), (b"b", 3, {"logfire.span_type": "log", **USED}))
    )
    found = only(request, result)
    assert (found.span_id, found.usage.input, found.members) == (request.span_id, 642, 2)
    assert len(resolve([request, request._replace(trace_id=b"c" * 16)])) == 2


def test_a_logfire_result_written_elsewhere_in_the_trace_finds_its_request() -> None:
    app = Client("logfire")
    root = app.span("handle", lasts=9)
    inner = app.span("inner", parent=root, lasts=1)
    request, result = logfire_pair(app, inner)
    assert len(resolve([root, inner, request, result._replace(parent_id=root.span_id)])) == 1


def test_two_logfire_streams_after_each_other_are_two_calls() -> None:
    app = Client("logfire")
    root = app.span("handle", lasts=9)
    first = logfire_pair(app, root)
    second = [s._replace(start_ns=s.start_ns + 3_000_000_000) for s in logfire_pair(app, root)]
    assert sums(resolve([root, *first, *second])) == (2, 1284, 90)


def test_pydantic_ai_1_with_logfire_on_the_client_counts_each_call_once() -> None:
    app = Client("pydantic-ai", "1.0.0")
    total = {"gen_ai.usage.input_tokens": 1284, "gen_ai.usage.output_tokens": 90, "model_name": "gpt-4o"}
    run = app.span("agent run", {"agent_name": "weather", **total}, lasts=9)
    spans = [run]
    for at in (1, 4):
        chat = app.span("chat gpt-4o", {**CHAT, **USED}, run, at=at)
        raw = '{"completion_tokens":45,"prompt_tokens":642,"prompt_tokens_details":{"cached_tokens":512}}'
        spans += [
            chat,
            app.span(
                "Chat Completion with 'gpt-4o'",
                {**CHAT, **USED, "gen_ai.usage.raw": raw},
                chat,
                at=at + 0.1,
                lasts=0.8,
                scope="logfire.openai",
            ),
        ]
    found = resolve(spans)
    assert sums(found) == (2, 1284, 90)
    assert [c.usage.cache_read for c in found] == [512, 512]


def test_pydantic_ai_1_alone_does_not_send_the_cached_part() -> None:
    app = Client("pydantic-ai", "1.0.18")
    assert only(app.span("chat gpt-4o", {**CHAT, **USED})).usage_state == UsageState.PARTIAL


def test_logfire_openai_agents_repeats_usage_on_turns_and_tasks() -> None:
    app = Client("logfire.openai_agents")
    task = app.span("Task: run", {"usage": '{"input_tokens":642,"output_tokens":45}'}, lasts=9)
    turn = app.span("Turn 1", {"usage": '{"input_tokens":642,"output_tokens":45}'}, task, lasts=8)
    found = only(task, turn, app.span("Responses API with 'gpt-4o'", {**CHAT, **USED}, turn, at=1))
    assert found.usage.input == 642
    document = '{"requests":1,"input_tokens":642,"output_tokens":45,"input_tokens_details":{"cached_tokens":512}}'
    chat = app.span("Chat completion with 'gpt-4o'", {**CHAT, **USED, "usage": document}, turn, at=1)
    assert only(task, turn, chat).usage[:2] == (130, 512), "of chat completions only this document has the cached part"


# --- OpenInference, OpenLLMetry, OpenLIT ------------------------------------------------------------------------


def test_openinference_agents_sdk_and_its_wrappers() -> None:
    app = Client("openinference.instrumentation.openai_agents")
    agent = app.span("Agent workflow", {"openinference.span.kind": "AGENT", "llm.token_count.prompt": 642}, lasts=9)
    found = only(
        agent,
        app.span(
            "response",
            {
                "openinference.span.kind": "LLM",
                "llm.model_name": "gpt-4o-2024-08-06",
                "llm.system": "openai",
                "llm.token_count.prompt": 642,
                "llm.token_count.completion": 45,
                "llm.token_count.prompt_details.cache_read": 512,
            },
            agent,
            at=1,
        ),
    )
    assert (found.usage.input, found.usage.cache_read) == (130, 512)


def test_openinference_js_streams_have_unknown_usage() -> None:
    app = Client("@arizeai/openinference-instrumentation-openai", "2.3.0")
    found = only(
        app.span(
            "OpenAI Chat Completions",
            {
                "openinference.span.kind": "LLM",
                "llm.model_name": "gpt-4o",
                "metadata": '{"feature":"search"}',
                "llm.invocation_parameters": '{"model":"gpt-4o","stream":true}',
                "session.id": "s",
                "user.id": "u",
            },
        )
    )
    assert (found.usage_state, found.feature) == (UsageState.UNKNOWN, "search")
    assert found.flags & ChargeFlag.STREAM


def test_openinference_errors_state_their_model_only_in_the_invocation_parameters() -> None:
    app = Client("openinference.instrumentation.openai")
    found = only(
        app.span(
            "ChatCompletion",
            {"openinference.span.kind": "LLM", "llm.invocation_parameters": '{"model": "gpt-4o-mini"}'},
            status=2,
            events={"exception": {"exception.type": "openai.RateLimitError", "exception.message": "Error code: 429"}},
        )
    )
    assert (found.model, found.error, found.provider) == ("gpt-4o-mini", "rate_limit", "openai")


def test_langchain_openinference_and_the_anthropic_sdk_see_one_call() -> None:
    app = Client("openinference.instrumentation.langchain", "0.1.80")
    counts = {
        "llm.token_count.prompt": 1825,
        "llm.token_count.completion": 95,
        "llm.token_count.prompt_details.cache_read": 1800,
    }
    root = app.span("handle", {"app.feature": "search"}, lasts=9, scope="app")
    chain = app.span(
        "ChatAnthropic",
        {"openinference.span.kind": "LLM", "llm.model_name": "claude-sonnet-4-5", **counts},
        root,
        at=1,
        lasts=1,
    )
    client = app.span(
        "Messages",
        {
            "openinference.span.kind": "LLM",
            "llm.provider": "anthropic",
            **counts,
            "llm.response.model_name": "claude-sonnet-4-5-20250929",
        },
        root,
        at=1.01,
        lasts=0.98,
        scope="openinference.instrumentation.anthropic",
    )
    sdk = app.span(
        "anthropic.messages.create",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.response.id": "msg_1",
            "gen_ai.usage.input_tokens": 1825,
            "gen_ai.usage.output_tokens": 95,
            "http.request.resend_count": 2,
            "gen_ai.usage.cache_read.input_tokens": 1800,
        },
        client,
        at=1.02,
        lasts=0.9,
        scope="com.anthropic.sdk.python",
    )
    found = only(root, chain, client, sdk)
    assert (found.members, found.usage.input, found.attempts, found.feature) == (3, 25, 3, "search")


def test_langchain_and_the_sdk_without_a_span_around_both_share_the_response_id() -> None:
    app = Client("openinference.instrumentation.langchain", "0.1.80")
    result = {
        "generations": [
            [{"text": '{"id": "msg_no"}', "message": {"id": ["langchain"], "kwargs": {"response_metadata": {
                "token_usage": {"prompt_tokens": 138}, "id": "chatcmpl-1234567890"}, "id": "lc_run--1"}}}]
        ]
    }  # fmt: skip
    counts = {"llm.token_count.prompt": 138, "llm.token_count.completion": 54, "openinference.span.kind": "LLM"}

    def chat(output: str, number: int) -> Span:
        return app.span("ChatOpenAI", {**counts, "output.value": output}, trace=bytes([number]) * 16)

    sdk = app.span(
        "ChatCompletion",
        {**counts, "output.value": json.dumps({"id": "chatcmpl-1234567890", "choices": []})},
        trace=b"u" * 16, at=0.01, lasts=0.9, scope="openinference.instrumentation.openai",
    )  # fmt: skip
    assert only(chat(json.dumps(result), 1), sdk).members == 2
    assert len(resolve([chat(json.dumps(result)[:150], 1), sdk])) == 2, "cut short: no id, and no harm"
    result["generations"][0][0]["message"]["kwargs"]["response_metadata"] = {"finish_reason": "stop"}
    assert len(resolve([chat(json.dumps(result), 1), sdk])) == 2, "a stream has no id"


def test_two_identical_calls_are_two() -> None:
    app = Client("openinference.instrumentation.openai")
    chat = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-4o",
        "llm.token_count.prompt": 9,
        "llm.token_count.completion": 3,
    }
    assert len(resolve([app.span("ChatCompletion", chat, at=i) for i in (0, 2)])) == 2


def test_traceloop_js_speaks_the_old_generation() -> None:
    app = Client("@traceloop/instrumentation-openai", "0.22.0")
    found = only(
        app.span(
            "openai.chat",
            {
                "llm.request.type": "chat",
                "gen_ai.system": "OpenAI",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.usage.prompt_tokens": "642",
                "gen_ai.usage.input_tokens": 642,
                "gen_ai.usage.completion_tokens": 45,
                "llm.usage.total_tokens": 687,
                "traceloop.association.properties.feature": "search",
                "traceloop.association.properties.user_id": "u",
                "traceloop.association.properties.session_id": "s",
                "gen_ai.prompt.0.content": "Say hello",
                "gen_ai.completion.0.content": "Hello",
            },
        )
    )
    assert (found.usage.input, found.usage.output, found.usage_state) == (642, 45, UsageState.PARTIAL)
    assert (found.feature, found.user, found.session) == ("search", "u", "s")
    assert (found.prompt_chars, found.output_chars) == (9, 5)


def test_openllmetry_bedrock_around_botocore_is_one_call_with_the_cache_beside_the_input() -> None:
    app = Client("opentelemetry.instrumentation.bedrock", "0.62.4")
    root = app.span("handle", lasts=9, scope="app")
    one = app.span(
        "bedrock.converse",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "AWS",
            "gen_ai.request.model": "claude-sonnet-4-5-20250929-v1:0",
            "gen_ai.usage.input_tokens": 5000,
            "gen_ai.usage.output_tokens": 40,
            "gen_ai.usage.cache_read_input_tokens": 1400,
        },
        root,
        at=1,
        lasts=1,
    )
    two = app.span(
        "chat anthropic.claude-sonnet-4-5-20250929-v1:0",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "aws.bedrock",
            "cloud.region": "us-east-1",
            "gen_ai.request.model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "gen_ai.usage.input_tokens": 5000,
            "gen_ai.usage.output_tokens": 40,
            "gen_ai.usage.cache_read.input_tokens": 1400,
        },
        root,
        at=1.01,
        lasts=0.9,
        scope="opentelemetry.instrumentation.botocore.bedrock-runtime",
        version="0.66b2",
    )
    found = only(root, one, two)
    assert (found.usage.input, found.usage.cache_read, found.provider, found.region) == (5000, 1400, "aws", "us-east-1")


def test_openlit_anthropic_excludes_the_cache_and_loses_it_in_streams() -> None:
    app = Client("openlit.instrumentation.anthropic")
    call = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.usage.output_tokens": 101,
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.server.time_to_first_token": 0.5,
    }
    plain = app.span(
        "chat",
        {
            **call,
            "gen_ai.usage.input_tokens": 33,
            "gen_ai.usage.cache_read.input_tokens": 1800,
            "gen_ai.usage.cache_creation.input_tokens": 260,
            "gen_ai.request.stream": False,
        },
    )
    assert (input_total(only(plain).usage), only(plain).ttft_us) == (2093, None)
    stream = app.span(
        "chat",
        {
            **call,
            "gen_ai.usage.input_tokens": 33,
            "gen_ai.usage.cache_read.input_tokens": 0,
            "gen_ai.usage.cache_creation.input_tokens": 0,
            "gen_ai.request.stream": True,
        },
        lasts=2,
    )
    sdk = app.span(
        "anthropic.messages.create",
        {
            **call,
            "gen_ai.usage.input_tokens": 2093,
            "gen_ai.usage.cache_read.input_tokens": 1800,
            "gen_ai.usage.cache_write.input_tokens": 260,
            "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": 260,
        },
        stream,
        at=0.1,
        lasts=1,
        scope="com.anthropic.sdk.python",
    )
    found = only(stream, sdk)
    assert (found.usage.input, found.usage.cache_read, found.usage.cache_write_1h) == (33, 1800, 260)
    assert found.ttft_us == 500_000


def test_openlit_estimates_of_streams_are_marked() -> None:
    app = Client("openlit.instrumentation.openai")
    guess = {**CHAT, "gen_ai.usage.input_tokens": 19, "gen_ai.usage.output_tokens": 15, "gen_ai.request.stream": True}
    span = app.span("chat", guess)
    assert only(span).usage_state == UsageState.ESTIMATED
    zeros = {"gen_ai.usage.cache_read.input_tokens": 0, "gen_ai.usage.cache_creation.input_tokens": 0}
    event = app.log({**guess, **zeros}, name="gen_ai.client.inference.operation.details", at=1, inside=span)
    found = only(span, event)
    assert (found.members, found.usage_state) == (2, UsageState.ESTIMATED)


# --- Vercel AI SDK ------------------------------------------------------------------------------------------------


def vercel(provider: str = "openai.chat", **more: object) -> dict[str, object]:
    return {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.model.provider": provider,
        "gen_ai.system": provider,
        "ai.model.id": "m",
        "ai.telemetry.functionId": "fn",
        "ai.telemetry.metadata.userId": "u",
        **more,
    }


def test_vercel_4_openai_has_the_cache_only_in_the_provider_metadata() -> None:
    app = Client("ai")
    found = only(
        app.span(
            "ai.generateText.doGenerate",
            vercel(
                **{
                    "ai.usage.promptTokens": 1235,
                    "ai.usage.completionTokens": 77,
                    "gen_ai.usage.input_tokens": 1235,
                    "gen_ai.usage.output_tokens": 77,
                    "ai.response.providerMetadata": '{"openai":{"cachedPromptTokens":1024,"reasoningTokens":0}}',
                }
            ),
        )
    )
    assert (found.usage.input, found.usage.cache_read, found.usage_state) == (211, 1024, UsageState.REPORTED)
    assert (found.feature, found.user) == ("fn", "u")


def test_vercel_4_and_5_anthropic_exclude_the_cache() -> None:
    app = Client("ai")
    metadata = (
        '{"anthropic":{"cacheCreationInputTokens":1800,"cacheReadInputTokens":0,"usage":{"input_tokens":12,'
        '"cache_creation":{"ephemeral_5m_input_tokens":1500,"ephemeral_1h_input_tokens":300}}}}'
    )
    found = only(
        app.span(
            "x",
            vercel(
                "anthropic.messages",
                **{
                    "ai.usage.promptTokens": 12,
                    "ai.usage.completionTokens": 90,
                    "ai.response.providerMetadata": metadata,
                },
            ),
        )
    )
    assert (found.usage.input, found.usage.cache_write_5m, found.usage.cache_write_1h) == (12, 1500, 300)
    assert (found.provider, found.flags & ChargeFlag.USAGE_SUSPECT) == ("anthropic", 0)


def test_vercel_4_streams_without_usage_send_nan_and_null() -> None:
    app = Client("ai")
    for nothing in (math.nan, None):
        found = only(
            app.span(
                "x",
                vercel(
                    **{
                        "ai.usage.promptTokens": nothing,
                        "ai.usage.completionTokens": nothing,
                        "gen_ai.usage.input_tokens": nothing,
                        "gen_ai.usage.output_tokens": nothing,
                    }
                ),
            )
        )
        assert found.usage_state == UsageState.UNKNOWN


def test_vercel_7_steps_and_agents_wrap_chats_and_hold_the_context() -> None:
    app = Client("gen_ai")
    agent = app.span(
        "invoke_agent fn",
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "search",
            "ai.settings.context.userId": "u",
            "ai.settings.context.sessionId": "s",
            **USED,
        },
        lasts=9,
    )
    step = app.span(
        "agent_step",
        {"gen_ai.operation.name": "agent_step", "ai.settings.context.feature": "f", **USED},
        agent,
        lasts=8,
    )
    chat = app.span("chat gpt-4o", {**CHAT, **USED, "gen_ai.client.operation.duration": 1.5}, step, at=1, kind=3)
    found = only(agent, step, chat)
    assert (found.feature, found.user, found.session, found.usage.input) == ("f", "u", "s", 642)


def test_vercel_7_embeddings_outer_and_inner_are_one_request() -> None:
    app = Client("gen_ai")
    embed = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "text-embedding-3-small",
    }
    outer = app.span("embeddings", embed, kind=3)
    inner = app.span("embeddings", {**embed, "gen_ai.usage.input_tokens": 138}, outer, at=0.1, lasts=0.5, kind=3)
    assert sums(resolve([outer, inner])) == (1, 138, 0)


def test_vercel_7_embedding_many_values_is_as_many_requests_as_were_made() -> None:
    app = Client("gen_ai")
    embed = {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "text-embedding-3-small"}
    outer = app.span("embeddings", embed, lasts=5)
    inner = [app.span("embeddings", {**embed, "gen_ai.usage.input_tokens": 100}, outer, at=at) for at in (1, 1, 3)]
    assert sums(resolve([outer, *inner])) == (3, 300, 0)


# --- Langfuse, LiteLLM, MLflow, strands, Semantic Kernel -------------------------------------------------------------


def test_langfuse_langchain_callback_writes_disjoint_buckets() -> None:
    app = Client("langfuse-sdk", "3.8.0")
    found = only(
        app.span(
            "ChatOpenAI",
            {
                "langfuse.observation.type": "generation",
                "langfuse.observation.model.name": "o4-mini",
                "langfuse.observation.usage_details": '{"input":88,"output":100,"total":1940,'
                '"input_cache_read":1152,"output_reasoning":600}',
            },
        )
    )
    assert (input_total(found.usage), output_total(found.usage)) == (1240, 700)
    assert (found.usage.cache_read, found.usage.reasoning) == (1152, 600)


def test_langfuse_langchain_anthropic_splits_cache_writes_by_lifetime() -> None:
    app = Client("langfuse-sdk")
    document = (
        '{"input":33,"output":101,"total":2194,"input_cache_read":1800,"input_cache_creation":0,'
        '"input_ephemeral_5m_input_tokens":60,"input_ephemeral_1h_input_tokens":200}'
    )
    found = only(
        app.span("g", {"langfuse.observation.type": "generation", "langfuse.observation.usage_details": document})
    )
    assert found.usage[:5] == (33, 1800, 60, 200, 101)


def test_langfuse_raw_responses_object_is_inclusive_and_a_raw_anthropic_one_is_not() -> None:
    app = Client("langfuse-sdk")
    shapes = {
        '{"input_tokens":1235,"output_tokens":777,"total_tokens":2012,"input_tokens_details":{"cached_tokens":1024},'
        '"output_tokens_details":{"reasoning_tokens":600}}': (211, 1024, 177, 600),
        '{"input_tokens":25,"output_tokens":95,"cache_read_input_tokens":1800,"cache_creation_input_tokens":0}': (
            25,
            1800,
            95,
            0,
        ),
        '{"promptTokenCount":1204,"cachedContentTokenCount":1024,"candidatesTokenCount":90,"thoughtsTokenCount":210}': (
            180,
            1024,
            90,
            210,
        ),
    }
    for document, expected in shapes.items():
        found = only(
            app.span("g", {"langfuse.observation.type": "generation", "langfuse.observation.usage_details": document})
        )
        assert (found.usage.input, found.usage.cache_read, found.usage.output, found.usage.reasoning) == expected


def test_langfuse_errors_state_their_status_in_a_message() -> None:
    app = Client("langfuse-sdk")
    found = only(
        app.span(
            "g",
            {
                "langfuse.observation.type": "generation",
                "langfuse.observation.level": "ERROR",
                "langfuse.observation.status_message": "Error code: 429 - {'error': {'message': 'slow down'}}",
                "langfuse.observation.cost_details": '{"input": 0, "output": 0, "total": 0}',
            },
        )
    )
    assert (found.error, found.reported_nano) == ("rate_limit", None)


def test_litellm_states_cached_and_reasoning_only_in_a_python_literal() -> None:
    app = Client("litellm")
    outer = app.span(
        "litellm_request",
        {
            "llm.request.type": "completion",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "o4-mini",
            "gen_ai.usage.input_tokens": 2143,
            "gen_ai.usage.output_tokens": 640,
            "metadata.usage_object": RAW_CHAT,
            "llm.is_streaming": "False",
            "metadata.user_api_key_user_id": "u",
            "metadata.requester_metadata": "{'feature': 'search', 'session_id': 's', 'prompt': None}",
        },
    )
    raw = app.span("raw_gen_ai_request", {"llm.openai.usage": RAW_CHAT}, outer, lasts=1)
    found = only(outer, raw)
    assert (found.usage.input, found.usage.cache_read, found.usage.output, found.usage.reasoning) == (95, 2048, 64, 576)
    assert (found.feature, found.user, found.session) == ("search", "u", "s")
    assert not found.flags & ChargeFlag.STREAM


def test_litellm_invents_response_ids_that_must_not_keep_twins_apart() -> None:
    app = Client("litellm")
    outer = app.span(
        "litellm_request",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "anthropic",
            "gen_ai.request.model": "claude-haiku-4-5",
            **USED,
            "gen_ai.response.id": "chatcmpl-01f2a3b4-1111-2222-3333-444455556666",
        },
        lasts=1,
    )
    sdk = app.span(
        "anthropic.messages.create",
        {**CHAT, "gen_ai.provider.name": "anthropic", **USED, "gen_ai.response.id": "msg_1"},
        at=0.1,
        lasts=0.8,
        scope="com.anthropic.sdk.python",
    )
    assert len(resolve([outer, sdk])) == 1


def test_litellm_under_an_applications_span_sends_only_the_raw_response() -> None:
    app = Client("litellm")
    root = app.span("handle", {"app.feature": "search"}, lasts=9, scope="app")
    written = {"cache_creation_input_tokens": 1800, "cache_creation": {"ephemeral_1h_input_tokens": 600}}
    usage = repr({"input_tokens": 33, "output_tokens": 101, "cache_read_input_tokens": 20, **written})
    raw = app.span(
        "raw_gen_ai_request",
        {"llm.anthropic.usage": usage, "llm.anthropic.model": "claude-sonnet-4-5", "llm.anthropic.id": "msg_1"},
        root,
        at=1,
    )
    found = only(root, raw)
    assert (found.usage.input, found.usage.cache_read, found.usage.cache_write_5m) == (33, 20, 1200)
    assert (found.usage.cache_write_1h, found.usage.output) == (600, 101)
    assert (found.provider, found.model, found.feature) == ("anthropic", "claude-sonnet-4-5", "search")


def test_litellm_raw_response_inside_its_own_request_is_the_same_call() -> None:
    app = Client("litellm")
    counts = {"gen_ai.usage.input_tokens": 642, "gen_ai.usage.output_tokens": 45, "gen_ai.cost.total_cost": 0.01}
    request = app.span("litellm_request", {**CHAT, **counts, "gen_ai.operation.name": "acompletion"}, lasts=2)
    raw = app.span("raw_gen_ai_request", {"llm.openai.usage": RAW_CHAT, "llm.openai.id": "chatcmpl-1"}, request)
    found = only(request, raw)
    assert (found.span_name, found.operation, found.reported_nano) == ("litellm_request", "chat", 10_000_000)
    failed = app.span("litellm_request", {**CHAT, "gen_ai.operation.name": "acompletion"}, status=2, at=3)
    assert only(failed).error


def test_litellm_and_langfuse_split_cache_writes_by_lifetime() -> None:
    app = Client("litellm")
    details = {"cached_tokens": 0, "cache_creation_tokens": 1800,
               "cache_creation_token_details": {"ephemeral_1h_input_tokens": 600}}  # fmt: skip
    usage = repr({"prompt_tokens": 1833, "completion_tokens": 101, "prompt_tokens_details": details})
    litellm = only(app.span("litellm_request", {**CHAT, "metadata.usage_object": usage}))
    buckets = {"input": 33, "output": 101, "cache_creation_input_tokens": 1800, "cache_read_input_tokens": 0,
               "cache_creation_ephemeral_1h_input_tokens": 600}  # fmt: skip
    langfuse = Client("langfuse-sdk", "5.0.4").span(
        "ChatAnthropic",
        {"langfuse.observation.type": "generation", "langfuse.observation.usage_details": json.dumps(buckets)},
    )
    for found in (litellm, only(langfuse)):
        assert (found.usage.input, found.usage.cache_write_5m, found.usage.cache_write_1h) == (33, 1200, 600)


def test_mlflow_quotes_every_value_and_keeps_tags_on_the_root() -> None:
    app = Client("mlflow.openai")
    root = app.span("answer", {"mlflow.spanType": '"CHAIN"', "mlflow.traceTag.feature": '"search"'}, lasts=9)
    found = only(
        root,
        app.span(
            "Completions",
            {
                "mlflow.spanType": '"CHAT_MODEL"',
                "mlflow.llm.model": '"gpt-4o"',
                "mlflow.chat.tokenUsage": '{"input_tokens": 1235, "output_tokens": 77, "total_tokens": 1312, '
                '"cache_read_input_tokens": 1024}',
            },
            root,
            at=1,
        ),
    )
    assert (found.feature, found.model, found.usage.input, found.usage.cache_read) == ("search", "gpt-4o", 211, 1024)


def test_mlflow_anthropic_includes_the_cache_and_has_the_one_hour_part() -> None:
    app = Client("mlflow.anthropic")
    found = only(
        app.span(
            "Messages.create",
            {
                "mlflow.spanType": '"CHAT_MODEL"',
                "mlflow.llm.model": '"claude-sonnet-4-5"',
                "mlflow.chat.tokenUsage": '{"input_tokens": 2093, "output_tokens": 101, "total_tokens": 2194, '
                '"cache_read_input_tokens": 1800, "cache_creation_input_tokens": 260, '
                '"cache_creation_input_tokens_above_1hr": 260}',
            },
        )
    )
    assert (found.usage.input, found.usage.cache_write_5m, found.usage.cache_write_1h) == (33, 0, 260)


def test_mlflow_in_semconv_mode_hides_cache_and_provider() -> None:
    app = Client("mlflow.openai")
    found = only(
        app.span(
            "chat gpt-4o",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "gpt-4o-2024-08-06",
                "mlflow.spanType": '"CHAT_MODEL"',
                **USED,
            },
        )
    )
    assert (found.usage_state, found.provider) == (UsageState.PARTIAL, "openai")


def test_strands_sends_old_and_new_names_and_milliseconds() -> None:
    app = Client("strands.telemetry.tracer")
    found = only(
        app.span(
            "chat",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.system": "strands-agents",
                "gen_ai.request.model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "gen_ai.usage.prompt_tokens": 1433,
                **USED,
                "gen_ai.usage.input_tokens": 1433,
                "gen_ai.usage.cache_write_input_tokens": 1400,
                "gen_ai.server.time_to_first_token": 2064,
            },
            lasts=3,
        )
    )
    assert (found.usage.input, found.usage.cache_write_5m, found.ttft_us) == (33, 1400, 2_064_000)
    assert found.provider == "aws"


def test_semantic_kernel_states_one_finish_reason_and_no_cache() -> None:
    app = Client("semantic_kernel.connectors.ai")
    found = only(
        app.span(
            "chat gpt-4o",
            {**CHAT, "gen_ai.system": "openai", **USED, "gen_ai.response.finish_reason": "FinishReason.STOP"},
        )
    )
    assert (found.finish_reason, found.usage_state) == ("FinishReason.STOP", UsageState.PARTIAL)


def test_spring_ai_clients_wrap_their_models() -> None:
    app = Client("org.springframework.ai")
    outer = app.span(
        "spring_ai chat_client",
        {
            "gen_ai.operation.name": "framework",
            "gen_ai.system": "spring_ai",
            "spring.ai.chat.client.conversation.id": "conv",
        },
        lasts=3,
    )
    assert only(outer, app.span("chat gpt-4o", {**CHAT, **USED}, outer, at=1)).session == "conv"


def test_two_services_of_one_trace_share_what_the_root_states() -> None:
    web, worker = Client("web", service="web"), Client("otel", service="worker")
    root = web.span("GET /ask", {"app.feature": "search", "user.id": "u", "session.id": "s"}, lasts=9)
    worker._last = 100
    server = worker.span("POST /generate", {}, root, at=1, lasts=5)
    found = only(worker.span("chat", {**CHAT, **USED}, server, at=2), server, root)
    assert (found.service, found.feature, found.user, found.session) == ("worker", "search", "u", "s")


def test_the_region_is_read_from_the_endpoint_where_nothing_else_states_it() -> None:
    app = Client("x")
    hosts = {
        "bedrock-runtime.eu-central-1.amazonaws.com": "eu-central-1",
        "https://us-east5-aiplatform.googleapis.com/v1": "us-east5",
        "api.openai.com": "",
        "127.0.0.1": "",
    }
    for host, region in hosts.items():
        assert only(app.span("chat", {**CHAT, **USED, "server.address": host})).region == region
    stated = {
        **CHAT,
        **USED,
        "server.address": "bedrock-runtime.eu-central-1.amazonaws.com",
        "cloud.region": "us-east-1",
    }
    assert only(app.span("chat", stated)).region == "us-east-1"
