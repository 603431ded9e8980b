"""Why it said that: the numbers behind a caption, and the pages and figures that show them."""
