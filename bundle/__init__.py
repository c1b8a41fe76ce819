"""Build the relocatable bundle: `scripts/bundle` runs this, and says what it needs and makes."""
