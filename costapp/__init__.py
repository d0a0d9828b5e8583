"""Costapp: what every AI feature costs, per request, user and session, while it happens.

Kept light on purpose: ``collectors`` import ``costapp.core`` and ``costapp.storage`` without Django.
"""

__version__ = "0.1.0"
