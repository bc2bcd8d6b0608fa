"""What is done to an input before the classifier sees it, with draws that are keyed."""
