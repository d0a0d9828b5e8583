"""Channels, silences and the delivery log in the admin. Secrets go in and never come out again."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import connection, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from costapp.admin_audit import Audited
from costapp.admin_scope import ProjectScoped
from costapp.core.targets import Refused
from costapp.models import Channel, Notification, Silence
from costapp.services import outgoing, sealed
from costapp.services.audit import Action
from costapp.services.channels import apprise_channel
from costapp.services.channels.message import Result
from costapp.services.deliver import open_secret, repaired
from costapp.services.try_channel import send_test
from costapp.storage.notifications import recheck_silenced
from costapp.storage.reports.dimensions import DIMENSIONS

MOST_RECIPIENTS = 20
#: What alerts may be about.
ABOUT = (*DIMENSIONS, "trace")


class SecretField(forms.CharField):
    """Typed once: never shown again, and kept when left empty later."""

    widget = forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password", "class": "vTextField"})

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", 2000)
        super().__init__(**kwargs)


class ChannelForm(forms.ModelForm):
    """What every kind has. A kind's own form names its secrets and what else it needs."""

    secrets: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[tuple[str, ...]] = ()  # fields kept in ``config``

    class Meta:
        model = Channel
        fields = ("project", "name", "enabled", "least_level", "digest", "digest_hour")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self.settings:
            self.initial.setdefault(name, self.shown(name, self.instance.config.get(name, "")))
        for name in self.secrets:
            if self.instance.pk and self.instance.secret:
                self.fields[name].required = False
                self.fields[name].help_text += " Stored encrypted. Leave empty to keep it."

    def shown(self, name: str, value: Any) -> Any:
        return value

    def clean(self) -> dict[str, Any] | None:
        found = super().clean()
        if self.secrets and not self.errors and any(self.cleaned_data[name] for name in self.secrets):
            self._seal()
        self.instance.config = {name: self.cleaned_data.get(name) for name in self.settings}
        return found

    def _seal(self) -> None:
        """Secrets that were left empty stay what they were."""
        try:
            kept = {} if all(self.cleaned_data[name] for name in self.secrets) else open_secret(self.instance)
            given = {name: self.cleaned_data[name] for name in self.secrets if self.cleaned_data[name]}
            key_id, secret = sealed.seal(kept | given, str(self.instance.seal_id))
        except (sealed.CannotSeal, sealed.CannotOpen) as problem:
            raise ValidationError(str(problem)) from None
        self.instance.key_id, self.instance.secret = key_id, secret

    def checked_url(self, name: str) -> str:
        url: str = self.cleaned_data[name]
        if url:
            try:
                outgoing.check(url)
            except (Refused, outgoing.Unreachable) as problem:
                raise ValidationError(str(problem)) from None
        return url


class SlackWebhookForm(ChannelForm):
    secrets = ("url",)
    url = SecretField(
        label="Webhook address",
        help_text="From the app's page at api.slack.com, under Incoming Webhooks: https://hooks.slack.com/services/…",
    )

    def clean_url(self) -> str:
        return self.checked_url("url")


class SlackBotForm(ChannelForm):
    secrets = ("token",)
    settings = ("channel",)
    token = SecretField(label="Bot token", help_text="Begins with xoxb-. The app needs the scope chat:write.")
    channel = forms.CharField(
        label="Slack channel", max_length=100, help_text="#name or id such as C0123456789. Invite the bot to it."
    )

    def clean_token(self) -> str:
        token: str = self.cleaned_data["token"]
        if token and not token.startswith("xoxb-"):
            raise ValidationError("A bot token begins with xoxb-. This looks like another kind of secret.")
        return token


class EmailForm(ChannelForm):
    settings = ("to",)
    to = forms.CharField(
        label="Recipients", widget=forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        help_text=f"E-mail addresses, one per line or separated by commas, {MOST_RECIPIENTS} at most.",
    )  # fmt: skip

    def shown(self, name: str, value: Any) -> Any:
        return "\n".join(value)

    def clean_to(self) -> list[str]:
        addresses = list(dict.fromkeys(self.cleaned_data["to"].replace(",", "\n").split()))
        for address in addresses:
            try:
                validate_email(address)
            except ValidationError:
                raise ValidationError(f"{address!r} is not an e-mail address.") from None
        if len(addresses) > MOST_RECIPIENTS:
            raise ValidationError(f"A channel has {MOST_RECIPIENTS} recipients at most: use a mailing list.")
        return addresses


class WebhookForm(ChannelForm):
    secrets = ("url", "signing_key")
    url = SecretField(label="Address", help_text="https://… that takes a POST with JSON.")
    signing_key = SecretField(
        label="Signing key", min_length=16,
        help_text="At least 16 characters, for example what <code>openssl rand -hex 32</code> prints. "
        "The receiver verifies with it.",
    )  # fmt: skip

    def clean_url(self) -> str:
        return self.checked_url("url")


class AppriseForm(ChannelForm):
    secrets = ("url",)
    url = SecretField(
        label="Apprise address",
        help_text="For example pagerduty://… or discord://…; appriseit.com/services says what yours looks like. "
        f"Allowed: {', '.join(sorted(apprise_channel.SERVICES))}.",
    )

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        if url:
            try:
                apprise_channel.check(url)
            except apprise_channel.NotAllowed as problem:
                raise ValidationError(str(problem)) from None
        return url


FORMS: dict[str, type[ChannelForm]] = {
    Channel.Kind.SLACK_WEBHOOK: SlackWebhookForm,
    Channel.Kind.SLACK_BOT: SlackBotForm,
    Channel.Kind.EMAIL: EmailForm,
    Channel.Kind.WEBHOOK: WebhookForm,
    Channel.Kind.APPRISE: AppriseForm,
}


@admin.register(Channel)
class ChannelAdmin(Audited, ProjectScoped):
    list_display = ("name", "kind", "project", "works", "least_level", "digest")
    list_filter = ("kind", "enabled", ("disabled_reason", admin.EmptyFieldListFilter), "project")
    list_select_related = ("project",)
    search_fields = ("name", "project__name")
    search_help_text = "Searches names of channels and projects."
    change_form_template = "admin/channel.html"

    @admin.display(description="state")
    def works(self, channel: Channel) -> str:
        if channel.disabled_reason:
            return format_html("<b>Switched off:</b> {}", channel.disabled_reason)
        return "On" if channel.enabled else "Off by hand"

    # --- the form of its kind

    def _kind(self, request: HttpRequest, obj: Channel | None) -> str:
        kind = obj.kind if obj else request.GET.get("kind", "")
        return kind if kind in FORMS else ""

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self._kind(request, None) and self.has_add_permission(request):
            context = {**self.admin_site.each_context(request), "title": "Add channel", "opts": self.opts,
                       "kinds": Channel.Kind.choices}  # fmt: skip
            return TemplateResponse(request, "admin/channel_kinds.html", context)
        return super().add_view(request, form_url, extra_context)

    def get_form(self, request: HttpRequest, obj: Channel | None = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["form"] = FORMS.get(self._kind(request, obj), ChannelForm)
        return super().get_form(request, obj, change, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Channel | None = None) -> Any:
        form = FORMS.get(self._kind(request, obj), ChannelForm)
        label = dict(Channel.Kind.choices).get(self._kind(request, obj), "Channel")
        state = ("state_in_words",) if obj else ()
        return (
            (None, {"fields": (*state, "project", "name", "enabled")}),
            (label, {"fields": (*form.settings, *form.secrets)}),
            ("What it gets", {"fields": ("least_level", "digest", "digest_hour")}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Channel | None = None) -> Any:
        return ("project", "state_in_words") if obj else ()

    @admin.display(description="state")
    def state_in_words(self, channel: Channel) -> str:
        return self.works(channel)

    def save_model(self, request: HttpRequest, obj: Channel, form: Any, change: bool) -> None:
        if not change:
            obj.kind = self._kind(request, None)
        was_off = bool(obj.disabled_reason) and bool({*form.secrets, *form.settings} & set(form.changed_data))
        if was_off:
            obj.disabled_reason, obj.disabled_at = "", None
        super().save_model(request, obj, form, change)
        if was_off or (change and "enabled" in form.changed_data and obj.enabled):
            connection.ensure_connection()
            repaired(connection.connection, obj, timezone.now())

    # --- buttons

    def get_urls(self) -> list[URLPattern]:
        return [
            path("<int:pk>/test/", self.admin_site.admin_view(require_POST(self.test_view)), name="channel_test"),
            path("<int:pk>/switch-on/", self.admin_site.admin_view(require_POST(self.on_view)), name="channel_on"),
            *super().get_urls(),
        ]

    def _own(self, request: HttpRequest, pk: int) -> Channel:
        channel: Channel = get_object_or_404(self.get_queryset(request).select_related("project"), pk=pk)
        if not self.has_change_permission(request, channel):
            return get_object_or_404(Channel.objects.none())
        return channel

    def test_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        channel = self._own(request, pk)
        connection.ensure_connection()
        outcome = send_test(connection.connection, channel, request.user.get_username(), timezone.now())
        if outcome.result is Result.SENT:
            self.message_user(request, f"The test message was sent. {outcome.words}", messages.SUCCESS)
        else:
            self.message_user(request, f"The test message was not sent. {outcome.words}", messages.ERROR)
        return HttpResponseRedirect(reverse("admin:costapp_channel_change", args=(pk,)))

    def on_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        channel = self._own(request, pk)
        with transaction.atomic():
            self.audited_update(
                request,
                Channel.objects.filter(pk=pk),
                Action.CHANGED,
                disabled_reason="",
                disabled_at=None,
                enabled=True,
            )
            repaired(connection.connection, channel, timezone.now())
        self.message_user(request, f"{channel} is on. What waits is sent now.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:costapp_channel_change", args=(pk,)))


class SilenceForm(forms.ModelForm):
    """What it is about as two fields; the model keeps an object."""

    about = forms.ChoiceField(
        required=False, label="About", choices=[("", "Whatever it is about"), *((name, name) for name in ABOUT)]
    )
    value = forms.CharField(
        required=False, max_length=500, help_text="Exactly as pages show it, for example support-bot."
    )

    class Meta:
        model = Silence
        fields = ("project", "reason", "starts_at", "ends_at", "source", "source_id", "level", "group_key")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, value in list(self.instance.subject.items())[:1]:
            self.initial |= {"about": name, "value": value}

    def clean(self) -> dict[str, Any] | None:
        found = super().clean()
        about, value = self.cleaned_data.get("about"), self.cleaned_data.get("value")
        if bool(about) != bool(value):
            raise ValidationError({"value": "Choose what it is about and name it, or leave both empty."})
        if {"about", "value"} & set(self.changed_data) or not self.instance.pk:
            self.instance.subject = {about: value} if about else {}
        return found


@admin.register(Silence)
class SilenceAdmin(Audited, ProjectScoped):
    form = SilenceForm
    list_display = ("reason", "project", "starts_at", "ends_at", "source", "level", "subject", "created_by")
    list_filter = ("source", "ends_at", "project")
    list_select_related = ("project",)
    search_fields = ("reason", "created_by", "group_key")
    search_help_text = "Searches reasons, who made it, and groups."
    date_hierarchy = "starts_at"
    fieldsets = (
        (None, {"fields": ("project", "reason", "starts_at", "ends_at"),
                "description": "Matching alerts are recorded and shown, but not sent. What is still open at the end is "
                "sent then. A planned one is a maintenance window."}),
        ("Only some alerts", {"fields": ("about", "value", "source", "source_id", "level", "group_key")}),
    )  # fmt: skip

    def save_model(self, request: HttpRequest, obj: Silence, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = request.user.get_username()
        super().save_model(request, obj, form, change)
        self._recheck(obj.project_id)

    def delete_model(self, request: HttpRequest, obj: Silence) -> None:
        super().delete_model(request, obj)
        self._recheck(obj.project_id)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Silence]) -> None:
        project_ids = list(queryset.values_list("project_id", flat=True).distinct())
        super().delete_queryset(request, queryset)
        for project_id in project_ids:
            self._recheck(project_id)

    def _recheck(self, project_id: int) -> None:
        connection.ensure_connection()
        recheck_silenced(connection.connection, project_id, timezone.now())


@admin.register(Notification)
class NotificationAdmin(ProjectScoped):
    """The delivery log: read only, for everybody."""

    list_display = ("created_at", "channel", "state", "what_happened", "event", "attempts", "project")
    list_display_links = ("created_at",)
    list_filter = ("state", "created_at", "channel", "project")
    list_select_related = ("project", "channel")
    list_per_page = 50
    search_fields = ("dedupe_key", "last_error", "reason")
    search_help_text = "Searches keys of alerts, errors and reasons."
    show_full_result_count = False

    @admin.display(description="about")
    def event(self, row: Notification) -> str:
        return "Test message" if row.dedupe_key.startswith("test/") else row.dedupe_key

    @admin.display(description="what happened")
    def what_happened(self, row: Notification) -> str:
        return row.reason or row.last_error or row.answer

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Notification | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Notification | None = None) -> bool:
        return False
