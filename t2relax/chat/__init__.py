"""Language models that a server runs: a CIF goes into a chat, and a CIF comes back."""
