"""A server under load, and what is left of it: `make soak`."""
