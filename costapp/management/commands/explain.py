"""``manage.py explain TRACE_ID``: which spans of a trace were charged, which were not, and why."""

from argparse import ArgumentParser, ArgumentTypeError
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from costapp.core.ids import span_id_text, trace_id_text
from costapp.core.money import format_nano, format_usd
from costapp.core.values import Call
from costapp.models import Project
from costapp.services.explain_trace import ExplainedCall, ExplainedSpan, ExplainedTrace, explain_trace
from costapp.storage.connection import connect
from costapp.storage.reports.gpu_of_call import CallHour


def trace_id(text: str) -> bytes:
    raw = text.replace("-", "").strip().lower()
    try:
        value = bytes.fromhex(raw)
    except ValueError:
        value = b""
    if len(value) != 16:
        raise ArgumentTypeError(f"{text!r} is not a trace id: 32 hexadecimal digits are expected.")
    return value


class Command(BaseCommand):
    help = "Print every span of a trace (and of traces that saw the same call), which was charged, and why."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("trace_id", type=trace_id, help="32 hexadecimal digits")

    def handle(self, *, trace_id: bytes, **_: Any) -> None:
        with connect(settings.DATABASE_URL) as conn:
            found = explain_trace(conn, trace_id)
        if not found:
            raise CommandError(f"No span of trace {trace_id_text(trace_id)} is stored (any more).")
        for one in found:
            self.show(one)

    def show(self, one: ExplainedTrace) -> None:
        project = Project.objects.filter(pk=one.project_id).first()
        self.stdout.write(f"Project {project or one.project_id}")
        if one.is_oversize:
            self.stdout.write(
                "  Too many spans to be resolved as a whole: each call is charged by what it says itself."
            )
        for trace in dict.fromkeys(explained.span.trace_id for explained in one.spans):
            self.stdout.write(f"  Trace {trace_id_text(trace)}")
            for explained in one.spans:
                if explained.span.trace_id == trace:
                    self.show_span(explained)
        for call in one.calls:
            self.show_call(call)

    def show_span(self, explained: ExplainedSpan) -> None:
        span, verdict = explained
        at = datetime.fromtimestamp(span.start_ns / 1e9, UTC)
        into = f" into {span_id_text(verdict.into_span_id)}" if verdict.into_span_id is not None else ""
        self.stdout.write(
            f"    {at:%Y-%m-%d %H:%M:%S.%f}  {span_id_text(span.span_id)}  {verdict.outcome + into:10}"
            f"  {span.facts.name}  [{span.facts.service or 'no service'}]"
        )
        if verdict.why:
            self.stdout.write(f"        {verdict.why}")

    def show_call(self, one: ExplainedCall) -> None:
        call = one.call
        self.stdout.write(f"  Call {span_id_text(call.span_id)}: {call.provider or '?'} / {call.model or '?'}")
        self.stdout.write(f"    {_attribution(call)}")
        for text in one.price.texts():
            self.stdout.write(f"    {text}")
        for hour in one.gpu_hours:
            self.stdout.write(f"    {_gpu_hour(hour)}")
        self.stdout.write(f"    {_verdict(one)}")


def _attribution(call: Call) -> str:
    parts = (("feature", call.feature), ("user", call.user), ("session", call.session), ("team", call.team))
    return ", ".join(f"{name} {value}" for name, value in parts if value) or "not attributed"


def _gpu_hour(hour: CallHour) -> str:
    text = f"GPU hour {hour.hour_at:%Y-%m-%d %H:%M} UTC"
    if hour.gpu_nano is None:
        return f"{text}: {hour.why_no_share}."
    seconds = hour.active_us / 1_000_000
    return (
        f"{text}: {format_nano(hour.gpu_nano)} of pool {hour.pool or '(none)'}, in which it ran for {seconds:,.3f} s."
    )


def _verdict(one: ExplainedCall) -> str:
    if not one.is_booked:
        return "Not booked yet: the trace waits to be attributed."
    return "Booked without a price." if one.booked_nano is None else f"Booked: {format_usd(one.booked_nano)}"
