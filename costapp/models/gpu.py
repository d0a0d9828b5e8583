"""GPUs of one's own: pools, what an hour of them costs, and where calls go."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from costapp.core.allocation import Method
from costapp.core.engines import Role
from costapp.models.project import Project

#: Hours of a mean year, leap days included.
HOURS_PER_YEAR = Decimal("8766")
NANO = Decimal(10**9)
#: Dearest GPU-hour that is believed: $10,000.
MAX_RATE_NANO = 10**13

_POSITIVE = MinValueValidator(Decimal(0))


def methods() -> list[tuple[str, str]]:
    words = {
        Method.SHARING: "Processor sharing: by time, divided by who else was active",
        Method.TOKENS: "Token-weighted: by uncached, cached and output tokens",
        Method.PHASES: "Phase-measured: prefill and decode time apart",
        Method.CAPACITY: "Practical capacity: a fixed price per unit of work, the rest is unused capacity",
    }
    return [(method.value, words[method]) for method in Method]


def roles() -> list[tuple[str, str]]:
    return [(Role.BOTH, "Prefill and decode"), (Role.PREFILL, "Prefill only"), (Role.DECODE, "Decode only")]


class GpuPool(models.Model):
    """GPUs that are bought and used alike. A GPU is in the first pool whose patterns it fits."""

    id = models.AutoField(primary_key=True)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="gpu_pools")
    name = models.CharField(max_length=100, help_text="As people know it, for example h100-inference.")
    priority = models.IntegerField(default=100, help_text="Of several pools that fit a GPU, the lowest number counts.")
    node_pattern = models.CharField(
        max_length=200, blank=True, help_text="Names of nodes, for example gpu-h100-*. Empty: any node."
    )
    model_pattern = models.CharField(
        max_length=200, blank=True, help_text="GPU models, for example *H100*. Empty: any model."
    )
    method = models.CharField(max_length=10, choices=methods, default=Method.SHARING.value)
    prefill_weight = models.PositiveIntegerField(
        default=1000, validators=[MinValueValidator(1)],
        help_text="Processor sharing: weight of a prompt being read, in thousandths.",
    )  # fmt: skip
    decode_weight = models.PositiveIntegerField(
        default=1000, validators=[MinValueValidator(1)], help_text="... and of an answer being written."
    )
    input_weight = models.PositiveIntegerField(
        default=1000, help_text="Token weights, in thousandths: of an uncached input token,"
    )
    cached_weight = models.PositiveIntegerField(default=100, help_text="of a cached one,")
    output_weight = models.PositiveIntegerField(default=4000, help_text="and of an output token.")
    capacity_tokens = models.PositiveBigIntegerField(
        default=0, help_text="Practical capacity: weighted tokens that one GPU does in an hour."
    )
    busy_percent = models.DecimalField(
        max_digits=5, decimal_places=2, default=Decimal(5), validators=[_POSITIVE, MaxValueValidator(Decimal(100))],
        help_text="Without a traced call, a GPU at or above this utilisation is unattributed-busy, else idle.",
    )  # fmt: skip
    grams_per_kwh = models.PositiveIntegerField(
        null=True, blank=True, help_text="Carbon intensity of the electricity, gCO2e per kWh. Empty: not known."
    )
    pue = models.DecimalField(
        max_digits=4, decimal_places=2, default=Decimal(1), validators=[MinValueValidator(Decimal(1))],
        help_text="Power usage effectiveness of the site: energy in / energy to the machines.",
    )  # fmt: skip

    class Meta:
        ordering = ["priority", "id"]
        verbose_name = "GPU pool"
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="one_gpu_pool_per_name")]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        super().save(*args, **kwargs)
        for rate in self.rates.all():  # electricity costs by the pool's PUE
            rate.pool = self
            rate.save()

    def clean(self) -> None:
        if not self.node_pattern and not self.model_pattern:
            raise ValidationError("Name the nodes or the GPU models of the pool; * is any.")
        if self.method == Method.CAPACITY and not self.capacity_tokens:
            raise ValidationError({"capacity_tokens": "Practical capacity needs to know what one GPU can do."})
        if self.method in (Method.TOKENS, Method.CAPACITY) and not (self.input_weight or self.output_weight):
            raise ValidationError("At least one kind of token must weigh something.")


class GpuRate(models.Model):
    """What one GPU of a pool costs in an hour, from - to. Where rates overlap, the one that began last counts."""

    class Kind(models.TextChoices):
        ON_DEMAND = "on_demand", "On demand"
        SPOT = "spot", "Spot"
        RESERVED = "reserved", "Reserved or committed"
        OWNED = "owned", "Owned hardware"

    id = models.AutoField(primary_key=True)
    pool = models.ForeignKey(GpuPool, on_delete=models.CASCADE, related_name="rates")
    kind = models.CharField(
        max_length=10, choices=Kind, default=Kind.ON_DEMAND,
        help_text="Reserved and owned GPUs cost money whether they are seen or not; others only while they are seen.",
    )  # fmt: skip
    valid_from = models.DateTimeField(null=True, blank=True, help_text="Empty: always has been.")
    valid_to = models.DateTimeField(null=True, blank=True, help_text="Exclusive. Empty: until further notice.")
    gpus = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1)],
        help_text="How many GPUs the figures below are for: 8 for the price of a machine with eight.",
    )  # fmt: skip
    usd_per_hour = models.DecimalField(
        max_digits=14, decimal_places=6, default=Decimal(0), validators=[_POSITIVE],
        help_text="Hourly price. Owned hardware: running costs per hour beside electricity (space, people).",
    )  # fmt: skip
    upfront_usd = models.DecimalField(
        max_digits=16, decimal_places=2, default=Decimal(0), validators=[_POSITIVE],
        help_text="Paid at the start of a reservation, or the price of owned hardware.",
    )  # fmt: skip
    residual_usd = models.DecimalField(
        max_digits=16, decimal_places=2, default=Decimal(0), validators=[_POSITIVE],
        help_text="What owned hardware is worth at the end of its life.",
    )  # fmt: skip
    term_years = models.DecimalField(
        max_digits=5, decimal_places=2, null=True, blank=True, validators=[MinValueValidator(Decimal("0.01"))],
        help_text="Term of the reservation, or life of the hardware, over which the upfront sum is spread.",
    )  # fmt: skip
    watts = models.PositiveIntegerField(default=0, help_text="Owned hardware: mean electric power.")
    usd_per_kwh = models.DecimalField(
        max_digits=8, decimal_places=5, default=Decimal(0), validators=[_POSITIVE], help_text="Electricity tariff."
    )
    source = models.CharField(max_length=200, blank=True, help_text="Where the figures come from.")
    nano_per_hour = models.BigIntegerField(editable=False, default=0, help_text="Of one GPU, worked out on saving.")

    class Meta:
        ordering = ["pool", "-valid_from", "-id"]
        verbose_name = "GPU rate"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(valid_to__gt=models.F("valid_from")) | models.Q(valid_to=None)
                | models.Q(valid_from=None),
                name="gpu_rates_end_after_they_start",
            ),
            models.CheckConstraint(
                condition=models.Q(nano_per_hour__gte=0, nano_per_hour__lte=MAX_RATE_NANO),
                name="gpu_rates_are_believable",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        since = f" from {self.valid_from:%Y-%m-%d %H:%M}" if self.valid_from else ""
        return f"{self.pool} {self.get_kind_display().lower()}{since}"

    def hourly_nano(self) -> int:
        """One GPU-hour: the hourly price, what was paid upfront spread over the term, and electricity."""
        usd = self.usd_per_hour
        if self.term_years:
            usd += (self.upfront_usd - self.residual_usd) / (self.term_years * HOURS_PER_YEAR)
        usd += Decimal(self.watts) / 1000 * self.pool.pue * self.usd_per_kwh
        return int((usd * NANO / self.gpus).quantize(Decimal(1), ROUND_HALF_UP))

    def clean(self) -> None:
        if self.upfront_usd and not self.term_years:
            raise ValidationError({"term_years": "Over how many years is the upfront sum spread?"})
        if self.residual_usd > self.upfront_usd:
            raise ValidationError({"residual_usd": "Worth more at the end than at the start?"})
        if self.pool_id and not 0 <= self.hourly_nano() <= MAX_RATE_NANO:
            raise ValidationError("One GPU-hour must cost between $0 and $10,000.")

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.nano_per_hour = self.hourly_nano()
        super().save(*args, **kwargs)

    @property
    def in_force(self) -> bool:
        now = datetime.now(UTC)
        return (self.valid_from is None or self.valid_from <= now) and (self.valid_to is None or now < self.valid_to)


class EngineMapping(models.Model):
    """Says which servers answer calls that telemetry cannot join to GPUs: a gateway, a public-looking host."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="engine_mappings")
    priority = models.IntegerField(default=100, help_text="The first mapping that fits a call decides.")
    enabled = models.BooleanField(default=True)
    host = models.CharField(
        max_length=200, blank=True, help_text="Calls to this host, for example llm.example.com:8000."
    )
    model = models.CharField(max_length=200, blank=True, help_text="... for this model, for example llama-*.")
    service = models.CharField(max_length=200, blank=True, help_text="... from this service.")
    served_model = models.CharField(max_length=200, blank=True, help_text="Run on engines that serve this model,")
    node = models.CharField(max_length=200, blank=True, help_text="on these nodes,")
    pod = models.CharField(max_length=200, blank=True, help_text="in these pods.")
    role = models.CharField(
        max_length=10, choices=roles, default=Role.BOTH.value,
        help_text="With prefill and decode on different servers, one mapping for each.",
    )  # fmt: skip

    class Meta:
        ordering = ["priority", "id"]

    def __str__(self) -> str:
        calls = " ".join(filter(None, (self.host, self.model, self.service)))
        return f"{calls} → {' '.join(filter(None, (self.served_model, self.node, self.pod)))}"

    def clean(self) -> None:
        if not (self.host or self.model or self.service):
            raise ValidationError("Say which calls are meant: by host, model or service.")
        if not (self.served_model or self.node or self.pod):
            raise ValidationError("Say where they run: by served model, node or pod.")
