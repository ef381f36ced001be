"""PACS integration: a DICOMweb client, a durable queue of studies, and the results that go to an archive."""
