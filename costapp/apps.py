import importlib

from django.apps import AppConfig


class CostappConfig(AppConfig):
    name = "costapp"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        importlib.import_module("costapp.receivers")
