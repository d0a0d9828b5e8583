"""E-mail through Django's mail settings: text and HTML, no pictures, no header from a name unchecked."""

import smtplib
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.template.loader import render_to_string

from costapp.core.alerts import cut
from costapp.services.channels.message import Message, Outcome, broken, later, rejected, sent

LIMIT_S = 10
SUBJECT_LENGTH = 200


def send(config: dict[str, Any], secret: dict[str, str], message: Message) -> Outcome:
    if not settings.EMAIL_HOST:
        return later("No mail server is set: COSTAPP_EMAIL_HOST.")
    try:
        build(config["to"], message).send()
    except smtplib.SMTPRecipientsRefused as refused:
        return _refused([code for code, _ in refused.recipients.values()])
    except smtplib.SMTPAuthenticationError:
        return later("The mail server refuses Costapp's user name or password (COSTAPP_EMAIL_USER).")
    except smtplib.SMTPSenderRefused as error:
        return later(f"The mail server refuses the sender address ({error.smtp_code}, COSTAPP_EMAIL_FROM).")
    except smtplib.SMTPResponseException as error:
        words = f"The mail server answered {error.smtp_code}."
        return rejected(words) if error.smtp_code >= 500 else later(words)
    except (smtplib.SMTPException, OSError):
        return later("The mail server cannot be reached, or broke off.")
    return sent("The mail server took it.")


def _refused(codes: list[int]) -> Outcome:
    words = f"The mail server refuses the recipients ({', '.join(map(str, sorted(set(codes))))})."
    return broken(words) if min(codes) >= 500 else later(words)


def build(recipients: list[str], message: Message) -> EmailMultiAlternatives:
    site = urlsplit(settings.PUBLIC_URL).hostname or "costapp"
    context = {"message": message}
    mail = EmailMultiAlternatives(
        subject=cut(f"[Costapp] {one_line(message.heading)}", SUBJECT_LENGTH),
        body=render_to_string("messages/mail.txt", context),
        from_email=settings.DEFAULT_FROM_EMAIL,
        to=recipients,
        connection=get_connection(timeout=LIMIT_S),
        headers={
            # the same on every attempt, so that mail programs show a repeated one once
            "Message-ID": f"<{message.dedupe_key}@{site}>",
            "X-Costapp-Key": message.dedupe_key,
            "Auto-Submitted": "auto-generated",
        },
    )
    mail.attach_alternative(render_to_string("messages/mail.html", context), "text/html")
    return mail


def one_line(text: str) -> str:
    """Names come from senders of spans: no line break of theirs becomes a header."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
