"""The image, the compose file and what docker/README.md says, with a real docker engine.

Where none runs, one is started for the time of the tests, from Debian's packages and as root. The
tests that need it are marked ``docker``: ``make test PYTEST_FLAGS='-m "not docker"'`` leaves them
out. Where no engine can run they are skipped, with the reason.
"""
