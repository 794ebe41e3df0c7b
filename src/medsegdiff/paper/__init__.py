"""Everything that reproduces the paper: its tables as data, its ablation, figure 3."""
