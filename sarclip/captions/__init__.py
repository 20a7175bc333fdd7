"""From records to image-text pairs: facts and the templates that render them, proofreading, the built tables and the forms in which others read them."""
