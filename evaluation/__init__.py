"""Judges any samples file against a reference: statistics, comparison, report."""
