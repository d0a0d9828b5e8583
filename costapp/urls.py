"""All URLs. Pages are in costapp.web."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("costapp.web.urls")),
]
