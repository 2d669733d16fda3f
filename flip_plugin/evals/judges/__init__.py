"""Who judges in an evaluation, and how: judge models, options, the methods, the engine that asks them."""
