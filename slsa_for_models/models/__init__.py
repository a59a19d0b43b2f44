"""What a model file is: formats, loading, what is refused before loading."""
