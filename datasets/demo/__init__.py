"""The embedded corpus: see CARD.md."""
