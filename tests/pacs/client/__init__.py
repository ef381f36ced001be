"""Tests of `pacs/client`."""
