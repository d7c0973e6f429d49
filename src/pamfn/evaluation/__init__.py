"""Metrics, the choice of epochs, intervals and figures of finished runs."""
