"""What all tests share."""

from hypothesis import settings

# A machine that others use as well is now and then slow.
settings.register_profile("suite", settings(deadline=None))
settings.load_profile("suite")
