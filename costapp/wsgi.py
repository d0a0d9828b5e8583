"""The web process: ``granian --interface wsgi costapp.wsgi:application``."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "costapp.settings")
# What pages need and jobs do not: shared connections, and no query that outlives the reader's patience.
os.environ.setdefault("COSTAPP_DB_POOL_SIZE", "8")
os.environ.setdefault("COSTAPP_STATEMENT_TIMEOUT_S", "15")

from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

from costapp import env

if not env.text("COSTAPP_SECRET_KEY"):
    raise ImproperlyConfigured("COSTAPP_SECRET_KEY is not set: sessions and sign-in need a long random secret.")
application = get_wsgi_application()
