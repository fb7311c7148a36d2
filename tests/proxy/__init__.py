"""A real nginx in front: `make test-proxy`."""
