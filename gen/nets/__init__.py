"""Networks in two and three dimensions from one code."""
