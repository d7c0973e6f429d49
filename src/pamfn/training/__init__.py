"""LightningModules, callbacks and loggers."""
