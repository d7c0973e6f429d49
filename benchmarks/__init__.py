"""What the library costs in time and memory, measured against a plain reference."""
