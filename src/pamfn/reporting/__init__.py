"""Sweeps, tables, figures and reports of finished runs."""
