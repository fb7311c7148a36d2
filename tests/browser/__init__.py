"""A real Chromium in front: `make test-browser`."""
