"""The study as a whole: one run of one notebook, its tables and pictures, and the report."""
