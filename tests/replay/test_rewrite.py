"""Fresh identities: recordings can be sent again and do not meet their earlier selves."""

import json
from pathlib import Path

import pytest

from costapp.services.replay import Order, schedule
from costapp.services.replay.messages import REQUESTS, items
from costapp.services.replay.recording import Body, Recording, RecordingError, encode, guess, load
from costapp.services.replay.rewrite import response_ids, rewrite

CAPTURES = Path(__file__).parents[1] / "data/captures"
RECORDINGS = {recording.id: recording for recording in load(CAPTURES)}
TRUTH = {capture["id"]: capture for capture in json.loads((CAPTURES / "manifest.json").read_bytes())["captures"]}
SECRET, OTHER_SECRET = b"a" * 16, b"b" * 16


def plain_bodies(recording: Recording, bodies: list[bytes]) -> list[bytes]:
    pairs = zip(recording.bodies, bodies, strict=True)
    return [body._replace(data=data).decoded() for body, data in pairs if body.signal]


def identities_in(recording: Recording, bodies: list[bytes]) -> list[tuple[bytes, bytes]]:
    found = []
    for body, plain in zip(
        (body for body in recording.bodies if body.signal), plain_bodies(recording, bodies), strict=True
    ):
        if not body.is_json and body.signal in ("traces", "logs"):
            found += [
                (item.trace_id, item.span_id) for item in items(body.signal, REQUESTS[body.signal].FromString(plain))
            ]
    return found


def test_the_captures_are_all_there() -> None:
    assert len(RECORDINGS) == 52
    assert sum(len(recording.bodies) for recording in RECORDINGS.values()) == 115


@pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS)
def test_no_response_id_of_the_provider_survives(recording: Recording) -> None:
    bodies, _ = rewrite(recording, SECRET)
    everything = b"".join(plain_bodies(recording, bodies))
    served = [call["response_id"] for call in TRUTH[recording.id]["truth"]["calls"] if call.get("response_id")]
    assert [response_id for response_id in served if response_id.encode() in everything] == []


@pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS)
def test_ids_are_renamed_one_to_one_and_absent_ids_stay_absent(recording: Recording) -> None:
    before = identities_in(recording, [body.data for body in recording.bodies])
    after = identities_in(recording, rewrite(recording, SECRET)[0])
    for position in (0, 1):  # trace ids, then span ids
        renamed = dict(zip((ids[position] for ids in before), (ids[position] for ids in after), strict=True))
        assert [renamed[ids[position]] for ids in before] == [ids[position] for ids in after]
        assert len(set(renamed.values())) == len(renamed)
        assert all(any(old) == any(new) and (not any(old) or old != new) for old, new in renamed.items())


def test_two_runs_give_different_ids_and_one_run_the_same_in_every_body() -> None:
    recording = RECORDINGS["otel-genai__two-services-root-only"]  # each trace is spread over two bodies
    _, first = rewrite(recording, SECRET)
    _, again = rewrite(recording, SECRET)
    _, other = rewrite(recording, OTHER_SECRET)
    assert len(first.traces) == 3
    assert first.traces == again.traces
    assert first.traces.isdisjoint(other.traces)


def test_two_recordings_with_the_same_bytes_do_not_mix() -> None:
    recording = RECORDINGS["otel-genai__plain"]
    _, one = rewrite(recording, SECRET)
    _, two = rewrite(recording._replace(id="a copy"), SECRET)
    assert one.traces.isdisjoint(two.traces)


def test_keeping_ids_keeps_every_byte() -> None:
    for recording in RECORDINGS.values():
        bodies, identities = rewrite(recording, None)
        assert bodies == [body.data for body in recording.bodies]
        assert identities.traces or identities.event_times_ns


def test_users_sessions_and_usage_are_left_alone() -> None:
    recording = RECORDINGS["langfuse__plain"]
    plain = b"".join(plain_bodies(recording, rewrite(recording, SECRET)[0]))
    assert all(word in plain for word in (b"u-1001", b"s-aaa1", b"search-answers", b"gpt-4o-mini"))


def test_content_encoding_is_kept() -> None:
    recording = RECORDINGS["langfuse__plain"]
    assert recording.bodies[0].content_encoding == "gzip"
    assert rewrite(recording, SECRET)[0][0].startswith(b"\x1f\x8b")


@pytest.mark.parametrize("name", ["claude-code__plain", "codex-cli__plain"])
def test_events_outside_any_trace_are_moved_by_less_than_a_millisecond(name: str) -> None:
    recording = RECORDINGS[name]
    _, kept = rewrite(recording, None)
    _, first = rewrite(recording, SECRET)
    _, other = rewrite(recording, OTHER_SECRET)
    shifts = {new - old for old, new in zip(sorted(kept.event_times_ns), sorted(first.event_times_ns), strict=True)}
    assert len(shifts) == 1
    assert 0 < shifts.pop() < 1_000_000
    assert first.event_times_ns.isdisjoint(other.event_times_ns)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("gen_ai.response.id", "7", {"7"}),
        ("output.value", '{"id":"0193-aa","choices":[]}', {"0193-aa"}),
        ("output.value", '{"user":{"id":"u-1001"}}', set()),
        ("raw", "{'id': 'chatcmpl-9fJ2k1lmQz', 'x': 1}", {"chatcmpl-9fJ2k1lmQz"}),
        ("llm.raw_gen_ai_request", "raw_gen_ai_request", set()),
        ("user.id", "msg", set()),
    ],
)
def test_response_ids_are_found_where_clients_put_them(key: str, value: str, found: set[str]) -> None:
    assert response_ids(key, value) == found


def test_short_response_ids_become_longer_rather_than_ambiguous() -> None:
    span = {
        "traceId": "01" * 16, "spanId": "02" * 8, "startTimeUnixNano": "5",
        "attributes": [{"key": "gen_ai.response.id", "value": {"stringValue": "r1"}}],
    }  # fmt: skip
    document = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    recording = Recording("short", [Body("f", "traces", "/v1/traces", "application/json", "identity", document)], {})
    renewed = [json.loads(rewrite(recording, secret)[0][0]) for secret in (SECRET, OTHER_SECRET)]
    ids = [
        one["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"][0]["value"]["stringValue"] for one in renewed
    ]
    assert all(new.startswith("r1-") for new in ids)
    assert len(set(ids)) == 2


def test_a_body_that_cannot_be_read_is_sent_as_it_is() -> None:
    broken = Recording(
        "broken", [Body("f", "traces", "/v1/traces", "application/x-protobuf", "gzip", b"\x1f\x8bnothing")], {}
    )
    assert rewrite(broken, SECRET)[0] == [b"\x1f\x8bnothing"]


@pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS)
def test_bare_files_are_recognised_by_their_content(recording: Recording) -> None:
    for body in recording.bodies:
        found = guess("nameless", body.data)
        if body.signal:
            assert (found.signal, found.content_type) == (body.signal, body.content_type)
            assert found.content_encoding == body.content_encoding
        else:
            assert found.signal == ""


def test_bare_files_with_a_common_name_are_one_recording(tmp_path: Path) -> None:
    for name in ("otel-genai__feedback.00-traces.protobuf.bin", "otel-genai__feedback.01-logs.protobuf.bin"):
        (tmp_path / name).write_bytes((CAPTURES / name).read_bytes())
    (tmp_path / "other.pb").write_bytes((CAPTURES / "otel-genai__plain.protobuf.bin").read_bytes())
    loaded = {recording.id: [body.signal for body in recording.bodies] for recording in load(tmp_path)}
    assert loaded == {"otel-genai__feedback": ["traces", "logs"], "other": ["traces"]}


def test_a_folder_that_cannot_be_replayed_says_why(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="holds no recorded bodies"):
        load(tmp_path)
    with pytest.raises(RecordingError, match="is not a folder"):
        load(tmp_path / "missing")
    for text in ('{"captures": [{"id": "a"}]}', "[]", "{", '{"captures": [{"id": "a", "files": [{}]}]}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(RecordingError, match="not a manifest"):
            load(tmp_path)
    entry = {"file": "gone.bin", "order": 0, "endpoint": "/v1/traces", "content_type": "application/json"}
    (tmp_path / "manifest.json").write_text(json.dumps({"captures": [{"id": "a", "files": [entry]}]}))
    with pytest.raises(RecordingError, match=r"gone\.bin"):
        load(tmp_path)


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate", "zstd"])
def test_every_content_encoding_goes_there_and_back(encoding: str) -> None:
    data = encode(encoding, b"hello" * 100)
    assert Body("f", "traces", "/v1/traces", "application/json", encoding, data).decoded() == b"hello" * 100


def test_bodies_can_be_repeated_reversed_and_shuffled_repeatably() -> None:
    assert schedule([1, 2, 3], Order(repeat=2)) == [1, 2, 3, 1, 2, 3]
    assert schedule([1, 2, 3], Order(reverse=True)) == [3, 2, 1]
    shuffled = schedule(list(range(50)), Order(shuffle=4))
    assert shuffled != list(range(50))
    assert sorted(shuffled) == list(range(50))
    assert shuffled == schedule(list(range(50)), Order(shuffle=4))


def test_a_manifest_need_not_state_what_the_files_show(tmp_path: Path) -> None:
    name = "langfuse__plain.protobuf.bin"
    (tmp_path / name).write_bytes((CAPTURES / name).read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps({"captures": [{"id": "a", "files": [{"file": name}]}]}))
    (recording,) = load(tmp_path)
    body = recording.bodies[0]
    assert (body.signal, body.endpoint, body.content_encoding) == ("traces", "/v1/traces", "gzip")
    assert body.content_type == "application/x-protobuf"
