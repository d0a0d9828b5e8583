"""GPU rates: from CSV, and in the admin."""

from datetime import UTC, datetime

import pytest
from django.core.management import CommandError, call_command

from costapp.models import AuditEntry, EngineMapping, GpuPool, GpuRate, Membership, Project

STEPS = """pool,kind,valid_from,valid_to,gpus,usd_per_hour,source
h100,spot,2026-05-29T12:00Z,,1,2.10,market
h100,spot,2026-05-29T13:00Z,,1,1.95,market
h100,,2026-05-01,2026-06-01,8,31.2,agreement
"""


@pytest.fixture
def pool(db):
    project = Project.objects.create(slug="acme", name="Acme")
    return GpuPool.objects.create(project=project, name="h100", node_pattern="*")


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "rates.csv"
        path.write_text(text)
        return str(path)

    return write


def run(path, capsys, project="acme"):
    call_command("import_gpu_rates", project=project, csv=path)
    return capsys.readouterr().out


def test_steps_and_agreements_are_imported_once(pool, file, capsys):
    assert "3 rates added" in run(file(STEPS), capsys)
    assert "0 rates added, 0 changed, 3 unchanged" in run(file(STEPS), capsys)
    assert "0 rates added, 1 changed, 2 unchanged" in run(file(STEPS.replace("1.95", "1.90")), capsys)
    rates = GpuRate.objects.order_by("nano_per_hour").values_list("kind", "valid_from", "nano_per_hour")
    assert list(rates) == [
        ("spot", datetime(2026, 5, 29, 13, tzinfo=UTC), 1_900_000_000),
        ("spot", datetime(2026, 5, 29, 12, tzinfo=UTC), 2_100_000_000),
        ("on_demand", datetime(2026, 5, 1, tzinfo=UTC), 3_900_000_000),
    ]


@pytest.mark.parametrize(("spoil", "with_", "words"), [
    ("h100,spot,2026-05-29T12:00Z", "b200,spot,2026-05-29T12:00Z", "no pool 'b200'"),
    ("2.10", "cheap", "not a number"),
    ("2.10", "-1", "greater than or equal to 0"),
    ("2.10", "99999", "between $0 and $10,000"),
    ("h100,spot", "h100,gift", "not a valid choice"),
    ("2026-05-29T12:00Z", "noon", "not a time"),
    ("usd_per_hour", "price", "missing: usd_per_hour"),
    ("2026-05-01,2026-06-01", "2026-06-01,2026-05-01", "Line 4"),
])  # fmt: skip
def test_a_file_with_a_mistake_changes_nothing_and_says_where(pool, file, capsys, spoil, with_, words):
    with pytest.raises(CommandError, match="was not imported") as refused:
        run(file(STEPS.replace(spoil, with_, 1)), capsys)
    assert words in str(refused.value)
    assert not GpuRate.objects.exists()


def test_owners_see_pools_rates_and_mappings_of_their_projects_only(pool, client, django_user_model):
    owner = django_user_model.objects.create_user("owner", password="x", is_staff=True)
    theirs = Project.objects.create(slug="other", name="Other")
    Membership.objects.create(project=theirs, user=owner, role="owner")
    from django.contrib.auth.models import Permission

    owner.user_permissions.set(Permission.objects.filter(content_type__app_label="costapp"))
    mine = GpuPool.objects.create(project=theirs, name="mine", node_pattern="*")
    rate = GpuRate.objects.create(pool=pool, usd_per_hour=4)
    mapping = EngineMapping.objects.create(project=pool.project, host="llm", node="*")
    client.force_login(owner)
    for name, foreign in (("gpupool", pool), ("gpurate", rate), ("enginemapping", mapping)):
        assert client.get(f"/admin/costapp/{name}/").status_code == 200
        assert client.get(f"/admin/costapp/{name}/{foreign.pk}/change/").status_code == 302
    assert client.get(f"/admin/costapp/gpupool/{mine.pk}/change/").status_code == 200


def test_a_rate_set_in_the_admin_is_worked_out_and_audited(pool, admin_client):
    answer = admin_client.post("/admin/costapp/gpurate/add/", {
        "pool": pool.pk, "kind": "owned", "gpus": "8", "usd_per_hour": "0.8", "upfront_usd": "250000",
        "residual_usd": "25000", "term_years": "4", "watts": "10000", "usd_per_kwh": "0.2", "source": "",
        "valid_from_0": "", "valid_from_1": "", "valid_to_0": "", "valid_to_1": "",
    })  # fmt: skip
    assert answer.status_code == 302, answer.context["errors"]
    assert GpuRate.objects.get().nano_per_hour == 1_152_104_723
    assert AuditEntry.objects.filter(object_type="GPU rate", action="created").count() == 1
