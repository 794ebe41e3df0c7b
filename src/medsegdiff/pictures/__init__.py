"""From arrays to pixels: overlays, panels, sheets of cases."""
