"""Faults on purpose: kills, signals, full disks and worse, each followed by the same command again (`make faults`)."""
