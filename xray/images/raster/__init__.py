"""Decodes PNG and JPEG files."""
