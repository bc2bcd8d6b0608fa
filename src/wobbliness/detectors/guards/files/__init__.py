"""Guards kept in files: settings as JSON, arrays as safetensors."""
