"""From archives to records: the manifest of datasets, fetching, formats and their readers, pixels and tone, simulated data, and the audit of leaked images."""
