"""Signals of Django that lead to the audit log: who came, who went, and who was not let in."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.dispatch import receiver
from django.http import HttpRequest

from costapp.services.audit import Action, record

NO_ACCOUNT = "(no such account)"


def _address(request: HttpRequest | None) -> str:
    return request.META.get("REMOTE_ADDR", "") if request else ""


@receiver(user_logged_in)
def signed_in(sender: Any, user: Any, request: HttpRequest | None = None, **kwargs: Any) -> None:
    record(None, user, Action.SIGNED_IN, None, None, None, address=_address(request))


@receiver(user_logged_out)
def signed_out(sender: Any, user: Any, request: HttpRequest | None = None, **kwargs: Any) -> None:
    if user is not None:
        record(None, user, Action.SIGNED_OUT, None, None, None, address=_address(request))


@receiver(user_login_failed)
def sign_in_failed(sender: Any, credentials: Any, request: HttpRequest | None = None, **kwargs: Any) -> None:
    """The account that was tried, if it exists: what else is typed there is at times a password."""
    name = str(credentials.get("username", "")).replace("\x00", "")
    known = get_user_model().objects.filter(username__iexact=name).exists()
    record(None, name if known else NO_ACCOUNT, Action.SIGN_IN_FAILED, None, None, None, address=_address(request))
