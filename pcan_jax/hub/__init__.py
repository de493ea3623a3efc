"""Shares a trained model on the Hugging Face Hub, with a card that says what it is."""
