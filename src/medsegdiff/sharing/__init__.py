"""Giving a model away: its files with hashes, a card and a licence; for the Hugging Face hub, or as a MONAI bundle."""
