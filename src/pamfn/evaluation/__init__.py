"""Metrics, protocols and figures of finished runs."""
