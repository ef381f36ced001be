"""Tests of `app/inference`."""
