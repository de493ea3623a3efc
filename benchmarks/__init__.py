"""Benchmarks for users: each prints tables, and one line of JSON at the end."""
