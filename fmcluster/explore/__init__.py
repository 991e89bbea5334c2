"""Look at a whole run in the browser: `fmcluster explore`."""
