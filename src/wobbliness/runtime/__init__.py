"""Services of the process: progress, threads, Ctrl-C, files, errors, the terminal."""
