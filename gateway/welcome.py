"""What `up` prints once everything is ready: addresses, and a first request to paste."""

from pathlib import Path

from gateway import demo
from gateway.program import program
from gateway.secrets import admin_token_path
from gateway.settings import PREFIX, Settings


def text(settings: Settings, gateway_url: str, admin_url: str, with_demo: bool) -> str:
    """No secret stands in it: the lines read them from their files, or from the setting that was
    given in a file's place.
    """
    token_file = _short(admin_token_path(settings))
    named, token = str(token_file), f"$(cat {token_file})"
    if settings.admin_token:  # then the file is not there, or has one of an earlier start
        named = token = f"${PREFIX}ADMIN_TOKEN"
    key_file = _short(demo.key_path(settings))
    key = f"$(cat {key_file})" if with_demo else "$KEY"
    python_key = f'open("{key_file}").read().strip()' if with_demo else 'os.environ["KEY"]'
    model = "chat-default"
    return f"""\
  gateway      {gateway_url}
  admin API    {admin_url}/admin/v1  (described at /admin/openapi.json, metrics at /metrics)
  admin token  {named}
{"" if with_demo else _FIRST_KEY.format(program())}
A first request:

  curl {gateway_url}/v1/chat/completions \\
    -H "authorization: Bearer {key}" -H "content-type: application/json" \\
    -d '{{"model": "{model}", "max_tokens": 64,
         "messages": [{{"role": "user", "content": "Hello"}}]}}'

The same from Python (pip install openai):

  {"" if with_demo else "import os; "}from openai import OpenAI
  client = OpenAI(base_url="{gateway_url}/v1", api_key={python_key})
  messages = [{{"role": "user", "content": "Hello"}}]
  answer = client.chat.completions.create(model="{model}", messages=messages, max_tokens=64)
  print(answer.choices[0].message.content)

Ask the admin API:

  curl -H "authorization: Bearer {token}" {admin_url}/admin/v1/status

Ctrl-C drains and stops everything.
"""


_FIRST_KEY = """
Nothing is configured yet? Put your backend into a copy of deploy/seed/first.yaml, then

  {} apply -f first.yaml
  export KEY=...  # the secret that it shows once
"""


def _short(path: Path) -> Path:
    """Relative to where the operator stands, when that is shorter."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
