"""What other people's actions do, for the sandbox. For demonstrations and tests only.

`OWNER/NAME/action.yml` takes the place of an action, `OWNER/NAME/.github/workflows/FILE` that of a
reusable workflow; the modules beside them do the work. They are started as steps, so they read
their inputs from the environment and speak GitHub's workflow commands.
"""
