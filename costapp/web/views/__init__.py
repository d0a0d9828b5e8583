"""One module per page. A view parses, asks storage.reports, and shapes the answer; it decides no number."""
