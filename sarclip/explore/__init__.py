"""Looking at features: maps, search by words or by example, similarity inside an image, and the page that shows them."""
