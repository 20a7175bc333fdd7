"""What every other package stands on: files written whole or not at all, records, problems, settings, and the machine at hand."""
