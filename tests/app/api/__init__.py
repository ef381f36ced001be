"""Tests of `app/api`."""
