"""Tests of `pacs/results`."""
