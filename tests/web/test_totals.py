"""One number, everywhere: the sum of charges on every page, split, grain and export."""

import csv
import io
from datetime import timedelta
from urllib.parse import urlencode

import pytest

from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.web.splits import SPLITS

pytestmark = pytest.mark.django_db

RANGES = ["range=30d", "range=7d", "range=90d"]


def table(world, url):
    answer = world.client().get(url)
    assert answer.status_code == 200
    return answer.json()


@pytest.mark.parametrize("by", SPLITS)
def test_every_split_adds_up_to_the_sum_of_charges(world, by):
    data = table(world, f"/p/acme/?range=30d&by={by}&format=json")
    cost, requests = world.conn.execute("select sum(cost_nano)::bigint, count(*) from charge").fetchone()
    assert data["total"]["cost_nano"] == cost
    assert data["total"]["requests"] == requests
    assert sum(row["cost_nano"] or 0 for row in data["rows"]) == cost
    assert sum(row["requests"] for row in data["rows"]) == requests


def test_every_grain_gives_the_same_sum(world):
    since, until = world.now - timedelta(hours=5), world.now + timedelta(minutes=10)
    sums = {}
    for hours in (5, 40, 100):
        start = until - timedelta(hours=hours)
        url = f"/p/acme/?from={start:%Y-%m-%dT%H:%M}%2B00:00&to={until:%Y-%m-%dT%H:%M}%2B00:00&format=json"
        data = table(world, url)
        where = "start_at >= %s and start_at < %s"
        expected = world.conn.execute(
            f"select coalesce(sum(cost_nano), 0)::bigint from charge where {where}", (data["start"], data["end"])
        ).fetchone()[0]
        sums[hours] = data["total"]["cost_nano"] or 0
        assert sums[hours] == expected
    assert sums[5] < sums[40] < sums[100]
    assert since < until


def test_a_filter_and_a_drill_down_agree(world):
    filtered = table(world, "/p/acme/?range=30d&by=model&feature=checkout&format=json")
    drilled = table(world, "/p/acme/feature/?is=checkout&range=30d&by=model&format=json")
    assert filtered["total"] == drilled["total"]
    assert filtered["total"]["cost_nano"] == world.scalar(
        "select sum(cost_nano)::bigint from charge where feature = 'checkout'"
    )


def test_users_read_from_charges_and_from_day_sums_agree(world):
    by_user = {row["user"]: row["cost_nano"] for row in table(world, "/p/acme/?range=30d&by=user&format=json")["rows"]}
    for user in ("u-1", "u-2"):
        page = table(world, f"/p/acme/user/?is={user}&range=30d&by=feature&format=json")
        assert page["total"]["cost_nano"] == by_user[user]


def test_users_whose_sums_are_not_there_yet_are_nobody_for_the_moment(world):
    whole = table(world, "/p/acme/?range=30d&by=user&format=json")
    (someone,) = world.conn.execute("select max(user_id) from user_day").fetchone()
    world.conn.execute("update user_day set project_id = -project_id where user_id = %s", [someone])
    try:
        behind = table(world, "/p/acme/?range=30d&by=user&format=json")
    finally:
        world.conn.execute("update user_day set project_id = -project_id where user_id = %s", [someone])
    assert behind["total"] == whole["total"]
    assert len(behind["rows"]) == len(whole["rows"]) - 1
    assert [row["user"] for row in behind["rows"]].count("") == 1
    assert sum(row["cost_nano"] or 0 for row in behind["rows"]) == whole["total"]["cost_nano"]


@pytest.mark.parametrize("period", ["30d", "24h"])
@pytest.mark.parametrize("by", [key for key, dimension in DIMENSIONS.items() if dimension.in_latency])
def test_percentiles_are_the_same_from_wide_and_narrow_histograms(world, by, period):
    """A filter that lets everything through reads the histograms of all dimensions, without it those of one."""
    key = "service" if by != "service" else "feature"
    values = world.conn.execute(f"select distinct {key} from charge_full").fetchall()
    everything = urlencode([(key, value) for (value,) in values])
    narrow = table(world, f"/p/acme/?range={period}&by={by}&format=json")
    wide = table(world, f"/p/acme/?range={period}&by={by}&format=json&{everything}")
    assert narrow["total"]["p95_us"] is not None
    for a, b in zip([narrow["total"], *narrow["rows"]], [wide["total"], *wide["rows"]], strict=True):
        assert (a["p50_us"], a["p95_us"], a["requests"]) == (b["p50_us"], b["p95_us"], b["requests"])


def test_the_list_of_calls_adds_up_to_the_same_sum(world):
    rows = table(world, "/p/acme/calls/?range=30d&format=json")["rows"]
    assert sum(row["cost_nano"] or 0 for row in rows) == world.scalar("select sum(cost_nano)::bigint from charge")
    assert len(rows) == world.scalar("select count(*) from charge")


def test_csv_holds_exact_amounts_and_no_formula_a_spreadsheet_would_run(world):
    text = world.client().get("/p/acme/?range=30d&format=csv").content.decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    total = rows.pop()
    assert total["feature"] == "Total"
    assert int(total["cost_nano"]) == world.scalar("select sum(cost_nano)::bigint from charge")
    assert sum(int(row["cost_nano"] or 0) for row in rows) == int(total["cost_nano"])
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert any(row["feature"].startswith("'=cmd") for row in rows)


def test_charges_as_cells_equal_the_rollups_measure_by_measure(world):
    """The user and session pages sum charges, the others rollups: every measure must mean the same."""
    from costapp.storage.reports.cells import CHARGE_EXPRESSIONS, ROLLUP_MEASURES
    from costapp.storage.reports.sums import MEASURES

    charges = ", ".join(f"sum({CHARGE_EXPRESSIONS[name]})::bigint" for name in MEASURES)
    rollups = ", ".join(f"sum({name})::bigint" for name in MEASURES)
    from_charges = world.conn.execute(f"select {charges} from charge").fetchone()
    from_rollups = world.conn.execute(
        f"select {rollups} from (select {ROLLUP_MEASURES} from rollup_day) cells"
    ).fetchone()
    assert dict(zip(MEASURES, from_charges, strict=True)) == dict(zip(MEASURES, from_rollups, strict=True))
    assert set(DIMENSIONS)
