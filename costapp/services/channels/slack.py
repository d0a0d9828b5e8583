"""Slack, by incoming webhook or by a bot's token. Block Kit; names are escaped, so that none can ping anybody."""

import json
from typing import Any

from django.conf import settings

from costapp.core.alerts import cut
from costapp.services.channels import http
from costapp.services.channels.message import Item, Message, Outcome, broken, later, rejected, sent

# Limits of Block Kit
TEXT, FIELD, FIELDS, BUTTON_URL, BLOCKS = 2900, 1900, 10, 3000, 50
#: Alerts shown with their figures; further ones are a line.
WITH_FIGURES = 5

BADGES = {"critical": "🔴", "warning": "🟠", "info": "🔵", "resolved": "🟢"}

#: What chat.postMessage answers when sending again would help, or only another message would.
TRY_AGAIN = frozenset({
    "ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout",
    "team_added_to_org",
})  # fmt: skip
THIS_MESSAGE = frozenset({
    "msg_too_long", "invalid_blocks", "invalid_blocks_format", "no_text", "msg_blocks_too_long", "invalid_arguments",
    })  # fmt: skip


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def escaped(text: str, limit: int) -> str:
    """Escaped and within the limit, never cut inside an entity."""
    shown = text[:limit]
    while len(escape(shown)) > limit:
        shown = shown[: -max(1, (len(escape(shown)) - limit) // 5)]
    return escape(shown if shown == text else shown[:-1] + "…")


def send_webhook(config: dict[str, Any], secret: dict[str, str], message: Message) -> Outcome:
    outcome, answer = http.deliver(
        secret["url"], json.dumps(payload(message)).encode(), {"Content-Type": "application/json"}, who="Slack"
    )
    return outcome if answer is None else outcome._replace(words=outcome.words + _said(answer.body))


def _said(body: bytes) -> str:
    """Slack's own short reason, such as no_service; anything else in the body is not repeated."""
    word = body[:64].decode(errors="replace").strip()
    return f" It says {word}." if word.replace("_", "").isalpha() and word.isascii() and word != "ok" else ""


def send_bot(config: dict[str, Any], secret: dict[str, str], message: Message) -> Outcome:
    body = payload(message) | {"channel": config["channel"]}
    headers = {"Content-Type": "application/json; charset=utf-8", "Authorization": f"Bearer {secret['token']}"}
    outcome, answer = http.deliver(
        f"{settings.SLACK_API_URL}/chat.postMessage", json.dumps(body).encode(), headers, who="Slack"
    )
    return outcome if answer is None or answer.status != 200 else _read(answer.body)


def _read(body: bytes) -> Outcome:
    """Slack answers 200 to almost everything; the truth is in the body."""
    try:
        answer = json.loads(body)
        error = "" if answer["ok"] else str(answer["error"])[:60]
    except (ValueError, KeyError, TypeError):
        return later("Slack answered 200, but not as its interface says.")
    if not error:
        return sent("Slack answered ok.")
    if error in TRY_AGAIN:
        return later(f"Slack answers {error}.")
    if error in THIS_MESSAGE:
        return rejected(f"Slack refuses this message: {error}.")
    return broken(f"Slack answers {error}. {ADVICE.get(error, '')}".strip())


ADVICE = {
    "not_in_channel": "Invite the bot to the channel.",
    "channel_not_found": "Check the channel's name or id, and invite the bot.",
    "is_archived": "The channel is archived.",
    "missing_scope": "The bot needs the scope chat:write.",
    "invalid_auth": "Enter a token that is valid.",
    "token_revoked": "Enter a token that is valid.",
    "account_inactive": "Enter a token that is valid.",
}


def payload(message: Message) -> dict[str, Any]:
    blocks: list[dict[str, Any]] = [_text(_title(message))]
    for number, item in enumerate(message.items):
        blocks += _with_figures(message, item) if number < WITH_FIGURES else [_line(item)]
    if message.more:
        blocks.append(_text(f"and {message.more} more: {_link(message.more_url, 'all alerts')}"))
    keys = ", ".join(item.key for item in message.items if item.key)
    blocks.append(_context(f"{message.project_name} · {message.dedupe_key[:12]}" + (f" · {keys}" if keys else "")))
    return {
        "text": escaped(message.heading, TEXT), "blocks": blocks[:BLOCKS], "unfurl_links": False, "unfurl_media": False,
    }  # fmt: skip


def _with_figures(message: Message, item: Item) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [{"type": "divider"}]
    if item.headline != message.heading:
        blocks.append(_text(_headline(item)))
    if item.facts:
        shown = [f"*{escaped(fact.label, 100)}*\n{escaped(fact.text, FIELD - 110)}" for fact in item.facts[:FIELDS]]
        blocks.append({"type": "section", "fields": [_markdown(text) for text in shown]})
    if item.driver:
        blocks.append(_text(escaped(item.driver, TEXT)))
    buttons = [
        _button(words, url)
        for words, url in (("Show in Costapp", item.url), ("Acknowledge or snooze", item.alert_url))
        if url
    ]
    return [*blocks, {"type": "actions", "elements": buttons}] if buttons else blocks


def _title(message: Message) -> str:
    alone = message.items[0] if len(message.items) == 1 and message.kind == "alerts" else None
    return f"{_badge(alone) if alone else ''} *{escaped(message.heading, TEXT)}*".strip()


def _headline(item: Item) -> str:
    return f"{_badge(item)} {escaped(item.headline, TEXT)}".strip()


def _badge(item: Item) -> str:
    return BADGES.get("resolved" if item.event == "resolved" else item.level, "")


def _line(item: Item) -> dict[str, Any]:
    return _text(_headline(item) + (f" {_link(item.url, 'show')}" if item.url else ""))


def _link(url: str, words: str) -> str:
    safe = url.replace("|", "%7C").replace("<", "%3C").replace(">", "%3E").replace("&", "&amp;")
    return f"<{safe}|{words}>"


def _markdown(text: str) -> dict[str, Any]:
    # verbatim: Slack makes no links and mentions of its own out of names
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _text(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _markdown(text)}


def _context(text: str) -> dict[str, Any]:
    return {"type": "context", "elements": [_markdown(escaped(cut(text, 1000), 1900))]}


def _button(words: str, url: str) -> dict[str, Any]:
    return {"type": "button", "text": {"type": "plain_text", "text": words, "emoji": False}, "url": url[:BUTTON_URL]}
