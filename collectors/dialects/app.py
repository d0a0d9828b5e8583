"""What an app itself can say about a call, where no convention has a name for it yet."""

from collectors.dialects.rules import Table, count, flag, text
from costapp.core.values import SpanFlag

TABLE: Table = {
    "app.cache_hit": flag(SpanFlag.APP_CACHED),
    "gen_ai.cache_hit": flag(SpanFlag.APP_CACHED),
    "llm.cache_hit": flag(SpanFlag.APP_CACHED),
    "app.batch": flag(SpanFlag.BATCH),
    "gen_ai.request.batch": flag(SpanFlag.BATCH),
    "app.units": count("units"),
    "app.unit": text("unit"),
}
