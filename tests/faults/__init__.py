"""Faults that runs meet, tried on real processes, files and disks.

`python -m tests.faults` tries all of them and writes docs/RELIABILITY.md; tests/test_faults.py
tries some.
"""
