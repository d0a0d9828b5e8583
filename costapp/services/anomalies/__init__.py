"""Anomalies in the product: series to odd series to stories with a cause, kept in step with the sums."""
