"""Several masks become one: fusers by name, STAPLE, packed votes, and Dice against the number of members."""
