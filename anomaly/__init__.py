"""Anomalies: which hours of a series are odd, how odd, of which kind, and what drove them.

Pure: values in, values out. No Django, no database, no clock, no files; NumPy, pandas and scikit-learn only. The same
code runs in the product (every few minutes, over all series) and under the scorer of `benchmarks/anomaly`.

What is in it, and how it was chosen: docs/anomalies.md.
"""
