"""Train, record, reopen and explain networks: what the commands do with one configuration."""
