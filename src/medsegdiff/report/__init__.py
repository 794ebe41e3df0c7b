"""Pictures, plots and the page that shows them. Takes arrays and numbers; knows no model."""
