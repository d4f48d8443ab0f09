"""The whole loop on the sample company, from documents to a decision and back."""
