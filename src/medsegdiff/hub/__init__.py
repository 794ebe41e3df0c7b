"""Models by name: a folder, a model of an installed package, one of the Hugging Face hub; what their cards tell."""
