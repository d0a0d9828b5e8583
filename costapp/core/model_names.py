"""Who sold a call, and which catalogue model it was: names on the wire -> names in a price list.

Pure and slow on purpose: it runs once per distinct spelling and the answer is kept by the rate
book. How providers and hosts are spelled is in core.providers; how the catalogue recognises its own
models (match clauses) is data imported with it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from costapp.core.providers import ALIASES, FRAMEWORKS, SELF_HOSTED, Provider, at_host, bare_host

_GEO = re.compile(r"^(us-gov|us|eu|apac|jp|au|in|ca|sa|uk|mx|global)\.(?=[a-z0-9-]+\.)")
#: Ids whose very form names the seller, for spans that do not.
_ID_FORMS = (
    (re.compile(r"^(arn:aws:bedrock:|([a-z-]{2,6}\.)?(ai21|amazon|anthropic|cohere|deepseek|meta|mistral)\.)"), "aws"),
    (re.compile(r"^(projects/.*/)?publishers/[^/]+/models/"), "google"),
    (re.compile(r"^accounts/fireworks/"), "fireworks"),
)
_VERSION_TAIL = re.compile(r"(-v\d+)?(:\d+)?(:\d+k)?$")
_DATE_TAIL = re.compile(r"[-@](20\d{2}-?[01]\d-?[0-3]\d|\d{4})$")
_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")

Predicate = Callable[[str], bool]
Clause = dict[str, Any]


class CatalogueProvider(msgspec.Struct):
    """How the imported catalogue recognises one provider and, in order, its models."""

    id: str
    provider_match: Clause | None = None
    model_match: Clause | None = None
    fallback: list[str] = []
    models: msgspec.Raw = msgspec.Raw(b"[]")  #: [[model id, clause], ...]; decoded at the first lookup


class Seller(NamedTuple):
    """Who bills for a call. ``why`` is a sentence when that had to be guessed or overruled."""

    provider: str  #: catalogue id, SELF_HOSTED, or "" = cannot be told
    why: str = ""
    guessed: bool = False


class Resolved(NamedTuple):
    """A catalogue model, the provider that sells it, and how it was recognised."""

    provider: str  #: who bills
    owner: str  #: whose catalogue entry (and price) is taken; differs when one resells another
    model: str  #: catalogue id; "" = not in the catalogue
    guessed: bool = False  #: the seller itself is a guess
    vendor_price: bool = False  #: the seller is known, but does not list this model
    inexact: bool = False  #: the price may be another one: a region cut off, a fine-tuned model's base
    why: str = ""


def compile_clause(clause: Clause | None) -> Predicate | None:
    """A predicate of a match clause such as ``{"or": [{"equals": "gpt-4"}, {"starts_with": "gpt-4-"}]}``."""
    if not clause:
        return None
    (kind, value), *more = clause.items()
    if more:
        raise ValueError(f"A match clause has one key, not {sorted(clause)}")
    if kind in ("or", "and"):
        parts = [part for part in map(compile_clause, value) if part is not None]
        join = any if kind == "or" else all
        return lambda text: join(part(text) for part in parts)
    if kind == "regex":
        pattern = re.compile(value)
        return lambda text: pattern.search(text) is not None
    return _text_clause(kind, value.lower())


def _text_clause(kind: str, value: str) -> Predicate:
    match kind:
        case "equals":
            return lambda text: text == value
        case "starts_with":
            return lambda text: text.startswith(value)
        case "ends_with":
            return lambda text: text.endswith(value)
        case "contains":
            return lambda text: value in text
    raise ValueError(f"Unknown match clause {kind!r}")


class Names:
    """Looks names up in one catalogue. Compiles a provider's clauses when it is first asked for."""

    def __init__(self, providers: Sequence[CatalogueProvider] = ()) -> None:
        self._providers = {provider.id: provider for provider in providers}
        self._models: dict[str, list[tuple[str, Predicate]]] = {}
        self._said = [(p.id, test) for p in providers if (test := compile_clause(p.provider_match))]
        self._vendors = [(p.id, test) for p in providers if (test := compile_clause(p.model_match))]

    def provider_id(self, said: str) -> str:
        """The catalogue id of a provider as an instrumentation spells it; "" when it is none we know."""
        name = said.strip().lower()
        if not name or name in FRAMEWORKS:
            return ""
        name = ALIASES.get(name, name)
        if name in self._providers or name == SELF_HOSTED:
            return name
        return next((known for known, test in self._said if test(name)), "")

    def seller(self, provider: str, host: str, model: str) -> Seller:
        """Who bills, and a sentence when the name alone does not say so."""
        stated = Provider(self.provider_id(provider) or self._seller_by_form(model), False)
        seller = at_host(stated, host, model) if host else stated
        if seller.name == SELF_HOSTED:
            known = "A server of your own answered" if provider == SELF_HOSTED else f"{provider} is self-hosted"
            server = known if stated.name == SELF_HOSTED else f"{bare_host(host)} is a private host"
            return Seller(SELF_HOSTED, f"{server}: no public list price applies.")
        if seller.guessed:
            why = f"{bare_host(host)} is a private host, and {model} cannot be self-hosted: a gateway was assumed."
            return Seller(seller.name, why, guessed=True)
        return Seller(seller.name)

    def resolve(self, seller: Seller, model: str) -> Resolved:
        """The catalogue model behind a wire name, at its seller or else at the model's own vendor."""
        if seller.provider == SELF_HOSTED:
            return Resolved(SELF_HOSTED, SELF_HOSTED, "", why=seller.why)
        spellings = list(model_spellings(model, seller.provider))
        found = self._at(seller.provider, spellings) if seller.provider else None
        if found:
            return found._replace(guessed=seller.guessed, why=f"{seller.why} {found.why}".strip())
        guess = self._at_vendor(model, spellings)
        if guess is None:
            return Resolved(seller.provider, seller.provider, "", why=seller.why)
        if seller.provider:
            why = f"{seller.why} {seller.provider} does not list this model: the price of {guess.owner} was taken."
            return guess._replace(provider=seller.provider, guessed=seller.guessed, vendor_price=True, why=why.strip())
        why = f"{seller.why} The provider is not known: {guess.owner} was taken, which sells this model."
        return guess._replace(guessed=True, why=why.strip())

    def _seller_by_form(self, model: str) -> str:
        form = next((seller for pattern, seller in _ID_FORMS if pattern.match(model.lower())), "")
        return form if form in self._providers else ""

    def _at(self, provider: str, spellings: Sequence["Spelling"]) -> Resolved | None:
        for owner in (provider, *self._fallbacks(provider)):
            for spelling in spellings:
                model = self._find(owner, spelling.text)
                if model:
                    inexact, why = self._region_doubt(owner, model, spelling)
                    return Resolved(provider, owner, model, inexact=inexact, why=why)
        return None

    def _at_vendor(self, model: str, spellings: Sequence["Spelling"]) -> Resolved | None:
        """At the provider named in ``provider/model``, else at the vendor that owns such model names."""
        prefix, _, rest = model.lower().partition("/")
        if rest and (named := self.provider_id(prefix)) and named != SELF_HOSTED:
            found = self._at(named, list(model_spellings(rest, named)))
            if found:
                return found
        for spelling in spellings:
            for vendor, owns in self._vendors:
                if owns(spelling.text):
                    found = self._at(vendor, spellings)
                    if found:
                        return found
        return None

    def _fallbacks(self, provider: str) -> Sequence[str]:
        known = self._providers.get(provider)
        return known.fallback if known else ()

    def _find(self, provider: str, text: str) -> str:
        for model, test in self._models_of(provider):
            if test(text):
                return model
        dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", text)
        return next((m for m, test in self._models_of(provider) if test(dashed)), "") if dashed != text else ""

    def _models_of(self, provider: str) -> list[tuple[str, Predicate]]:
        known = self._models.get(provider)
        if known is None:
            raw = self._providers[provider].models if provider in self._providers else msgspec.Raw(b"[]")
            pairs: list[tuple[str, Clause]] = msgspec.json.decode(raw)
            known = [(model, test) for model, clause in pairs if (test := compile_clause(clause))]
            self._models[provider] = known
        return known

    def _region_doubt(self, owner: str, model: str, spelling: "Spelling") -> tuple[bool, str]:
        """A Bedrock id without its prefix has lost the region: the global one is often cheaper."""
        if owner == "aws" and spelling.cut and model.startswith("regional."):
            twin = self._find("aws", "global.anthropic." + spelling.text)
            if twin and twin != model:
                return True, "The client cut off the region; the regional price was taken, not the global one."
        return spelling.inexact, spelling.why


class Spelling(NamedTuple):
    """One way to write a model name, from the most to the least faithful."""

    text: str
    inexact: bool = False
    why: str = ""
    cut: bool = False  #: no vendor prefix where Bedrock has one


def model_spellings(model: str, provider: str) -> Iterator[Spelling]:
    """The wire name and what it may be a longer, prefixed or dated form of, best first."""
    seen: set[str] = set()
    for spelling in _spellings(model.strip().lower(), provider):
        if spelling.text and spelling.text not in seen:
            seen.add(spelling.text)
            yield spelling


def _spellings(text: str, provider: str) -> Iterator[Spelling]:
    cut = provider == "aws" and "." not in text.split(":", 1)[0].split("-", 1)[0]
    yield Spelling(text, cut=cut)
    tail = text.rsplit("/", 1)[-1] if "/" in text else text
    for base in (tail, tail.removeprefix("gpt-35").join(("gpt-3.5", "")) if tail.startswith("gpt-35") else tail):
        yield Spelling(base, cut=cut)
        yield from _geo_spellings(base)
        plain = _VERSION_TAIL.sub("", base)
        yield Spelling(plain, cut=cut)
        yield Spelling(_DATE_TAIL.sub("", plain), cut=cut)
        yield Spelling(base.removesuffix("-latest").removesuffix(":latest"))
    if tail.startswith("ft:"):
        base = tail.split(":")[1]
        yield Spelling(base, inexact=True, why=f"No price for fine-tuned {base}: the base model's price was taken.")


def _geo_spellings(text: str) -> Iterator[Spelling]:
    """``apac.anthropic.x`` -> other regional forms; the global form never stands in for a region."""
    geo = _GEO.match(text)
    if geo:
        bare = text[geo.end() :]
        if geo.group(1) != "global":
            yield Spelling(f"us.{bare}")
        yield Spelling(bare)
        yield Spelling(bare.split(".", 1)[-1])
    elif "." in text:
        yield Spelling(f"us.{text}")
