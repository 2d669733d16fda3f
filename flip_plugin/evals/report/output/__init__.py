"""What a report writes: tables, charts, the page, Markdown, JSON, CSV."""
