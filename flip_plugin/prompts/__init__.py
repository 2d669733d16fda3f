"""What a judge is asked: the text to be recovered (`target`), and the prompt templates (``*.prompt``)."""
