"""Tests of `app/hospital`."""
