"""The agreement of two codings as a command, tables for a paper and a page."""
