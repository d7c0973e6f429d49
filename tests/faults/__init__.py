"""Campaigns of faults: what can go wrong around a training is made to go wrong, and what comes out is compared."""
