"""The specification, OpenSSF Model Signing v1.0: values and bytes. Nothing here opens a file."""
