"""What clean, judged and mixed-in inputs have to be before a detector takes them."""
