"""Benchmarks: measured by hand or by `make bench`, never in tests."""
