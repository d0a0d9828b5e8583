import pytest
from django.db import connection

from costapp.core.pricing import RateBook
from costapp.services.import_prices import import_catalogue
from costapp.storage.rates import load_catalogue


@pytest.fixture(scope="session")
def catalogue_book(django_db_setup: None, django_db_blocker: object) -> RateBook:
    """The whole catalogue of the installed package, through the database and back, rolled back at once."""
    from django.db import transaction

    with django_db_blocker.unblock(), transaction.atomic():  # type: ignore[attr-defined]
        import_catalogue()
        catalogue = load_catalogue(connection.connection)
        transaction.set_rollback(True)
    return RateBook((), names=catalogue.names, catalogue=catalogue.rate_sets)
