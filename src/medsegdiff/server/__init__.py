"""Results in a browser and over HTTP: the page, the server of jobs and its workers; knows nothing of training."""
