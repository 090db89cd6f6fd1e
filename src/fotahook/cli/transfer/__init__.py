"""`fotahook publish`, `export` and `import`: messages in and out of files."""
