"""Which GPUs served a call: engines (one served model on its GPUs), the calls they are joined to, and servers. Pure.

A *server* is a set of engines and GPUs that cannot be told apart: engines that share a GPU (time-slicing, MPS), the
GPUs of one engine (tensor parallel), and all replicas a call may have gone to when nothing says which. Money is
split inside a server, so what is not known makes shares coarser, never wrong in sum.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import NamedTuple

from costapp.core.pricing import REFUSED_ERRORS
from costapp.core.providers import SELF_HOSTED, bare_host
from costapp.core.values import Call, ChargeFlag

#: A call that says it ran longer is taken to have run this long.
LONGEST_US = 24 * 3_600_000_000
_HOUR_US = 3_600_000_000
_APP_CACHED = int(ChargeFlag.APP_CACHED)
#: Operations that only read: all of their time is prefill.
_NO_DECODE = frozenset({"embeddings", "rerank"})


class Role(StrEnum):
    """Which phases of a call an engine works on."""

    BOTH = "both"
    PREFILL = "prefill"
    DECODE = "decode"


class Target(NamedTuple):
    """Where a call went, as far as its spans say."""

    instance: str  # pod, host or instance id, told by the server itself; "" = not known
    host: str  # server.address[:port]
    model: str
    service: str  # who called


class Work(NamedTuple):
    """What a self-hosted call did to its server. Times since 1970; start <= border <= end."""

    target: Target
    start_us: int  # after the queue, where it is known
    border_us: int  # from prefill to decode
    end_us: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def hours(self) -> range:
        """The hours it touches, as microseconds since 1970."""
        return range(self.start_us - self.start_us % _HOUR_US, max(self.end_us, self.start_us + 1), _HOUR_US)


class Rule(NamedTuple):
    """Says where calls go. Empty = anything; * and ? as in file names. The first that fits a call decides."""

    host: str = ""
    model: str = ""
    service: str = ""
    # where they run
    served_model: str = ""
    node: str = ""
    pod: str = ""
    role: str = Role.BOTH


class Engine(NamedTuple):
    """One served model of one replica, or a pod that holds GPUs and says nothing about models."""

    key: str
    model: str = ""  # "" = not known
    host: str = ""  # host:port of its metrics
    node: str = ""
    namespace: str = ""
    pod: str = ""


class Gpu(NamedTuple):
    """One device in one hour."""

    key: str
    node: str
    pods: frozenset[str] = frozenset()  # namespace/pod of its holders
    model: str = ""  # the model it serves, where the samples say so


class Server(NamedTuple):
    gpus: list[str]
    engines: list[str]
    prefill: list[Target]  #: calls whose prefill, and those whose decode, it works on
    decode: list[Target]


def is_ours(call: Call, rules: Iterable[Rule]) -> bool:
    """Whether somebody said that such calls go to servers of our own, whatever their host looks like."""
    return any(_fits(rule, call.host, call.model, call.service) for rule in rules)


def own(call: Call, rules: Sequence[Rule]) -> Call:
    """The call, as one of a self-hosted server if a rule says so: a public list price would be an invention."""
    if not rules or call.provider == SELF_HOSTED or not is_ours(call, rules):
        return call
    return call._replace(provider=SELF_HOSTED, flags=call.flags & ~int(ChargeFlag.PROVIDER_GUESSED))


def _fits(rule: Rule, host: str, model: str, service: str) -> bool:
    """A rule without any condition fits nothing: it would make every call self-hosted."""
    if not (rule.host or rule.model or rule.service):
        return False
    return _like(rule.host, host) and _like(rule.model, model) and _like(rule.service, service)


def _like(pattern: str, text: str) -> bool:
    return not pattern or fnmatchcase(text.lower(), pattern.lower())


def work_of(call: Call) -> Work | None:
    """The time a call took on its server; None for calls to others, and for those whose time is not known."""
    if call.provider != SELF_HOSTED or call.flags & _APP_CACHED or call.error in REFUSED_ERRORS:
        return None
    if call.prefill_us is not None or call.decode_us is not None:
        start = (call.served_ns or call.start_ns) // 1000 + (call.queue_us or 0)
        border = start + (call.prefill_us or 0)
        end = border + (call.decode_us or 0)
    elif call.duration_us is None:
        return None
    else:
        start = call.start_ns // 1000
        end = start + call.duration_us
        border = end if call.operation in _NO_DECODE else start + min(call.ttft_us or 0, call.duration_us)
    end = min(end, start + LONGEST_US)
    usage = call.usage
    return Work(
        Target(call.instance, call.host, call.model, call.service),
        start,
        min(border, end),
        end,
        min(usage.input + usage.cache_write_5m + usage.cache_write_1h + usage.audio_in + usage.image_in, 2**31 - 1),
        min(usage.cache_read, 2**31 - 1),
        min(usage.output + usage.reasoning + usage.audio_out + usage.image_out, 2**31 - 1),
    )


# -- joining -------------------------------------------------------------------------------------------------------


def gpus_of(engine: Engine, gpus: Iterable[Gpu]) -> list[str]:
    """The GPUs an engine runs on: those its pod holds; else those of its node that no other pod holds."""
    gpus = list(gpus)
    if engine.pod:
        held = [gpu.key for gpu in gpus if f"{engine.namespace}/{engine.pod}" in gpu.pods]
        if held:
            return held
    names = {name for name in (engine.node, bare_host(engine.host)) if name}
    here = [gpu for gpu in gpus if gpu.node in names and not gpu.pods]
    told = [gpu for gpu in here if gpu.model and gpu.model == engine.model]
    return [gpu.key for gpu in told or [gpu for gpu in here if not gpu.model]]


def engines_for(target: Target, engines: Sequence[Engine], rules: Iterable[Rule]) -> list[Engine]:
    """The engines a call may have gone to: what its server says, then rules, then its host, then its model."""
    if target.instance:
        found = [engine for engine in engines if target.instance in (engine.pod, engine.host, engine.node)]
        if found:
            return _of_model(found, target.model) or found
    for rule in rules:
        if _fits(rule, target.host, target.model, target.service):
            return [engine for engine in engines if _runs(rule, engine)]
    found = _at_host(target.host, engines)
    if found:
        return _of_model(found, target.model) or found
    return _of_model(engines, target.model)


def _runs(rule: Rule, engine: Engine) -> bool:
    if not (rule.served_model or rule.node or rule.pod):
        return False
    return _like(rule.served_model, engine.model) and _like(rule.node, engine.node) and _like(rule.pod, engine.pod)


def _at_host(host: str, engines: Sequence[Engine]) -> list[Engine]:
    """By address and port; by the name of a pod (also as the first label of its DNS name) or a node."""
    if not host:
        return []
    exact = [engine for engine in engines if engine.host and engine.host == host]
    if exact:
        return exact
    name = bare_host(host)
    names = {name, name.split(".", 1)[0]}
    return [engine for engine in engines if names & {engine.pod, engine.node, bare_host(engine.host)} - {""}]


def _of_model(engines: Iterable[Engine], model: str) -> list[Engine]:
    wanted = _short(model)
    return [engine for engine in engines if wanted and _short(engine.model) == wanted]


def _short(model: str) -> str:
    """A model without its path or publisher: servers are often told only the last part."""
    return model.lower().rstrip("/").rpartition("/")[2]


def servers(
    gpus: Sequence[Gpu], engines: Sequence[Engine], targets: Sequence[Target], rules: Sequence[Rule]
) -> tuple[list[Server], list[Target]]:
    """GPUs, engines and calls as servers, and the calls for which no engine was found. The order given is of no matter.

    A GPU without an engine is a server of its own, so that its cost is told apart from that of others.
    """
    joined = _Joined(f"gpu {gpu.key}" for gpu in gpus)
    running: list[Engine] = []
    for engine in engines:
        held = gpus_of(engine, gpus)
        if held:
            running.append(engine)
            joined.add(f"engine {engine.key}", *(f"gpu {key}" for key in held))
    places: dict[tuple[Target, Role], str] = {}
    lost: list[Target] = []
    for target in sorted(set(targets)):
        found = engines_for(target, running, rules)
        roles = _by_role(target, found, running, rules)
        for role, some in roles.items():
            joined.add(*(f"engine {engine.key}" for engine in some))
            places[target, role] = f"engine {some[0].key}"
        if not roles:
            lost.append(target)
    return _as_servers(joined, places), lost


def _by_role(
    target: Target, found: list[Engine], engines: Sequence[Engine], rules: Iterable[Rule]
) -> Mapping[Role, list[Engine]]:
    """The engines of each phase. Rules with a role tell prefill and decode servers of one model apart."""
    split = {
        role: [
            engine
            for rule in rules
            if rule.role == role and _fits(rule, target.host, target.model, target.service)
            for engine in engines
            if _runs(rule, engine)
        ]
        for role in (Role.PREFILL, Role.DECODE)
    }
    if split[Role.PREFILL] and split[Role.DECODE]:
        return split
    return {Role.PREFILL: found, Role.DECODE: found} if found else {}


class _Joined:
    """Sets that grow together (union-find)."""

    def __init__(self, members: Iterable[str]) -> None:
        self.parent = {member: member for member in members}

    def find(self, member: str) -> str:
        self.parent.setdefault(member, member)
        while self.parent[member] != member:
            self.parent[member] = self.parent[self.parent[member]]
            member = self.parent[member]
        return member

    def add(self, first: str, *others: str) -> None:
        for other in others:
            one, two = sorted((self.find(first), self.find(other)))
            self.parent[two] = one


def _as_servers(joined: _Joined, places: Mapping[tuple[Target, Role], str]) -> list[Server]:
    found: dict[str, Server] = defaultdict(lambda: Server([], [], [], []))
    for member in sorted(joined.parent):
        kind, _, key = member.partition(" ")
        server = found[joined.find(member)]
        (server.gpus if kind == "gpu" else server.engines).append(key)
    for (target, role), engine in sorted(places.items()):
        server = found[joined.find(engine)]
        (server.prefill if role is Role.PREFILL else server.decode).append(target)
    return [found[key] for key in sorted(found)]
