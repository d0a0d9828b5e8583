"""Copy feature, user, session and the like onto every span, so that each span says whom it works for.

    provider.add_span_processor(AttributionProcessor())
    ...
    with attribution(feature="support-bot", user=user_id, session=session_id):
        answer = client.chat.completions.create(...)

Baggage travels with the request, also to other services, but OpenTelemetry never exports it by itself:
without a processor like this one, no backend sees it. Depends on opentelemetry-sdk only.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import baggage, context
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

NAMES = {
    "feature": "app.feature",
    "user": "user.id",
    "session": "session.id",
    "team": "team.id",
    "variant": "app.variant",
    "prompt_version": "app.prompt_version",
}


class AttributionProcessor(SpanProcessor):
    """Writes the attribution in baggage onto every span that starts."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        for name in NAMES.values():
            value = baggage.get_baggage(name, parent_context)
            if value is not None:
                span.set_attribute(name, str(value))

    def on_end(self, span: ReadableSpan) -> None:
        pass


@contextmanager
def attribution(**who: str | None) -> Iterator[None]:
    """Everything inside works for ``who``: feature, user, session, team, variant, prompt_version."""
    current = context.get_current()
    for field, value in who.items():
        if value is not None:
            current = baggage.set_baggage(NAMES[field], value, current)
    token = context.attach(current)
    try:
        yield
    finally:
        context.detach(token)
