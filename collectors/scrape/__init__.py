"""Scraping Prometheus text endpoints that people listed in the admin.

targets (what to scrape: a URL, a file, a name) -> fetch (the guarded request) -> collectors.gpu.text -> the writer that
all doors share. `scraper` runs it: one process of an installation, chosen by a lock in the database.
"""
