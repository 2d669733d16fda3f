"""The paper's claims, checked against finished runs."""
