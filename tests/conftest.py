"""Settings for the whole test-suite."""

from hypothesis import settings

# Drawn tests find the same examples on every machine; `make deep` draws new ones.
settings.register_profile("diffc", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("deep", deadline=None, max_examples=2000)
settings.load_profile("diffc")
