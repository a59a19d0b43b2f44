"""Small repositories with workflows and actions, for runs in the sandbox."""

from __future__ import annotations

import subprocess
from pathlib import Path

GET_TOKEN = """python3 -c "
import json, os, urllib.request
request = urllib.request.Request(
    os.environ['ACTIONS_ID_TOKEN_REQUEST_URL'] + '&audience=a-test',
    headers={'Authorization': 'bearer ' + os.environ['ACTIONS_ID_TOKEN_REQUEST_TOKEN']})
print(json.load(urllib.request.urlopen(request))['value'])" > token"""

TOOLS = {
    ".github/workflows/reusable.yml": """
name: Reusable
on:
  workflow_call:
    inputs:
      greeting: {type: string, required: true}
      times: {type: number, default: 1}
      polite: {type: boolean, default: false}
    outputs:
      reply: {value: "${{ jobs.inner.outputs.reply }}"}
jobs:
  inner:
    permissions: {id-token: write}
    runs-on: ubuntu-latest
    outputs:
      reply: ${{ steps.hello.outputs.reply }}
      contexts: ${{ steps.contexts.outputs.contexts }}
    steps:
      - id: hello
        uses: $/actions/hello
        with: {greeting: "${{ inputs.greeting }}"}
      - id: contexts
        env:
          A: ${{ github.workflow_ref }}|${{ github.workflow }}|${{ github.repository }}
          B: ${{ job.workflow_ref }}|${{ job.workflow_sha }}|${{ job.workflow_repository }}
        run: echo "contexts=$A|$B|$GITHUB_WORKFLOW_REF|$GITHUB_SHA" >> "$GITHUB_OUTPUT"
      - run: |
          GET_TOKEN
      - uses: actions/upload-artifact@v7
        with: {name: token-of-inner, path: token}
  without:
    permissions: {contents: read}
    runs-on: ubuntu-latest
    outputs:
      token: ${{ steps.look.outputs.token }}
    steps:
      - id: look
        run: echo "token=${ACTIONS_ID_TOKEN_REQUEST_TOKEN:-none}" >> "$GITHUB_OUTPUT"
""".replace("GET_TOKEN", GET_TOKEN.replace("\n", "\n          ")),
    "actions/hello/action.yml": """
name: hello
description: Greets.
inputs:
  greeting: {description: What to say., required: true}
outputs:
  reply: {description: The answer., value: "${{ steps.nested.outputs.reply }}"}
runs:
  using: composite
  steps:
    - id: nested
      uses: $/actions/nested
      with: {word: "${{ inputs.greeting }}"}
""",
    "actions/nested/action.yml": """
name: nested
description: Answers.
inputs:
  word: {description: A word., required: true}
outputs:
  reply: {description: The answer., value: "${{ steps.say.outputs.reply }}"}
runs:
  using: composite
  steps:
    - id: say
      shell: bash
      env:
        WORD: ${{ inputs.word }}
        DEFINED_IN: ${{ job.workflow_repository }}
      run: |
        echo "reply=$WORD from $DEFINED_IN $(ls "$GITHUB_ACTION_PATH/../..")" >> "$GITHUB_OUTPUT"
""",
}


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def workflow(jobs: str, on: str = "on: workflow_dispatch", permissions: str = "{}") -> str:
    return f"name: W\n{on}\npermissions: {permissions}\njobs:\n{jobs}"


STEP = "  a: {runs-on: ubuntu-latest, steps: [{run: 'true'}]}\n"


def git(folder: Path, *arguments: str) -> str:
    """What git says in a folder; whoever commits has a name, on any machine."""
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.test"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=300
    ).stdout.strip()
