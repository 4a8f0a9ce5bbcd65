"""How all tests run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine is no failure: no test of ours says how long an example may take.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
