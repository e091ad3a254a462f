"""Students out: files that the original software runs, graphs that need no imfbench, and what is to be known of them."""
