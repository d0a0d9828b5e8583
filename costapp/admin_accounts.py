"""Accounts and groups of the installation, for superusers: Django's own pages, with the audit log."""

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User

from costapp.admin_audit import Audited

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class AccountAdmin(Audited, UserAdmin):
    pass


@admin.register(Group)
class AccountGroupAdmin(Audited, GroupAdmin):
    pass
