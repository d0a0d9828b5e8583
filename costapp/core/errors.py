"""One word for what went wrong with a call, from the many words clients use for it.

One and the same HTTP 429 arrives as ``openai.RateLimitError``, ``rate_limit_error``, ``429`` or
``ThrottlingException``.
"""

import re
from functools import lru_cache

OTHER = "error"

#: First match wins. Written for type names, status codes and short messages alike.
CLASSES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("quota", r"^quota\b|(insufficient|current).?quota|quota.?exceeded|billing|\b402\b|payment.?required"),
        ("rate_limit", r"rate.?limit|throttl|too.?many.?requests|resource.?exhausted|\b429\b"),
        ("overloaded", r"overloaded|\b529\b|service.?unavailable|\b503\b|model.?not.?ready"),
        ("timeout", r"time.?out|deadline.?exceeded|\b408\b|\b504\b"),
        ("cancelled", r"cancel|abort|\b499\b|generator.?exit|keyboard.?interrupt"),
        ("context_length", r"context.?length|context.?window|maximum context|too.?many.?tokens|prompt is too long"),
        ("content_filter", r"content.?(filter|policy)|safety|moderation|blocked|guardrail"),
        ("authentication", r"authenticat|unauthori[sz]ed|invalid.?api.?key|\b401\b"),
        ("permission", r"permission|forbidden|access.?denied|\b403\b"),
        ("not_found", r"not.?found|\b404\b"),
        ("invalid_request", r"bad.?request|invalid.?(request|argument)|validation|unprocessable|\b4(00|13|22)\b"),
        ("connection", r"connection|connect.?error|network|socket|dns|ssl|remote.?protocol|stream.?reset"),
        ("server_error", r"internal.?(server)?.?error|server.?error|\b50[0-2]\b|api.?error|service.?error"),
    )
)


@lru_cache(maxsize=4096)
def error_class(raw: str) -> str:
    """The class of an error text; "error" when it fits none, "" for no error."""
    if not raw:
        return ""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", raw)  # RateLimitError -> Rate Limit Error
    return next((name for name, pattern in CLASSES if pattern.search(text)), OTHER)
