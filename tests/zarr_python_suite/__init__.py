"""zarr-python's own tests on zarrgpu's codec pipeline: a script, not a part of the test suite."""
