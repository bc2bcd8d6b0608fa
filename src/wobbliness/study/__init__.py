"""The paper's experiments: recipes, their records, and what is read off them."""
