"""Text to checked patterns: grammar, syntax tree, diagnostics, printer, loader."""
