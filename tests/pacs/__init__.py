"""Tests of what a hospital's archive is given and asked for."""
