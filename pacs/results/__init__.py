"""Turns the findings of a study into a Secondary Capture, a structured report and a FHIR report."""
