"""Published sparsity patterns: one `.sparse` file each, the pattern in it named like the file."""
