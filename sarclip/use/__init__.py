"""The trained model in somebody's hands: a picture in, an answer out; a command line; forms in which others take it."""
