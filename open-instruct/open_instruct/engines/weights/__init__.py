"""The learner's weights on their way into the engines."""
