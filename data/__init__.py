"""Data commands: download, import, check and build data sets, and generate synthetic ones."""
