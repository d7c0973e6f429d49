"""What all commands share: how one begins and ends, and options that several have."""
