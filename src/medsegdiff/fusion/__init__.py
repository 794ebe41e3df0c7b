"""Several masks become one: fusers by name, STAPLE, largest expected Dice, and Dice against the number of members."""
