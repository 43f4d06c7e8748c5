"""The report of an annotated slide: facts, pictures, and the page that shows them."""
