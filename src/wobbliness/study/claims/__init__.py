"""The paper's claims: verdicts and findings."""
