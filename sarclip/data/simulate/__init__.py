"""Simulated SAR data, from the point-spread function up to datasets in their owners' file formats."""
