"""What an evaluation keeps on disk: items, judgements as they come, a run's folder, finished runs read again."""
