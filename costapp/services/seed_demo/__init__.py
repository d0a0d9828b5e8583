"""The invented company behind `make demo`: its features, its days as spans, and how they get in."""
