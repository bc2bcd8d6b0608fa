"""Claims of the paper and further questions: one file each, found from the folders."""
