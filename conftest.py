"""Loaded by every run of pytest here: nbval compares outputs as tools/compare_outputs.py says."""

pytest_plugins = ["tools.compare_outputs"]
