"""Addresses of the pages. Everything about a project is below /p/<slug>/ and guarded by ``project_page``."""

from django.urls import path, re_path

from costapp.storage.reports.dimensions import DIMENSIONS
from costapp.web.views import (
    accounts,
    alerts,
    anomalies,
    budgets,
    calls,
    connect,
    drill,
    gpus,
    health,
    overview,
    rules,
    traces,
    what_changed,
)

dimension = "|".join(key for key in DIMENSIONS if key != "session")

urlpatterns = [
    path("", accounts.home, name="home"),
    path("sign-in/", accounts.sign_in, name="sign-in"),
    path("sign-out/", accounts.sign_out, name="sign-out"),
    path("p/<slug:slug>/", overview.overview, name="overview"),
    path("p/<slug:slug>/calls/", calls.calls, name="calls"),
    path("p/<slug:slug>/session/", traces.session, name="session"),
    path("p/<slug:slug>/trace/<str:trace>/", traces.trace, name="trace"),
    path("p/<slug:slug>/trace/<str:trace>/<str:span>/", traces.call, name="call"),
    path("p/<slug:slug>/budgets/", budgets.budgets, name="budgets"),
    path("p/<slug:slug>/alerts/", alerts.alerts, name="alerts"),
    path("p/<slug:slug>/alerts/<int:alert_id>/", alerts.alert, name="alert"),
    path("p/<slug:slug>/alerts/<int:alert_id>/acknowledge/", alerts.acknowledge, name="acknowledge"),
    path("p/<slug:slug>/alerts/<int:alert_id>/snooze/", alerts.snooze, name="snooze"),
    path("p/<slug:slug>/alerts/<int:alert_id>/lift/", alerts.lift_block, name="lift-block"),
    path("p/<slug:slug>/alerts/rules/new/", rules.new_rule, name="new-rule"),
    path("p/<slug:slug>/alerts/rules/preview/", rules.rule_preview, name="rule-preview"),
    path("p/<slug:slug>/alerts/rules/<int:rule_id>/", rules.edit_rule, name="edit-rule"),
    path("p/<slug:slug>/alerts/rules/<int:rule_id>/switch/", rules.switch_rule, name="switch-rule"),
    path("p/<slug:slug>/alerts/rules/<int:rule_id>/delete/", rules.delete_rule, name="delete-rule"),
    path("p/<slug:slug>/anomalies/", anomalies.anomalies, name="anomalies"),
    path("p/<slug:slug>/anomalies/<int:anomaly_id>/judge/", anomalies.judge, name="judge-anomaly"),
    path("p/<slug:slug>/what-changed/", what_changed.what_changed, name="what-changed"),
    path("p/<slug:slug>/gpus/", gpus.gpu_page, name="gpus"),
    path("p/<slug:slug>/health/", health.health, name="health"),
    path("p/<slug:slug>/connect/", connect.connect, name="connect"),
    path("p/<slug:slug>/connect/waiting/", connect.waiting, name="waiting"),
    path("p/<slug:slug>/connect/keys/", connect.new_key, name="new-key"),
    path("p/<slug:slug>/connect/keys/<int:key_id>/revoke/", connect.revoke_key, name="revoke-key"),
    re_path(rf"^p/(?P<slug>[-\w]+)/(?P<dimension>{dimension})/$", drill.drill, name="drill"),
]
