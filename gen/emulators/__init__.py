"""Laws of random fields given parameters, in physical units."""
