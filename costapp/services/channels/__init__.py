"""How each kind of channel sends. A new kind is a module here, a line in ``SENDERS`` and its fields in the admin."""

from collections.abc import Callable, Mapping
from typing import Any

from costapp.models import Channel
from costapp.services.channels import apprise_channel, mail, slack, webhook
from costapp.services.channels.message import Message, Outcome

Sender = Callable[[dict[str, Any], dict[str, str], Message], Outcome]

SENDERS: Mapping[str, Sender] = {
    Channel.Kind.SLACK_WEBHOOK: slack.send_webhook,
    Channel.Kind.SLACK_BOT: slack.send_bot,
    Channel.Kind.EMAIL: mail.send,
    Channel.Kind.WEBHOOK: webhook.send,
    Channel.Kind.APPRISE: apprise_channel.send,
}
