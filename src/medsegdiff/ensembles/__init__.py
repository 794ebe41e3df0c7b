"""What a larger ensemble brings: Dice against the number of members, from masks that were drawn already."""
