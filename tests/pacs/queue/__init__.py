"""Tests of `pacs/queue`."""
