"""Who signed: for each method of OMS its signer and its verifier."""
