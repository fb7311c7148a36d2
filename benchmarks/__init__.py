"""What the middlewares cost, beside upstream's and beside none."""
