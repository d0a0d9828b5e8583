"""The loop that scrapes: reads the list of targets, keeps one task per endpoint, writes down how it went.

Of all collector processes of an installation one scrapes: the one whose database session holds the lock. When it ends,
another takes over within `_RELOAD_SECONDS`.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from socket import getaddrinfo
from zlib import crc32

import psycopg
from psycopg.conninfo import conninfo_to_dict

from collectors.batch import METRICS, Batch
from collectors.errors import Refusal
from collectors.gpu.samples import Samples
from collectors.gpu.text import TextReader
from collectors.ingest import SCRAPE, Ingest
from collectors.scrape.fetch import Failed, Rules, fetch
from collectors.scrape.targets import CannotDiscover, Endpoint, endpoints
from collectors.settings import Settings
from costapp.core.gpu_samples import Gap, GapKind, slot_of
from costapp.core.targets import Address, Refused, read_allowed, unwrapped
from costapp.sealing import CannotOpen, CannotSeal, unseal
from costapp.storage.scrape_targets import Status, TargetRow, enabled_targets, is_scraper, note_status

log = logging.getLogger("costapp.collectors")

_RELOAD_SECONDS = 2.0
_DISCOVER_SECONDS = 30.0
_NOTE_SECONDS = 30


@dataclass(slots=True)
class Outcome:
    """How the last scrape of an endpoint went."""

    lines: int = 0
    problem: str = ""
    at: float = 0.0  # 0 = not scraped yet


@dataclass(slots=True)
class Scraped:
    """An endpoint that is being scraped."""

    task: "asyncio.Task[None]"
    outcome: Outcome


@dataclass(slots=True)
class Known:
    """A target and what was found for it."""

    row: TargetRow
    found_at: float = -_DISCOVER_SECONDS
    problem: str = ""
    endpoints: dict[Endpoint, Scraped] = field(default_factory=dict)
    noted: Status | None = None


class Scraper:
    def __init__(self, ingest: Ingest, settings: Settings) -> None:
        self._ingest = ingest
        self._settings = settings
        self._executor = ThreadPoolExecutor(settings.scrape_threads, thread_name_prefix="scrape")
        self._rules = Rules(
            read_allowed(part.strip() for part in settings.scrape_allow.split(",") if part.strip()),
            frozenset(own_servers(settings.database_url)), settings.scrape_bytes,
        )  # fmt: skip
        self._keys = [part.strip() for part in settings.field_keys.split(",") if part.strip()]
        self._known: dict[int, Known] = {}

    async def run(self) -> None:
        """Until cancelled. Nothing here may end the loop."""
        try:
            while True:
                try:
                    await self._reload()
                except (psycopg.Error, OSError) as error:
                    log.warning("The scrape targets could not be read: %s", type(error).__name__)
                except Exception as error:
                    log.exception("Scraping was put off: %s", type(error).__name__)
                await asyncio.sleep(_RELOAD_SECONDS)
        finally:
            self._stop(list(self._known))
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _reload(self) -> None:
        if not self._ingest.writer.database_up:
            return  # what is scraped meanwhile could not be stored
        check = self._ingest.keys.check
        rows = {row.target_id: row for row in await check(enabled_targets)} if await check(is_scraper) else {}
        self._stop([number for number, known in self._known.items() if rows.get(number) != known.row])
        for number, row in rows.items():
            known = self._known.setdefault(number, Known(row))
            if time.monotonic() - known.found_at >= _DISCOVER_SECONDS:
                await self._discover(known)
        await self._note_status()

    def _stop(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            for scraped in self._known.pop(number).endpoints.values():
                scraped.task.cancel()

    async def _discover(self, known: Known) -> None:
        """Find the endpoints of a target and begin or end their tasks. What was found stays when a look-up fails."""
        known.found_at = time.monotonic()
        limit, folder = self._settings.scrape_endpoints, self._settings.scrape_files
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._executor, lambda: endpoints(known.row, folder=folder, limit=limit))
            authorization = _authorization(known.row, self._keys)
        except (CannotDiscover, Refused, CannotOpen, CannotSeal) as problem:
            known.problem = str(problem)
            return
        known.problem = "" if found else "No endpoint was found."
        for endpoint in set(known.endpoints) - set(found):
            known.endpoints.pop(endpoint).task.cancel()
        for endpoint in found:
            if endpoint not in known.endpoints:
                outcome = Outcome()
                task = loop.create_task(self._scrape_on(known.row, endpoint, authorization, outcome))
                known.endpoints[endpoint] = Scraped(task, outcome)

    async def _scrape_on(self, row: TargetRow, endpoint: Endpoint, authorization: str, outcome: Outcome) -> None:
        """Scrape at fixed times, of each endpoint others, so that they do not all come at once."""
        reader = TextReader(endpoint.name, dict(endpoint.labels))
        offset = crc32(repr(endpoint).encode()) % (row.interval_s * 1000) / 1000
        first = True
        while True:
            wait = row.interval_s - (time.time() - offset) % row.interval_s
            wait = min(wait, 1.0) if first else wait
            due_ns = time.time_ns() + int(wait * 1e9)  # the time of its samples: one per slot, however busy we are
            await asyncio.sleep(wait)
            first = False
            try:
                await self._scrape_once(row, endpoint, authorization, reader, outcome, due_ns)
            except Refusal as refusal:  # not stored: the next one is; in between lies a gap
                outcome.problem = f"Scraped, but not stored: {refusal.message}"
                self._ingest.count_refusal(refusal, SCRAPE)
            except Exception as error:
                outcome.problem = "The answer could not be read; see the collector's log."
                log.exception("A scrape failed: %s", type(error).__name__)
            outcome.at = time.time()

    async def _scrape_once(
        self, row: TargetRow, endpoint: Endpoint, authorization: str, reader: TextReader, outcome: Outcome, due_ns: int
    ) -> None:
        self._ingest.admit()
        batch = Batch(row.project_id, None, METRICS, SCRAPE, 0)
        loop = asyncio.get_running_loop()
        try:
            samples, batch.wire_bytes, outcome.lines = await loop.run_in_executor(
                self._executor, self._read, row, endpoint, authorization, reader, due_ns
            )
            batch.received = outcome.lines
            batch.add_samples(samples)
            outcome.problem = ""
        except (Failed, Refused) as problem:
            outcome.lines, outcome.problem = 0, str(problem)
            batch.odd["scrape_failed"] += 1
            batch.gaps = [Gap(slot_of(due_ns), GapKind.TARGET_DOWN, endpoint.name)]
        self._ingest.counters.add("scrapes_total", result="failed" if outcome.problem else "ok")
        await self._ingest.store(batch)

    def _read(
        self, row: TargetRow, endpoint: Endpoint, authorization: str, reader: TextReader, due_ns: int
    ) -> tuple[Samples, int, int]:
        """Fetch and read one text, in a thread."""
        body = fetch(endpoint, self._rules, authorization=authorization, timeout_s=row.timeout_s)
        samples = self._ingest.new_samples()
        limit = self._settings.scrape_lines
        lines = reader.read(body.decode("utf-8", "replace"), samples, time_ns=due_ns, limit=limit)
        if lines > limit:
            raise Failed(f"The answer has more than {limit} series.")
        return samples, len(body), lines

    async def _note_status(self) -> None:
        statuses = []
        for known in self._known.values():
            status = _status(known)
            if status is not None and _is_news(status, known.noted):
                statuses.append(status)
                known.noted = status
        if statuses:
            await self._ingest.keys.check(lambda conn: note_status(conn, statuses))


def _is_news(status: Status, noted: Status | None) -> bool:
    """Worth a row update: something changed, or nobody wrote for a while."""
    if noted is None or (status.up, status.down, status.detail) != (noted.up, noted.down, noted.detail):
        return True
    return (status.at - noted.at).total_seconds() >= _NOTE_SECONDS


def _status(known: Known) -> Status | None:
    outcomes = [scraped.outcome for scraped in known.endpoints.values() if scraped.outcome.at]
    if not outcomes and not known.problem:
        return None
    at = max((outcome.at for outcome in outcomes), default=time.time())
    problems = [f"{endpoint.name}: {scraped.outcome.problem}" for endpoint, scraped in known.endpoints.items()
                if scraped.outcome.at and scraped.outcome.problem]  # fmt: skip
    return Status(
        target_id=known.row.target_id, at=datetime.fromtimestamp(int(at), UTC), up=len(outcomes) - len(problems),
        down=len(problems), samples=sum(outcome.lines for outcome in outcomes),
        detail=known.problem or (problems[0] if problems else ""),
    )  # fmt: skip


def _authorization(row: TargetRow, keys: list[str]) -> str:
    """The header's value; "" = none."""
    if row.auth == "none":
        return ""
    secret = unseal(keys, row.key_id, bytes(row.secret), row.seal_id).get("secret", "")
    if row.auth == "bearer":
        return f"Bearer {secret}"
    return "Basic " + base64.b64encode(f"{row.username}:{secret}".encode()).decode()


def own_servers(database_url: str) -> set[tuple[Address, int]]:
    """The database by address: never to be scraped, listed or not."""
    parts: Mapping[str, object] = conninfo_to_dict(database_url)
    host, port = str(parts.get("host") or ""), int(str(parts.get("port") or 5432))
    if not host or host.startswith("/"):
        return set()
    try:
        return {(unwrapped(ip_address(str(entry[4][0]))), port) for entry in getaddrinfo(host, port)}
    except OSError:
        return set()
