"""The design's rules that a machine can check: layers, tenancy in every key, integer money, sizes."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = "".join(path.read_text() for path in sorted((ROOT / "costapp/storage").glob("schema*.sql")))

# layer -> what it may import beside the standard library and itself. Prefixes; the rest is forbidden.
LAYERS = {
    "costapp/core": {"msgspec"},
    "anomaly": {"costapp.core", "numpy", "pandas", "sklearn"},
    "costapp/storage": {"costapp.core", "psycopg", "msgspec", "orjson", "zstandard"},
    "costapp/models": {"costapp.core", "django"},
    "collectors": {
        "costapp.core", "costapp.storage", "costapp.env", "costapp.sealing", "costapp.__version__",
        "psycopg", "psycopg_pool", "msgspec", "orjson", "zstandard",
        "google", "grpc", "granian", "uvloop", "opentelemetry", "cramjam", "prometheus_client", "yaml", "dns",
        "pynvml", "urllib3", "certifi",
    },
    "costapp/runtime": {"costapp.env", "psycopg", "kombu"},
}  # fmt: skip
# layer -> what it must not import; for layers that may use any package.
FORBIDDEN = {
    "costapp/services": {"costapp.web", "costapp.tasks", "costapp.management", "collectors"},
    "costapp/web": {"costapp.tasks", "costapp.management", "collectors"},
    "costapp/tasks.py": {"costapp.web", "costapp.management", "collectors"},
}
# services that drive the collectors' own code on purpose
ALLOWED_EXCEPTIONS = {
    ("costapp/services/replay", "collectors"),
    ("costapp/services/seed_demo", "collectors"),
}
# one package more for one module: a million calls an hour need columns (docs/decisions/gpu-hours.md)
ONE_MORE = {("costapp/core/allocation.py", "numpy"), ("costapp/storage/gpu_columns.py", "numpy")}
FUNCTION_LINES = 80
MODULE_LINES = 500


def sources(folder: str) -> list[Path]:
    path = ROOT / folder
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Names of imported modules, and of `from x import y` both x and x.y."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def begins(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_lies_below_it(layer):
    allowed = LAYERS[layer] | {layer.replace("/", ".")} | sys.stdlib_module_names
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(layer)
        for name in imports(path)
        if not begins(name, allowed) and not permitted(path, name)
    ]
    assert not wrong


def permitted(path: Path, name: str) -> bool:
    relative = str(path.relative_to(ROOT))
    return any(relative == place and begins(name, {what}) for place, what in ONE_MORE)


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_a_layer_does_not_import_what_lies_above_it(layer):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(layer)
        for name in imports(path)
        if begins(name, FORBIDDEN[layer]) and not excepted(path, name)
    ]
    assert not wrong


def excepted(path: Path, name: str) -> bool:
    relative = str(path.relative_to(ROOT))
    return any(relative.startswith(place) and begins(name, {what}) for place, what in ALLOWED_EXCEPTIONS)


def test_the_checker_sees_a_planted_violation(tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text("from django.db import models\nimport psycopg.rows\n")
    assert list(imports(planted)) == ["django.db.models", "psycopg.rows"]
    assert not begins("django.db.models", LAYERS["costapp/core"])


# --- money


def names_money(node: ast.AST) -> bool:
    return any(
        "nano" in (inner.id if isinstance(inner, ast.Name) else inner.attr)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name | ast.Attribute)
    )


def calls(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def float_money(tree: ast.AST) -> Iterator[int]:
    """Lines where an amount meets float(), round(), a float literal or true division."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and names_money(node):
            literal = any(isinstance(n, ast.Constant) and isinstance(n.value, float) for n in (node.left, node.right))
            if isinstance(node.op, ast.Div) or literal:
                yield node.lineno
        elif calls(node, "float", "round") and any(names_money(argument) for argument in node.args):
            yield node.lineno


# Pictures need coordinates, and ratios of two amounts are not amounts; neither is stored or summed again.
FLOATS_ARE_FOR_DRAWING = ("costapp/web/", "costapp/services/seed_demo/")


def test_no_float_comes_near_money():
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in ("costapp", "collectors")
        for path in sources(folder)
        if not str(path.relative_to(ROOT)).startswith(FLOATS_ARE_FOR_DRAWING)
        for line in float_money(ast.parse(path.read_text()))
    ]
    assert not wrong


@pytest.mark.parametrize(
    "planted", ["cost_nano / 2", "float(charge.cost_nano)", "x = 1.5 * price_nano", "round(a_nano)"]
)
def test_planted_float_money_is_found(planted):
    assert list(float_money(ast.parse(planted)))


@pytest.mark.django_db
def test_every_amount_in_the_database_is_a_bigint():
    with connection.cursor() as cursor:
        cursor.execute(
            "select table_name || '.' || column_name, data_type from information_schema.columns"
            " where table_schema = current_schema() and column_name like '%\\_nano%' escape '\\'"
        )
        columns = dict(cursor.fetchall())
    assert len(columns) > 20
    assert {name: kind for name, kind in columns.items() if kind not in ("bigint", "jsonb")} == {}


# --- tenancy

# Queues are claimed across projects, by shard or by age; identity keys number an append-only log.
NOT_BY_PROJECT = {"dirty_trace_claim", "charge_revision_pkey"}


@pytest.mark.django_db
def test_project_id_leads_every_key_and_index_of_the_data_plane():
    with connection.cursor() as cursor:
        cursor.execute(
            """
            select c.relname, i.relname, (select attname from pg_attribute
                                          where attrelid = x.indrelid and attnum = x.indkey[0])
            from pg_index x
            join pg_class c on c.oid = x.indrelid
            join pg_class i on i.oid = x.indexrelid
            where c.relnamespace = current_schema()::regnamespace and not c.relispartition
              and exists (select from pg_attribute where attrelid = c.oid and attname = 'project_id')
            """
        )
        rows = cursor.fetchall()
    data_plane = [(index, column) for table, index, column in rows if f"create table {table} " in SCHEMA]
    assert len(data_plane) > 10
    assert [index for index, column in data_plane if column != "project_id" and index not in NOT_BY_PROJECT] == []


@pytest.mark.django_db
def test_only_tables_about_the_whole_instance_have_no_project():
    tables = re.findall(r"^create table (\w+) \($", SCHEMA, re.MULTILINE)
    with connection.cursor() as cursor:
        cursor.execute("select table_name from information_schema.columns where column_name = 'project_id'")
        with_project = {table for (table,) in cursor.fetchall()}
    assert set(tables) - with_project == {"retention_horizon", "sign_in_failure", "heartbeat"}


@pytest.mark.django_db
def test_the_data_plane_can_be_distributed():
    """No trigger and no foreign key on big tables: both are refused when tables are spread over machines."""
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_trigger where not tgisinternal")
        assert cursor.fetchone() == (0,)
        cursor.execute("select conrelid::regclass::text from pg_constraint where contype = 'f'")
        assert [table for (table,) in cursor.fetchall() if f"create table {table} " in SCHEMA] == []


# --- size


def own_code() -> list[Path]:
    return [path for folder in ("costapp", "collectors") for path in sources(folder) if "migrations" not in path.parts]


def test_functions_fit_on_a_screen():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in own_code()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= FUNCTION_LINES
    ]
    assert not long


def test_modules_hold_one_idea():
    long = {
        str(path.relative_to(ROOT)): count
        for path in own_code()
        if (count := path.read_text().count("\n")) > MODULE_LINES
    }
    assert not long
