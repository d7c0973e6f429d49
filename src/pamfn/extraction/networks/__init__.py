"""The pretrained networks, under the names that their published weights have."""
