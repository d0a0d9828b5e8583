"""What every template knows besides its own page."""

from django.http import HttpRequest

from costapp import __version__

THEMES = ("light", "dark")


def site(request: HttpRequest) -> dict[str, object]:
    """The theme is in a cookie so that the first byte of a page already has the right colours."""
    theme = request.COOKIES.get("theme", "")
    return {"theme": theme if theme in THEMES else "", "version": __version__}
