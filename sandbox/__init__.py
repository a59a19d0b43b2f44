"""GitHub Actions and Sigstore on one machine, for demonstrations and tests. Never for production.

Everything here is a stand-in: keys live in memory and die with the process, any identity can be
had by asking, and nothing is audited by anybody. What is signed against the sandbox proves that
the product works, not where a model came from.
"""
