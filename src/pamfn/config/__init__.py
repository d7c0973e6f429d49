"""The configuration: its schema, how Hydra composes it, how it is checked. Nothing here imports torch."""
