"""Networks that are changed after training: made to forget, corrected, composed."""
