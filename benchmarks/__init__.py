"""Benchmarks that a user can run: each prints a table, and one line of JSON at the end."""
