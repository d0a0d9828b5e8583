"""The form of an alert rule: the sentence it makes, what it would have told, and saving it."""

from typing import Any, NamedTuple

from django.contrib import messages
from django.db import DatabaseError, transaction
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from costapp.core.alert_metrics import amount_text
from costapp.core.alert_rules import Severity, threshold_unit
from costapp.core.alert_sentences import Wording, rule_sentence
from costapp.core.alert_windows import start_of
from costapp.models import AlertRule
from costapp.rule_form import RuleForm
from costapp.services.audit import Action, snapshot
from costapp.services.preview_rule import Firing, Preview, preview
from costapp.services.rule_telling import LABELS, page_path, subject_name
from costapp.web.access import Role, Visit, project_page
from costapp.web.page import frame, show
from costapp.web.rule_chart import rule_figure
from costapp.web.suggested_rules import SUGGESTIONS

MOST_RULES = 1000
#: The preview gives up after this long, and says so.
PREVIEW_MS = 3000
FIRINGS_SHOWN = 12


class Told(NamedTuple):
    """One alert of the preview, for its table."""

    firing: Firing
    name: str
    level: str
    href: str


@project_page(Role.OWNER)
def new_rule(visit: Visit) -> HttpResponse:
    suggestion = SUGGESTIONS.get(visit.request.GET.get("use", ""))
    rule = AlertRule(project=visit.project, **(suggestion.values if suggestion else {}))
    return _edit(visit, rule)


@project_page(Role.OWNER)
def edit_rule(visit: Visit, rule_id: int) -> HttpResponse:
    return _edit(visit, _rule_of(visit, rule_id))


def _rule_of(visit: Visit, rule_id: int) -> AlertRule:
    rule = visit.project.alert_rules.filter(pk=rule_id).first()
    if rule is None:
        raise Http404
    return rule


def _edit(visit: Visit, rule: AlertRule) -> HttpResponse:
    request = visit.request
    before = snapshot(rule) if rule.pk else None
    if request.method != "POST":
        initial = {} if rule.pk else {"channels": [c.pk for c in visit.project.channels.filter(enabled=True)]}
        return _show(visit, RuleForm(visit.project, instance=rule, initial=initial))
    form = RuleForm(visit.project, request.POST, instance=rule)
    if request.POST.get("do") == "preview" or not form.is_valid():
        return _show(visit, form, status=200 if form.is_valid() else 422)
    if not rule.pk and visit.project.alert_rules.count() >= MOST_RULES:
        form.add_error(None, f"A project can have {MOST_RULES:,} rules. Delete one that is no longer needed.")
        return _show(visit, form, status=422)
    with transaction.atomic():
        saved = form.save()
        visit.audit(Action.CHANGED if before else Action.CREATED, saved, before=before, after=snapshot(saved))
    messages.success(request, f"The rule {saved.name} is saved. It is judged within a minute.")
    return redirect("alerts", slug=visit.project.slug)


@require_POST
@project_page(Role.OWNER)
def rule_preview(visit: Visit) -> HttpResponse:
    """The sentence and the preview alone, while the form is filled in."""
    form = RuleForm(visit.project, visit.request.POST, instance=AlertRule(project=visit.project))
    del form.fields["name"]  # what it is called changes nothing
    return show(
        visit,
        "parts/rule_preview.html",
        {"visit": visit, "form": form, "is_part": True, **_preview_context(visit, form)},
    )


@require_POST
@project_page(Role.OWNER)
def switch_rule(visit: Visit, rule_id: int) -> HttpResponse:
    with transaction.atomic():
        rule = _rule_of(visit, rule_id)
        before = snapshot(rule)
        rule.enabled = not rule.enabled
        rule.save(update_fields=["enabled", "changed_at"])
        visit.audit(Action.CHANGED, rule, before=before, after=snapshot(rule))
    return HttpResponseRedirect(reverse("alerts", kwargs={"slug": visit.project.slug}) + "#rules")


@require_POST
@project_page(Role.OWNER)
def delete_rule(visit: Visit, rule_id: int) -> HttpResponse:
    with transaction.atomic():
        rule = _rule_of(visit, rule_id)
        visit.audit(Action.DELETED, rule, before=snapshot(rule), after=None)
        rule.delete()
    messages.success(visit.request, f"The rule {rule.name} is deleted. Its open alerts end within a minute.")
    return redirect("alerts", slug=visit.project.slug)


def _show(visit: Visit, form: RuleForm, *, status: int = 200) -> HttpResponse:
    rule = form.instance
    suggestion_keys = [] if rule.pk else list(SUGGESTIONS.values())
    context = frame(
        visit,
        None,
        nav="alerts",
        title=rule.name if rule.pk else "New rule",
        form=form,
        rule=rule,
        suggestions=suggestion_keys,
        **_preview_context(visit, form),
    )
    return show(visit, "rule.html", context, status=status)


def _preview_context(visit: Visit, form: RuleForm) -> dict[str, Any]:
    """Sentence, counts, chart and table; {} as long as the form says nothing that could be replayed."""
    rule = form.instance
    if form.is_bound:
        if not form.is_valid():
            return {"problems": _problems(form)}
    elif rule.warning is None and rule.critical is None:
        return {}
    else:
        rule = AlertRule(**{f.attname: f.to_python(getattr(rule, f.attname)) for f in rule._meta.concrete_fields})
        rule.project = visit.project
    wording = rule.wording(LABELS)
    try:
        found = _limited(visit, rule)
    except DatabaseError:
        return {"sentence": rule_sentence(wording), "too_much": True}
    return {"sentence": rule_sentence(wording), **_preview_words(visit, rule, wording, found)}


def _problems(form: RuleForm) -> list[str]:
    return [
        str(text) if name == "__all__" else f"{form.fields[name].label or name}: {text}"
        for name, texts in form.errors.items()
        for text in texts
    ]


def _limited(visit: Visit, rule: AlertRule) -> Preview:
    with transaction.atomic():
        visit.conn.execute(f"set local statement_timeout = {PREVIEW_MS}".encode())
        return preview(visit.conn, visit.project, rule, visit.now)


def _preview_words(visit: Visit, rule: AlertRule, wording: Wording, found: Preview) -> dict[str, Any]:
    line = found.lines.get(found.now, [])
    last = next((point.measure for point in reversed(line) if point.measure is not None), None)
    told = [_told(visit, rule, firing) for firing in reversed(found.firings[-FIRINGS_SHOWN:])]
    return {
        "found": found,
        "critical_count": sum(firing.severity is Severity.CRITICAL for firing in found.firings),
        "subjects_hit": len({firing.subject for firing in found.firings}),
        "told": told,
        "hidden_firings": len(found.firings) - len(told),
        "shown_name": subject_name(rule.by, found.now),
        "last_words": amount_text(last, threshold_unit(rule.the_metric, rule.the_condition)),
        "beyond": max(0, found.subjects - len(found.lines)),
        "plural": f"{wording.by}s" if wording.by else "",
        "figure": rule_figure(rule, wording, found, visit.zone) if line else None,
    }


def _told(visit: Visit, rule: AlertRule, firing: Firing) -> Told:
    start = start_of(firing.opened_at, rule.the_window, visit.project.time_zone)
    href = page_path(visit.project.slug, rule, firing.subject, start, firing.opened_at)
    level = "bad" if firing.severity is Severity.CRITICAL else "warn"
    return Told(firing, subject_name(rule.by, firing.subject), level, href)
