"""Run folders: what names one, where it is, what is in it. Nothing here imports torch."""
