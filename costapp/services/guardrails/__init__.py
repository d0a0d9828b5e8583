"""Guardrails: ``mark`` notes who has just called, ``judge`` finds who crossed a limit and opens or ends alerts."""
