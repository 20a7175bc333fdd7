"""One module for each file format that a source comes in: how it is read, and how generated data is written in it."""
