"""Documentation: pages by hand, and what makes a site of them."""
