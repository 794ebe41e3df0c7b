"""Building blocks of the networks, one file per part of the paper. Knows no data and no diffusion process."""
