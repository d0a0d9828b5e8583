"""A project's own reading of token counts, from its settings to its charges."""

import pytest
from django.core.exceptions import ValidationError

from costapp.services.drain import drain
from costapp.services.explain_trace import explain_trace
from tests.pipeline import call, root, store, totals, trace_id

RULE = {"name": "acme-gateway", "scope": "acme.gateway", "shape": "input_excludes_cache"}


def test_a_projects_rule_decides_how_its_calls_are_read(conn, project):
    project.token_rules = [RULE]
    project.full_clean()
    project.save()
    store(conn, [root(1), call(1, scope="acme.gateway", input=5000, cache_read=1400)], project_id=project.id)
    drain(conn)
    assert totals(conn, "sum(input_tokens), sum(cache_read_tokens), min(usage_rule)") == (5000, 1400, "acme-gateway")
    (explained,) = explain_trace(conn, trace_id(1))
    assert explained.calls[0].call.usage_rule == "acme-gateway"


def test_without_it_the_built_in_table_decides(conn, project):
    store(conn, [root(1), call(1, scope="acme.gateway", input=5000, cache_read=1400)], project_id=project.id)
    drain(conn)
    assert totals(conn, "sum(input_tokens), min(usage_rule)") == (3600, "inclusive")


@pytest.mark.parametrize(
    "wrong", [{"token_rules": [{"name": "x", "shape": "odd"}]}, {"attribute_names": {"user": "uid"}}]
)
def test_settings_that_make_no_sense_are_refused_when_they_are_entered(project, wrong):
    for field, value in wrong.items():
        setattr(project, field, value)
    with pytest.raises(ValidationError):
        project.full_clean()
