"""Every number that a page, table, CSV or JSON shows. The single source of truth for totals.

Select only; no Django, no business rule, ``project_id`` first (inside ``Scope`` or as first argument).
One module per page; all of them read *cells*: rows shaped like ``rollup_5m``, whatever table they come from.
Tables wider than the screen are cut here, with exact totals beside them, so pages can say "top N of M".
"""
