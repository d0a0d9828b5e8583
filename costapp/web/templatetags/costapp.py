"""Filters and tags of the templates: numbers as people read them, and links that keep the page's state."""

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django import template
from django.template.context import RequestContext
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from costapp.core.providers import SELF_HOSTED
from costapp.storage.reports.calls import CallRow, Charge
from costapp.web import format as fmt
from costapp.web.links import calls_link, drill_url

register = template.Library()

NO_SHARE_TIP = "Its share of the GPU hour it ran in is known ten minutes after the hour ended."

register.filter("count", fmt.count)
register.filter("compact", fmt.compact)
register.filter("percent", fmt.percent)
register.filter("duration", fmt.duration)
register.filter("exact_usd", fmt.exact_usd)


@register.filter
def geometry(number: float) -> str:
    """A length in a drawing, with a point whatever the language."""
    return f"{number:.1f}"


@register.simple_tag
def pairs(**query: str) -> str:
    """Query pairs, encoded: ``{% pairs is=name %}``."""
    return urlencode(query)


@register.filter
def money(nano: int | None) -> SafeString:
    """An amount with its exact value in the tooltip; "unpriced" where nothing is known."""
    if nano is None:
        return format_html('<span class="unpriced">{}</span>', "unpriced")
    return format_html('<span class="money" title="{}">{}</span>', f"${fmt.exact_usd(nano)}", fmt.usd(nano))


@register.filter
def cost_of(call: CallRow | Charge) -> SafeString:
    """The cost of a call. On a server of one's own it is known when its GPU hour is closed, and no price is missing."""
    if call.cost_nano is None and call.provider == SELF_HOSTED:
        return format_html('<span class="unpriced" title="{}">{}</span>', NO_SHARE_TIP, "no GPU share yet")
    return money(call.cost_nano)


@register.filter
def money_or_gap(nano: int | None) -> SafeString | str:
    return fmt.GAP if nano is None else money(nano)


@register.simple_tag(takes_context=True)
def moment(context: RequestContext, at: datetime | None, pattern: str = "%-d %b %Y, %H:%M") -> SafeString:
    """A moment in the project's time zone, with the full one in the tooltip."""
    if at is None:
        return format_html("{}", "never")
    zone = context["visit"].zone
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        at.isoformat(),
        fmt.local(at, zone, "%Y-%m-%d %H:%M:%S %Z"),
        fmt.local(at, zone, pattern),
    )


@register.simple_tag(takes_context=True)
def ago(context: RequestContext, at: datetime | None) -> str:
    return fmt.ago(at, context["visit"].now)


@register.simple_tag
def lasted(since: datetime, until: datetime | None) -> str:
    """How long something was the case."""
    if until is None:
        return fmt.GAP
    seconds = (until - since).total_seconds()
    return fmt.duration(seconds * 1e6) if seconds >= 1 else "at once"


@register.simple_tag(takes_context=True)
def page(context: RequestContext, name: str, **kwargs: Any) -> str:
    """The address of a page of this project."""
    return reverse(name, kwargs={"slug": context["visit"].project.slug, **kwargs})


@register.simple_tag(takes_context=True)
def drill(context: RequestContext, dimension: str, value: str) -> str:
    """The page of one value of a dimension, in the same period and with what else is fixed or filtered here."""
    return drill_url(context["visit"], context["view"], dimension, value, context.get("fixed_pairs", ()))


@register.simple_tag(takes_context=True)
def state(context: RequestContext, **changes: str) -> str:
    """This page with some state changed: ``{% state range="7d" from_="" %}``. The empty text removes a key."""
    query = context["view"].query(**{key.rstrip("_"): value or None for key, value in changes.items()})
    return "?" + "&".join(filter(None, [context.get("fixed_query", ""), query]))


@register.simple_tag(takes_context=True)
def calls_url(context: RequestContext, **changes: str) -> str:
    """The list of calls behind a figure, in the page's period and filters."""
    return calls_link(context["visit"], context["view"], context.get("fixed_pairs", ()), changes)
