"""Run folders: what names one, where it is, what is in it, where it was made."""
