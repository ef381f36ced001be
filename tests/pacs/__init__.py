"""Tests of `pacs`."""
